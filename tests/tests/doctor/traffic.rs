//! What only shows while clients ask.

use std::{
    fs,
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use fixer_tests::command::{
    PATIENCE, Process, Running, attached, fixer, on_bridge, output, program,
};
use fixer_tests::mounts::private_mounts;
use fixer_user::lab::{
    link,
    packet::PacketSocket,
    scene::{BRIDGE, GUEST, Scene},
    strict,
};
use fixer_user::net::netns::NetNs;
use nix::sys::signal::Signal;

use super::{
    Diagnosis, Host,
    checksum::serve,
    contains, finish_sums,
    message::{PXE, read_request, request},
    scene,
};

/// The client.
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x77];

/// Message types.
const DISCOVER: u8 = 1;
const REQUEST: u8 = 3;

/// What the doctor hears while `act` happens again and again.
fn hear(scene: &Scene, act: impl FnMut() -> Result<()>) -> Result<Diagnosis> {
    hear_after(scene, 2, |_| Ok(()), act)
}

/// The same after `begin` happened once, while it listened.
fn hear_after(
    scene: &Scene,
    seconds: u64,
    begin: impl FnOnce(&Running) -> Result<()>,
    mut act: impl FnMut() -> Result<()>,
) -> Result<Diagnosis> {
    let command = fixer(&["doctor", "--json", "-i", BRIDGE, "--listen", &seconds.to_string()])?;
    let mut doctor = Running::start(&scene.host, command)?;
    doctor.stderr.wait(&format!("listening for {seconds} s"))?;
    begin(&doctor)?;
    let pid = Process::of(doctor.pid())?;
    while !pid.ends_within(Duration::from_millis(100))? {
        act()?;
    }
    Diagnosis::read(&doctor.end()?)
}

/// Waits until the doctor has its ears, at the bridge and at its port.
fn wait_for_ears(scene: &Scene) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let table = || scene.host.run(|| fs::read_to_string("/proc/thread-self/net/packet"));
    while table()??.lines().count() < 3 {
        ensure!(Instant::now() < deadline, "the doctor does not listen");
        thread::sleep(Duration::from_millis(10)); // poll: the sockets are in the kernel's table
    }
    Ok(())
}

/// Waits until nothing lies in the sockets of those who listen.
fn wait_until_read(scene: &Scene) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let table = || scene.host.run(|| fs::read_to_string("/proc/thread-self/net/packet"));
    let held = |line: &str| line.split_whitespace().nth(6).map(|bytes| bytes != "0");
    while table()??.lines().skip(1).any(|line| held(line) == Some(true)) {
        ensure!(Instant::now() < deadline, "the doctor does not read");
        thread::sleep(Duration::from_millis(1)); // poll: the doctor takes what it heard
    }
    Ok(())
}

/// The same while a client sends these frames.
pub(super) fn hear_sent(scene: &Scene, frames: &[Vec<u8>]) -> Result<Diagnosis> {
    let client = PacketSocket::open(&scene.guest, GUEST)?;
    hear(scene, || frames.iter().try_for_each(|frame| Ok(client.send(frame, None)?)))
}

/// The same while the strict client asks, for as long as the doctor listens.
fn hear_client(scene: &Scene) -> Result<Diagnosis> {
    thread::scope(|scope| {
        scope.spawn(|| strict::ask(&scene.guest, GUEST, MAC, Duration::from_secs(4)));
        hear(scene, || Ok(()))
    })
}

#[test]
fn replies_with_unfinished_sums_and_with_finished_ones() -> Result<()> {
    let host = Host::partial()?;
    let diagnosis = hear_client(&host.scene)?;
    let finding = diagnosis.names("sums", "certain")?;
    contains(&finding, &["guest0: ", "replies left partial", "fixer attach -i br0"])?;
    // What was heard is told once.
    diagnosis.passes("checksum")?;
    let observer = on_bridge(&host.scene.host, &["--observe-only"])?;
    let discover = request(DISCOVER, 7, MAC, &[]);
    let finding =
        hear_sent(&host.scene, std::slice::from_ref(&discover))?.names("sums", "certain")?;
    let pid = observer.pid();
    let there = format!("although fixer run (pid {pid}) is there: it changes nothing");
    contains(&finding, &[&there, &format!("kill {pid} # fixer run"), "fixer attach -i br0"])?;
    drop(observer);
    let _fixer = on_bridge(&host.scene.host, &[])?;
    hear_sent(&host.scene, &[discover])?.is_healthy()
}

/// A client gets a whole lease, and so does the doctor see nothing that is wrong.
#[test]
fn a_lease_on_a_healthy_bridge() -> Result<()> {
    let host = Host::new()?;
    let mut lease = None;
    let ask = |_: &Running| {
        wait_for_ears(&host.scene)?;
        lease = strict::ask(&host.scene.guest, GUEST, MAC, Duration::from_secs(4))?.lease;
        Ok(())
    };
    let diagnosis = hear_after(&host.scene, 3, ask, || Ok(()))?;
    ensure!(lease.is_some(), "the client has no lease");
    diagnosis.is_healthy()?;
    let fine = diagnosis.report["fine"].to_string();
    contains(&fine, &["checksums of replies that passed", "every request answered"])
}

/// What is rightly attached elsewhere is left alone.
#[test]
fn a_fixer_on_another_bridge_is_not_to_blame() -> Result<()> {
    let host = Host::partial()?;
    link::bridge(&host.scene.host, "br1")?;
    let _fixer = attached(&host.scene.host, &["-i", "br1", "--metrics", "off"])?;
    let diagnosis = hear_client(&host.scene)?;
    let finding = diagnosis.names("sums", "certain")?;
    ensure!(diagnosis.remedy("sums")? == "fixer attach -i br0", "{finding}");
    ensure!(!finding.contains("although"), "{finding}");
    Ok(())
}

/// What `fixer attach` made is taken off, and put there anew, where the fault is; nowhere else.
#[test]
fn what_is_attached_and_does_not_fix_is_attached_anew() -> Result<()> {
    private_mounts(true)?;
    let host = Host::partial()?;
    link::bridge(&host.scene.host, "br1")?;
    let act = |arguments: &[&str]| {
        Running::start(&host.scene.host, fixer(&[arguments, &["--skip-selftest"]].concat())?)?
            .end()?
            .ok()
    };
    act(&["attach", "-i", "br1"])?;
    act(&["attach", "-i", BRIDGE, "--observe-only"])?;
    let diagnosis = hear_client(&host.scene)?;
    let finding = diagnosis.names("sums", "certain")?;
    let command = diagnosis.remedy("sums")?;
    let expected = "fixer detach -i br0; fixer attach -i br0";
    ensure!(command == expected, "{command}");
    contains(&finding, &["although fixer attach is there: it changes nothing"])
}

/// What goes to other hosts is finished by the hardware, behind the packet socket.
#[test]
fn replies_that_leave_for_other_hosts_are_not_finished_yet() -> Result<()> {
    let host = Host::partial()?;
    host.host("ip", "link add vx0 type vxlan id 5 dstport 4789 local 10.0.3.1")?;
    host.host("ip", "link set vx0 up master br0 mtu 1500")?;
    host.host("ethtool", "-K guest0 tx off")?;
    let diagnosis = hear_sent(&host.scene, &[request(DISCOVER, 7, MAC, &[])])?;
    diagnosis.passes("sums")?;
    ensure!(diagnosis.status == Some(0), "{diagnosis:#?}");
    Ok(())
}

/// A guest may be busy with something else than DHCP.
#[test]
fn a_busy_port_is_heard_to_the_end() -> Result<()> {
    let host = Host::partial()?;
    host.host("ip", "neigh replace 10.0.3.150 lladdr 02:00:00:00:00:77 dev br0")?;
    let socket = host.scene.host.run(|| UdpSocket::bind("0.0.0.0:0"))??;
    let flood = |_: &Running| {
        wait_for_ears(&host.scene)?;
        for number in 0..25_000 {
            socket.send_to(&[0; 64], "10.0.3.150:4433")?;
            if number % 50 == 0 {
                wait_until_read(&host.scene)?;
            }
        }
        Ok(())
    };
    let client = PacketSocket::open(&host.scene.guest, GUEST)?;
    let discover = request(DISCOVER, 7, MAC, &[]);
    let diagnosis = hear_after(&host.scene, 6, flood, || Ok(client.send(&discover, None)?))?;
    contains(&diagnosis.names("sums", "certain")?, &["guest0: "])?;
    ensure!(diagnosis.report["unseen"].as_array().is_some_and(Vec::is_empty), "{diagnosis:#?}");
    Ok(())
}

/// Who missed something is not certain that nobody answered.
#[test]
fn what_came_too_fast_is_told() -> Result<()> {
    let scene = scene()?;
    let client = PacketSocket::open(&scene.guest, GUEST)?;
    let discover = request(DISCOVER, 7, MAC, &[]);
    let overrun = |doctor: &Running| {
        wait_for_ears(&scene)?;
        doctor.signal(Signal::SIGSTOP)?;
        for _ in 0..5_000 {
            client.send(&discover, None)?;
        }
        doctor.signal(Signal::SIGCONT)
    };
    let diagnosis = hear_after(&scene, 2, overrun, || Ok(client.send(&discover, None)?))?;
    contains(&diagnosis.names("answers", "possible")?, &["nobody answers"])?;
    contains(&diagnosis.report["unseen"].to_string(), &["guest0", "came faster"])
}

#[test]
fn replies_with_wrong_sums() -> Result<()> {
    let host = Host::new()?;
    // Behind the sum that iptables finished, somebody changes what it is over.
    output(
        &host.scene.host,
        "nft",
        &["add table bridge damage; \
           add chain bridge damage out { type filter hook postrouting priority 0; }; \
           add rule bridge damage out udp sport 67 @th,96,8 set 3"],
    )?;
    let discover = request(DISCOVER, 7, MAC, &[]);
    let finding = hear_sent(&host.scene, &[discover])?.names("sums", "certain")?;
    contains(&finding, &["wrong UDP checksums", "finished the sum twice, or damages"])?;
    contains(&finding, &["fixer run -i guest0 --hook both --observe-only --all"])?;
    // Seen from another namespace it is told where, in a way that can be done.
    let mut sleeper = std::process::Command::new("sleep");
    sleeper.arg("1000");
    let sleeper = Running::start(&host.scene.host, sleeper)?;
    let netns = format!("pid:{}", sleeper.pid());
    let elsewhere = NetNs::scratch("elsewhere")?;
    let command = fixer(&["doctor", "--json", "--netns", &netns, "-i", BRIDGE, "--listen", "2"])?;
    let doctor = Running::start(&elsewhere, command)?;
    wait_for_ears(&host.scene)?;
    let client = PacketSocket::open(&host.scene.guest, GUEST)?;
    client.send(&request(DISCOVER, 8, MAC, &[]), None)?;
    let command = Diagnosis::read(&doctor.end()?)?.remedy("sums")?;
    let words = format!("fixer run -i guest0 --hook both --observe-only --all --netns {netns}");
    contains(&command, &[&words])
}

#[test]
fn requests_that_no_server_answers() -> Result<()> {
    let host = scene()?;
    let discover = || request(DISCOVER, 7, MAC, &[]);
    let finding = hear_sent(&host, &[discover()])?.names("answers", "certain")?;
    contains(&finding, &["no reply, from 02:00:00:00:00:77", "no server hears them"])?;
    // A server that has nothing for this client, as a pool that denies it, and something for another.
    let known = "--dhcp-host=02:00:00:00:00:78";
    let server = serve(&host.host, &["--dhcp-ignore=tag:!known", known])?;
    let other = request(DISCOVER, 8, [2, 0, 0, 0, 0, 0x78], &[]);
    let finding = hear_sent(&host, &[discover(), other])?.names("answers", "certain")?;
    let pid = format!("although there is dnsmasq (pid {})", server.pid());
    let meanwhile = "meanwhile 10.0.3.1 answered 02:00:00:00:00:78";
    contains(&finding, &[&pid, meanwhile, "peer holds all free leases", "journalctl"])
}

#[test]
fn a_server_that_refuses() -> Result<()> {
    let host = Host::new()?;
    let wish = request(REQUEST, 9, MAC, &[(50, &[192, 168, 99, 5])]);
    let finding = hear_sent(&host.scene, &[wish])?.names("refusals", "likely")?;
    contains(&finding, &["NAK from 10.0.3.1 to 02:00:00:00:00:77"])
}

#[test]
fn a_boot_client_that_is_not_told_what_to_boot() -> Result<()> {
    let host = Host::new()?;
    let discover = request(DISCOVER, 7, MAC, &[PXE, (55, &[66, 67])]);
    let finding =
        hear_sent(&host.scene, std::slice::from_ref(&discover))?.names("boot", "likely")?;
    contains(&finding, &["offered no boot file", "--dhcp-boot"])?;
    let scene = scene()?;
    finish_sums(&scene)?;
    let _server = serve(&scene.host, &["--dhcp-boot=pxelinux.0"])?;
    hear_sent(&scene, &[discover])?.is_healthy()
}

#[test]
fn files_that_nobody_serves() -> Result<()> {
    let host = Host::new()?;
    // The client answers no ARP, so the server is told where it is.
    host.host("ip", "neigh replace 10.0.3.150 lladdr 02:00:00:00:00:77 dev br0")?;
    let asked = || hear_sent(&host.scene, &[read_request(MAC)]);
    let finding = asked()?.names("tftp", "likely")?;
    contains(&finding, &["10.0.3.150 asked 10.0.3.1 at UDP port 69", "--enable-tftp"])?;
    let root = tempfile::tempdir()?;
    let root = root.path().to_str().context("the path is no text")?;
    let arguments = format!("--enable-tftp --tftp-root={root} --port=0 --interface=br0");
    let fixed = "--keep-in-foreground --log-facility=- --conf-file=/dev/null --no-resolv --no-hosts \
                 --bind-interfaces --user=root --group=root --pid-file";
    let words: Vec<_> = fixed.split_whitespace().chain(arguments.split(' ')).collect();
    let command = program("dnsmasq", &words);
    let mut tftp = Running::start(&host.scene.host, command)?;
    tftp.stderr.wait("TFTP root is")?;
    asked()?.passes("tftp")
}
