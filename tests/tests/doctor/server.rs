//! Who serves, and who should not.

use std::net::UdpSocket;

use anyhow::{Result, ensure};
use fixer_tests::command::{Running, interfaces};
use fixer_user::{
    lab::{
        link,
        packet::PacketSocket,
        scene::{BRIDGE, Scene},
    },
    net::netns::NetNs,
};

use super::checksum::serve;
use super::{Diagnosis, Host, contains, run, scene};

#[test]
fn nobody_serves() -> Result<()> {
    let scene = scene()?;
    let finding = Diagnosis::of(&scene.host, &["-i", BRIDGE])?.names("server", "certain")?;
    contains(&finding, &["no socket listens at UDP port 67 for br0", "dnsmasq --interface=br0"])?;
    // Unasked, a bridge of containers without DHCP is no alarm; one with machines behind it is.
    let diagnosis = Diagnosis::of(&scene.host, &[])?;
    diagnosis.names("server", "note")?;
    ensure!(diagnosis.status == Some(0), "{diagnosis:#?}");
    run(&scene.host, "ip", "tuntap add vnet0 mode tap")?;
    run(&scene.host, "ip", "link set vnet0 master br0")?;
    Diagnosis::of(&scene.host, &[])?.names("server", "certain").map(drop)
}

#[test]
fn a_server_may_be_beyond_an_uplink() -> Result<()> {
    let scene = scene()?;
    run(&scene.host, "ip", "link add vx0 type vxlan id 5 dstport 4789 local 10.0.3.1")?;
    run(&scene.host, "ip", "link set vx0 up master br0")?;
    let finding = Diagnosis::of(&scene.host, &["-i", BRIDGE])?.names("server", "note")?;
    contains(&finding, &["has to be beyond vx0", "--listen"])
}

#[test]
fn two_servers() -> Result<()> {
    let host = Host::new()?;
    let other = serve(&host.scene.host, &["--dhcp-alternate-port=67,68"])?;
    let finding = host.diagnosis()?.names("servers", "possible")?;
    let pid = format!("dnsmasq (pid {})", other.pid());
    contains(&finding, &["2 servers answer on br0", &pid, "the oldest is", "kill "])
}

#[test]
fn a_server_whose_interface_is_gone() -> Result<()> {
    let host = Host::new()?;
    run(&host.scene.host, "ip", "link add old0 type bridge")?;
    run(&host.scene.host, "ip", "addr add 10.0.9.1/24 dev old0")?;
    run(&host.scene.host, "ip", "link set old0 up")?;
    let left = super::checksum::dnsmasq(&host.scene.host, "old0", "10.0.9", &[])?;
    host.diagnosis()?.is_healthy()?;
    link::delete(&host.scene.host, "old0")?;
    let finding = host.diagnosis()?.names("leftover", "possible")?;
    contains(&finding, &["is left over", &format!("kill {}", left.pid())])
}

/// dhcpd and Kea answer through a packet socket, and compute the sums themselves.
#[test]
fn a_server_that_writes_whole_frames_leaves_no_sum_unfinished() -> Result<()> {
    let scene = scene()?;
    let _udp = scene.host.run(|| UdpSocket::bind("0.0.0.0:67"))??;
    Diagnosis::of(&scene.host, &["-i", BRIDGE])?.names("checksum", "likely")?;
    let _packets = PacketSocket::open(&scene.host, BRIDGE)?;
    Diagnosis::of(&scene.host, &["-i", BRIDGE])?.is_healthy()
}

/// A server in a namespace of its own, as OpenStack has it, behind a port of the bridge.
struct Behind {
    scene: Scene,
    _netns: NetNs,
    _dnsmasq: Running,
}

fn behind() -> Result<Behind> {
    let scene = scene()?;
    let netns = NetNs::scratch("qdhcp")?;
    link::veth(&scene.host, "tap-dhcp", &netns, "ns-dhcp")?;
    link::enslave(&scene.host, "tap-dhcp", BRIDGE)?;
    link::address(&netns, "ns-dhcp", [10, 0, 3, 2].into(), 24)?;
    let dnsmasq = super::checksum::dnsmasq(&netns, "ns-dhcp", "10.0.3", &[])?;
    ensure!(interfaces(&netns)?.len() == 2);
    Ok(Behind { scene, _netns: netns, _dnsmasq: dnsmasq })
}

#[test]
fn a_server_in_another_namespace_is_found_and_so_are_its_checksums() -> Result<()> {
    let behind = behind()?;
    let diagnosis = Diagnosis::of(&behind.scene.host, &["-i", BRIDGE])?;
    diagnosis.passes("server")?;
    let pid = behind._dnsmasq.pid();
    let finding = diagnosis.names("checksum", "likely")?;
    let option = format!("fixer attach -i ns-dhcp --netns pid:{pid}");
    contains(&finding, &[&format!("dnsmasq (pid {pid}) on pid:{pid}/ns-dhcp"), &option])?;
    let ingress = ["-i", "tap-dhcp", "--hook", "ingress", "--metrics", "off"];
    let _fixer = fixer_tests::command::attached(&behind.scene.host, &ingress)?;
    Diagnosis::of(&behind.scene.host, &["-i", BRIDGE])?.is_healthy()
}

#[test]
fn rules_for_routed_packets_act_on_bridged_ones_if_told_to() -> Result<()> {
    let behind = behind()?;
    let host = &behind.scene.host;
    run(host, "iptables", "-P FORWARD DROP")?;
    run(host, "sysctl", "-w net.bridge.bridge-nf-call-iptables=0")?;
    let look = || Diagnosis::of(host, &["-i", BRIDGE]);
    look()?.passes("bridge-nf")?;
    run(host, "sysctl", "-w net.bridge.bridge-nf-call-iptables=1")?;
    let finding = look()?.names("bridge-nf", "likely")?;
    let words = ["ip filter FORWARD: policy drop", "bridge-nf-call-iptables=0"];
    contains(&finding, &words)
}
