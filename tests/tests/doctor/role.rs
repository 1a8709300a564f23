//! Servers that have nothing for a bridge, those that only help another, and those that are too many.

use anyhow::{Result, ensure};
use fixer_tests::command::{Running, output};
use fixer_user::{
    lab::{link, packet::PacketSocket, scene::BRIDGE},
    net::netns::NetNs,
};

use nix::sys::socket::{setsockopt, sockopt::BindToDevice};

use super::{
    Diagnosis,
    checksum::{dnsmasq_told, serve, started},
    contains, finish_sums, run, scene,
    server::everywhere,
};

/// A dnsmasq that says so when it is ready.
pub fn told(netns: &NetNs, arguments: &[&str], ready: &str) -> Result<Running> {
    let fixed = ["--conf-file=/dev/null", "--bind-dynamic"];
    let mut running = Running::start(netns, dnsmasq_told(&[&fixed, arguments].concat()))?;
    running.stderr.wait(ready)?;
    Ok(running)
}

#[test]
fn a_server_that_has_nothing_for_a_bridge() -> Result<()> {
    let scene = scene()?;
    finish_sums(&scene)?;
    link::bridge(&scene.host, "br1")?;
    link::address(&scene.host, "br1", [10, 0, 4, 1].into(), 24)?;
    let look = || Diagnosis::of(&scene.host, &["-i", BRIDGE]);
    let ranges = "10.0.3.1/24; its ranges: 10.99.0.100-10.99.0.199";
    let give = "--dhcp-range=10.0.3.128,10.0.3.254";
    let elsewhere = "--dhcp-range=10.99.0.100,10.99.0.199,255.255.255.0";
    {
        let server = told(&scene.host, &["--interface=br0", elsewhere], "DHCP, ")?;
        let finding = look()?.names("ranges", "certain")?;
        contains(&finding, &[&format!("dnsmasq (pid {})", server.pid()), ranges, give])?;
        Diagnosis::of(&scene.host, &[])?.names("ranges", "certain")?;
    }
    {
        // One that is there for another bridge may only tell names on this one.
        let range = "--dhcp-range=10.0.4.100,10.0.4.199";
        let _server = told(&scene.host, &["-i", BRIDGE, "-i", "br1", range], "DHCP, ")?;
        look()?.names("ranges", "certain")?;
        let diagnosis = Diagnosis::of(&scene.host, &[])?;
        diagnosis.names("ranges", "note")?;
        ensure!(diagnosis.status == Some(0), "{diagnosis:#?}");
        Diagnosis::of(&scene.host, &["-i", "br1"])?.is_healthy()?;
        // Where another has something, nothing is amiss.
        let _other = serve(&scene.host, &[])?;
        look()?.is_healthy()?;
    }
    {
        // Addresses that somebody says to be of the same network.
        let shared = "--shared-network=br0,10.99.0.1";
        let _server = told(&scene.host, &["--interface=br0", elsewhere, shared], "DHCP, ")?;
        look()?.is_healthy()?;
    }
    let _server = serve(&scene.host, &[])?;
    look()?.is_healthy()?;
    run(&scene.host, "ip", "addr flush dev br0")?;
    let finding = look()?.names("ranges", "certain")?;
    contains(&finding, &["br0: no IPv4 address", "ip addr add ADDRESS/24 dev br0"])
}

/// What somebody told it not to serve, it does not.
#[test]
fn a_server_that_is_told_to_leave_a_bridge_alone() -> Result<()> {
    let scene = scene()?;
    let range = "--dhcp-range=10.0.3.100,10.0.3.199";
    for option in ["--no-dhcp-interface=br0", "--no-dhcpv4-interface=br0"] {
        let server = told(&scene.host, &["--interface=br0", option, range], "DHCP, ")?;
        let finding = Diagnosis::of(&scene.host, &["-i", BRIDGE])?.names("server", "possible")?;
        let words = format!("dnsmasq (pid {}) is told to leave br0 alone", server.pid());
        contains(&finding, &[&words])?;
        let serves = ["dnsmasq serves br0,", "dnsmasq serves br0\""];
        ensure!(!serves.iter().any(|words| finding.contains(words)), "{finding}");
    }
    Ok(())
}

#[test]
fn a_relay_is_called_one() -> Result<()> {
    let scene = scene()?;
    finish_sums(&scene)?;
    let relay = "--dhcp-relay=10.0.3.1,192.0.2.1";
    let server = told(&scene.host, &["--interface=br0", relay], "DHCP relay from 10.0.3.1")?;
    let diagnosis = Diagnosis::of(&scene.host, &["-i", BRIDGE])?;
    let words = format!("dnsmasq (pid {}), a relay to 192.0.2.1, on br0", server.pid());
    contains(&diagnosis.names("relay", "note")?, &["are relayed", &words])?;
    ["server", "ranges", "servers"].iter().try_for_each(|check| diagnosis.passes(check))?;
    ensure!(diagnosis.status == Some(0), "{diagnosis:#?}");
    Ok(())
}

/// The usual way to boot machines in a network that has a server: it tells what to boot, and gives no
/// address.
#[test]
fn a_proxy_is_no_rival_and_no_server() -> Result<()> {
    let scene = scene()?;
    finish_sums(&scene)?;
    let arguments = ["--interface=br0", "--dhcp-range=10.0.3.0,proxy", "--pxe-service=x86PC,x,x"];
    let proxy = told(&scene.host, &arguments, "DHCP, proxy on subnet 10.0.3.0")?;
    let look = || Diagnosis::of(&scene.host, &["-i", BRIDGE]);
    let words = format!("dnsmasq (pid {}), a proxy, on br0, gives no address", proxy.pid());
    contains(&look()?.names("server", "possible")?, &[&words])?;
    let _server = serve(&scene.host, &[])?;
    look()?.is_healthy()
}

/// Two that give the same addresses: the one that was there before is left over.
#[test]
fn two_servers_with_the_same_addresses() -> Result<()> {
    let scene = scene()?;
    finish_sums(&scene)?;
    let first = serve(&scene.host, &[])?;
    let second = serve(&scene.host, &["--dhcp-alternate-port=67,68"])?;
    let diagnosis = Diagnosis::of(&scene.host, &["-i", BRIDGE])?;
    let pid = |server: &Running| format!("dnsmasq (pid {}) on br0 (10.0.3.100-", server.pid());
    let finding = diagnosis.names("servers", "possible")?;
    contains(&finding, &["2 servers answer on br0", &pid(&first), &pid(&second)])?;
    let kill = format!("kill {} # the oldest", first.pid());
    contains(&diagnosis.remedy("servers")?, &[&kill])
}

/// Of two with different addresses nothing tells that one should not be there, unless it was replaced.
#[test]
fn two_servers_that_may_both_be_meant() -> Result<()> {
    let scene = scene()?;
    finish_sums(&scene)?;
    let directory = tempfile::tempdir()?;
    let pid_file = format!("--pid-file={}", directory.path().join("pid").display());
    let server = |range: &str, more: &[&str]| {
        let range = format!("--dhcp-range={range}");
        let fixed = ["--conf-file=/dev/null", "--bind-dynamic", "--interface=br0", &range];
        started(&scene.host, dnsmasq_told(&[&fixed, more].concat()))
    };
    let look = || Diagnosis::of(&scene.host, &["-i", BRIDGE]);
    let first = server("10.0.3.100,10.0.3.149", &[&pid_file])?;
    {
        let second = server("10.0.3.150,10.0.3.199", &[])?;
        let diagnosis = look()?;
        let finding = diagnosis.names("servers", "possible")?;
        contains(&finding, &["(10.0.3.100-10.0.3.149)", "(10.0.3.150-10.0.3.199)"])?;
        ensure!(!finding.contains("kill"), "{finding}");
        let said = output(&scene.host, "sh", &["-c", &diagnosis.remedy("servers")?])?;
        let pids = [first.pid().to_string(), second.pid().to_string()];
        contains(&said, &[&pids[0], &pids[1], "--dhcp-range"])?;
    }
    // Whoever starts it anew and forgets the old one has it write to the same file.
    let _second = server("10.0.3.150,10.0.3.199", &[&pid_file])?;
    let kill = format!("kill {} # another took its place", first.pid());
    contains(&look()?.remedy("servers")?, &[&kill])
}

/// dhcpd writes whole frames to clients that have no address, and has the kernel send the rest.
#[test]
fn what_a_server_with_a_packet_socket_sends_to_clients_that_renew() -> Result<()> {
    let scene = scene()?;
    let look = || Diagnosis::of(&scene.host, &["-i", BRIDGE]);
    let _udp = everywhere(&scene.host)?;
    look()?.names("checksum", "possible")?;
    let _packets = PacketSocket::open(&scene.host, BRIDGE)?;
    let finding = look()?.names("checksum", "possible")?;
    contains(&finding, &["replies to clients that renew leave br0", "fixer attach -i br0"])?;
    finish_sums(&scene)?;
    look()?.is_healthy()
}

/// A packet socket at another interface writes nothing here.
#[test]
fn a_packet_socket_elsewhere_finishes_nothing() -> Result<()> {
    let scene = scene()?;
    link::bridge(&scene.host, "br1")?;
    let udp = everywhere(&scene.host)?;
    setsockopt(&udp, BindToDevice, &BRIDGE.into())?;
    let _packets = PacketSocket::open(&scene.host, "br1")?;
    let look = || Diagnosis::of(&scene.host, &["-i", BRIDGE]);
    contains(&look()?.names("checksum", "likely")?, &["replies that leave br0"])?;
    let _here = PacketSocket::open(&scene.host, BRIDGE)?;
    look()?.names("checksum", "possible").map(drop)
}
