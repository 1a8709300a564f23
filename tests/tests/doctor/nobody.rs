//! Bridges that nobody serves, or that somebody serves who cannot be seen; and what then to start.

use std::{ffi::CStr, io, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use fixer_tests::{
    command::{Running, fixer, program},
    tap::Tap,
};
use fixer_user::{
    lab::{
        link,
        scene::{BRIDGE, GUEST, PORT, Scene},
        strict,
    },
    net::netns::NetNs,
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use super::{
    Diagnosis, contains, finish_sums,
    message::{offer, request},
    run, scene,
    traffic::hear_sent,
};

/// The client.
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x77];

/// What is to be started on the scene's bridge, on which this host has the first address.
const DNSMASQ: &str =
    "dnsmasq --port=0 --interface=br0 --bind-interfaces --dhcp-range=10.0.3.128,10.0.3.254";

/// How it is found out whether another server answers.
const LISTEN: &str = "fixer doctor -i br0 --listen 30";

#[test]
fn nobody_serves() -> Result<()> {
    let scene = scene()?;
    // What is at the other end of a veth pair cannot be seen: a guest, or a way to a server.
    let diagnosis = Diagnosis::of(&scene.host, &["-i", BRIDGE])?;
    let finding = diagnosis.names("server", "possible")?;
    let words = ["no socket listens at UDP port 67 for br0", "the other end of guest0"];
    contains(&finding, &[&words[..], &[LISTEN]].concat())?;
    ensure!(!finding.contains(DNSMASQ), "{finding}");
    // Unasked, a bridge of containers without DHCP is no alarm.
    let diagnosis = Diagnosis::of(&scene.host, &[])?;
    diagnosis.names("server", "note")?;
    ensure!(diagnosis.status == Some(0), "{diagnosis:#?}");
    link::delete(&scene.host, PORT)?;
    let finding = Diagnosis::of(&scene.host, &["-i", BRIDGE])?.names("server", "certain")?;
    contains(&finding, &[words[0], DNSMASQ])
}

/// A virtual machine may be the server of its bridge.
#[test]
fn a_guest_may_be_the_server() -> Result<()> {
    let scene = scene()?;
    let _guest = Tap::open(&scene.host, "vnet0", true)?;
    run(&scene.host, "ip", "link set vnet0 up master br0")?;
    let diagnosis = Diagnosis::of(&scene.host, &[])?;
    contains(&diagnosis.names("server", "note")?, &[LISTEN])?;
    ensure!(diagnosis.status == Some(0), "{diagnosis:#?}");
    // Whoever asks in vain is heard, and then a server does no harm.
    let discover = request(1, 7, MAC, &[]);
    let finding =
        hear_sent(&scene, std::slice::from_ref(&discover))?.names("server", "possible")?;
    contains(&finding, &[DNSMASQ])?;
    // Who is answered has a server, wherever that is.
    let answered = [discover, offer(7, [2, 0, 0, 0, 0, 1], MAC)];
    hear_sent(&scene, &answered)?.is_healthy()?;
    // With nothing but the guest's port, the guest is the one.
    link::delete(&scene.host, PORT)?;
    let finding = Diagnosis::of(&scene.host, &["-i", BRIDGE])?.names("server", "possible")?;
    contains(&finding, &["such as the one behind vnet0", LISTEN])?;
    ensure!(!finding.contains(DNSMASQ), "{finding}");
    Ok(())
}

#[test]
fn a_server_may_be_beyond_an_uplink() -> Result<()> {
    let scene = scene()?;
    run(&scene.host, "ip", "link add vx0 type vxlan id 5 dstport 4789 local 10.0.3.1")?;
    // Which is one itself, without a bridge.
    let finding = Diagnosis::of(&scene.host, &["-i", "vx0"])?.names("server", "note")?;
    contains(&finding, &["has to be beyond vx0"])?;
    run(&scene.host, "ip", "link set vx0 up master br0")?;
    let finding = Diagnosis::of(&scene.host, &["-i", BRIDGE])?.names("server", "note")?;
    contains(&finding, &["has to be beyond vx0", LISTEN])
}

/// A command that is to act in another namespace says so.
#[test]
fn commands_act_where_the_fault_is() -> Result<()> {
    let (here, scene) = (NetNs::scratch("here")?, scene()?);
    link::up(&here, "lo")?;
    let sleeper = Running::start(&scene.host, program("sleep", &["1000"]))?;
    let netns = format!("pid:{}", sleeper.pid());
    let look = || Diagnosis::of(&here, &["--netns", &netns, "-i", BRIDGE]);
    let listen = format!("{LISTEN} --netns {netns}");
    contains(&look()?.remedy("server")?, &[&listen])?;
    link::delete(&scene.host, PORT)?;
    let within = format!("nsenter -t {} -n {DNSMASQ}", sleeper.pid());
    contains(&look()?.remedy("server")?, &[&within])?;
    run(&scene.host, "ip", "link add vx0 type vxlan id 5 dstport 4789 local 10.0.3.1")?;
    run(&scene.host, "ip", "link set vx0 up master br0")?;
    contains(&look()?.remedy("server")?, &[&listen])
}

/// A machine's files, of which the programs that are started write some.
fn private() -> io::Result<()> {
    const NONE: Option<&CStr> = None;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(NONE, c"/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    for directory in [c"/run", c"/var/lib"] {
        mount(Some(c"tmpfs"), directory, Some(c"tmpfs"), MsFlags::empty(), NONE)?;
    }
    Ok(())
}

/// Does what it says, by a shell that becomes the program.
fn start(scene: &Scene, command: &str) -> Result<Running> {
    let (command, _) = command.split_once(" #").context("it has a remark")?;
    let script = format!("mkdir -p /var/lib/misc; exec {command} -k --log-facility=-");
    let mut server = Running::start_as(&scene.host, program("sh", &["-c", &script]), private)?;
    server.stderr.wait("DHCP, sockets bound")?;
    Ok(server)
}

#[test]
fn what_is_to_be_started_serves() -> Result<()> {
    let scene = scene()?;
    finish_sums(&scene)?;
    link::delete(&scene.host, PORT)?;
    let look = || Diagnosis::of(&scene.host, &["-i", BRIDGE]);
    let _server = start(&scene, &look()?.remedy("server")?)?;
    look()?.is_healthy()?;
    link::veth(&scene.host, PORT, &scene.guest, GUEST)?;
    link::enslave(&scene.host, PORT, BRIDGE)?;
    // dnsmasq pings an address before it gives it away.
    let outcome = strict::ask(&scene.guest, GUEST, MAC, Duration::from_secs(15))?;
    let lease = outcome.lease.context("the client has no lease")?;
    ensure!(lease.address.octets()[3] >= 128, "{lease:?}");
    Ok(())
}

/// A bridge without an address has no network whose addresses could be given.
#[test]
fn a_bridge_without_an_address_is_given_one_first() -> Result<()> {
    let scene = scene()?;
    link::delete(&scene.host, PORT)?;
    run(&scene.host, "ip", "addr flush dev br0")?;
    let command = Diagnosis::of(&scene.host, &["-i", BRIDGE])?.remedy("server")?;
    contains(&command, &["ip addr add ADDRESS/24 dev br0 #"])
}

/// Bridges whose server is somebody's who believes that it runs.
#[test]
fn the_server_of_a_well_known_bridge_is_started_by_its_owner() -> Result<()> {
    let scene = scene()?;
    let told = |bridge: &str, sh: &str| -> Result<Diagnosis> {
        run(&scene.host, "ip", &format!("link add {bridge} type bridge"))?;
        run(&scene.host, "ip", &format!("link set {bridge} up"))?;
        let _guest = Tap::open(&scene.host, "vnet0", true)?;
        run(&scene.host, "ip", &format!("link set vnet0 up master {bridge}"))?;
        let doctor = fixer(&["doctor", "--json"])?;
        // The descriptor that it is started through is this process's.
        let own = format!("/proc/{}", std::process::id());
        let path = doctor.get_program().to_string_lossy().replace("/proc/self", &own);
        let mut command: Command = program("sh", &["-c", &format!("{sh}\nexec \"$@\""), "sh"]);
        command.arg(path).args(doctor.get_args());
        let ended = Running::start_as(&scene.host, command, private)?.end()?;
        link::delete(&scene.host, bridge)?;
        Diagnosis::read(&ended)
    };
    for (bridge, sh, words) in [
        ("virbr0", "", "systemctl restart libvirtd #"),
        ("virbr7", "", "systemctl restart libvirtd #"),
        (
            "virbr0",
            "mkdir /run/libvirt; touch /run/libvirt/virtnetworkd-sock",
            "systemctl restart virtnetworkd #",
        ),
        ("lxcbr0", "", "systemctl restart lxc-net"),
        ("incusbr0", "", "systemctl restart incus"),
        ("lxdbr0", "", "systemctl restart lxd"),
    ] {
        let diagnosis = told(bridge, sh)?;
        contains(&diagnosis.names("server", "possible")?, &[words, bridge])?;
    }
    // Neutron's server may be on another node.
    let diagnosis = told("qbr3fa85f64-57", "")?;
    contains(&diagnosis.report.to_string(), &["qbr3fa85f64-57"])?;
    ensure!(diagnosis.status == Some(0), "{diagnosis:#?}");
    Ok(())
}
