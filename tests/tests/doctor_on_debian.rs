//! `fixer doctor` on bridges that keep VLANs apart, and beside filters that compute sums.
//!
//! Run on the kernels of `cargo xtask vm`, for not every machine's kernel has these. There is no
//! dnsmasq: who listens at a server's port is a server.

use std::{net::UdpSocket, os::fd::AsFd as _};

use anyhow::{Context as _, Result, ensure};
use fixer_tests::{
    command::{Running, fixer, output, turn_off},
    kernel::require_root,
};
use fixer_user::lab::{
    link,
    scene::{BRIDGE, PORT, Scene},
};
use nix::sys::socket::{setsockopt, sockopt::BindToDevice};
use serde_json::Value;

/// A bridge with a guest, and with somebody at a server's port.
struct Host {
    scene: Scene,
    _server: UdpSocket,
}

impl Host {
    fn new() -> Result<Self> {
        require_root()?;
        let scene = Scene::new().context("the scene cannot be made")?;
        let _server = scene.host.run(|| {
            let socket = UdpSocket::bind(("0.0.0.0", 67))?;
            setsockopt(&socket.as_fd(), BindToDevice, &BRIDGE.into())?;
            Ok::<_, anyhow::Error>(socket)
        })??;
        Ok(Self { scene, _server })
    }

    /// Runs a program on it; arguments with spaces between them.
    fn host(&self, program: &str, arguments: &str) -> Result<()> {
        let arguments: Vec<_> = arguments.split(' ').collect();
        output(&self.scene.host, program, &arguments).map(drop)
    }

    /// What a check of the doctor's found, as text.
    fn finding(&self, check: &str) -> Result<Option<String>> {
        let doctor = fixer(&["doctor", "--json", "-i", BRIDGE])?;
        let ended = Running::start(&self.scene.host, doctor)?.end()?;
        let report: Value = serde_json::from_str(&ended.stdout.concat())
            .with_context(|| format!("this is no report: {ended:?}"))?;
        let findings = report["findings"].as_array().context("there are no findings")?;
        let found = findings.iter().find(|finding| finding["check"] == check);
        Ok(found.map(Value::to_string))
    }

    fn finds(&self, check: &str, words: &[&str]) -> Result<()> {
        let found = self.finding(check)?.with_context(|| format!("{check} finds nothing"))?;
        for word in words {
            ensure!(found.contains(word), "no '{word}' in {found}");
        }
        Ok(())
    }

    fn passes(&self, check: &str) -> Result<()> {
        let found = self.finding(check)?;
        ensure!(found.is_none(), "{found:?}");
        Ok(())
    }
}

#[test]
fn vlans_that_separate_a_guest_from_its_server() -> Result<()> {
    let host = Host::new()?;
    host.host("ip", "link set br0 type bridge vlan_filtering 1")?;
    host.passes("vlan")?;
    host.host("bridge", "vlan del dev guest0 vid 1")?;
    host.host("bridge", "vlan add dev guest0 vid 20 pvid untagged")?;
    host.finds(
        "vlan",
        &["VLAN 20 pvid untagged; br0: VLAN 1 pvid", "bridge vlan add dev guest0 vid 1 pvid"],
    )?;
    // What it says to do mends it.
    host.host("bridge", "vlan add dev guest0 vid 1 pvid untagged")?;
    host.passes("vlan")?;
    // A VLAN that an uplink carries on has its server there; an uplink may have any of its own.
    host.host("bridge", "vlan add dev guest0 vid 20 pvid untagged")?;
    host.host("ip", "link add wire0 type veth peer name wire1")?;
    host.host("ip", "link set wire1 up")?;
    host.host("ip", "link set wire0 up")?;
    host.host("ip", "link add up0 link wire0 type vlan id 7")?;
    host.host("ip", "link set up0 up master br0")?;
    host.host("bridge", "vlan del dev up0 vid 1")?;
    host.host("bridge", "vlan add dev up0 vid 99 pvid untagged")?;
    host.finds("vlan", &["guest0", "possible"])?;
    host.host("bridge", "vlan add dev up0 vid 20")?;
    host.passes("vlan")?;
    host.host("ip", "link del up0")?;
    host.host("bridge", "vlan add dev guest0 vid 1 pvid untagged")?;
    host.passes("vlan")?;
    host.host("bridge", "vlan del dev br0 vid 1 self")?;
    host.finds("vlan", &["br0: no VLAN", "bridge vlan add dev br0 vid 1 pvid untagged self"])?;
    host.host("bridge", "vlan add dev br0 vid 1 pvid untagged self")?;
    host.passes("vlan")?;
    // A trunk: its guests tag their frames themselves. And a range of them.
    host.host("bridge", "vlan del dev guest0 vid 1")?;
    host.host("bridge", "vlan del dev guest0 vid 20")?;
    host.host("bridge", "vlan add dev guest0 vid 20-30")?;
    host.passes("vlan")
}

/// A server on a VLAN device of the bridge itself serves the guests of that VLAN.
#[test]
fn a_server_on_a_vlan_device_of_the_bridge() -> Result<()> {
    require_root()?;
    let scene = Scene::new().context("the scene cannot be made")?;
    link::vlan(&scene.host, "br0.10", BRIDGE, 10)?;
    let _server = scene.host.run(|| {
        let socket = UdpSocket::bind(("0.0.0.0", 67))?;
        setsockopt(&socket.as_fd(), BindToDevice, &"br0.10".into())?;
        Ok::<_, anyhow::Error>(socket)
    })??;
    let host = Host { scene, _server };
    host.host("ip", "addr add 10.0.10.1/24 dev br0.10")?;
    host.host("ip", "link set br0 type bridge vlan_filtering 1")?;
    // It has a server, whose replies leave through the bridge with a tag and without a sum.
    host.passes("server")?;
    host.finds("checksum", &["replies that leave br0.10", "fixer attach -i br0.10"])?;
    host.host("ethtool", "-K br0 tx off")?;
    host.passes("checksum")?;
    // The guest is in another VLAN, then in its own, which the bridge does not hand on to the device.
    host.finds("vlan", &["the server on br0.10", "bridge vlan add dev br0 vid 10 self"])?;
    host.host("bridge", "vlan add dev br0 vid 10 self")?;
    host.finds("vlan", &["bridge vlan add dev guest0 vid 10 pvid untagged"])?;
    host.host("bridge", "vlan add dev guest0 vid 10 pvid untagged")?;
    host.passes("vlan")?;
    host.host("bridge", "vlan del dev br0 vid 10 self")?;
    host.finds("vlan", &["br0, below br0.10: VLAN 1 pvid", "vlan add dev br0 vid 10 self"])?;
    host.host("bridge", "vlan add dev br0 vid 10 self")?;
    // Of another VLAN that ends here, nobody knows who is at its device: of that one alone.
    host.host("bridge", "vlan add dev guest0 vid 20 pvid untagged")?;
    host.finds("vlan", &["guest0", "br0.10"])?;
    link::vlan(&host.scene.host, "br0.20", BRIDGE, 20)?;
    host.passes("vlan")?;
    host.host("bridge", "vlan add dev guest0 vid 30 pvid untagged")?;
    host.finds("vlan", &["guest0", "br0.10"])
}

#[test]
fn filters_that_compute_sums() -> Result<()> {
    let host = Host::new()?;
    let filter = "protocol ip u32 match ip dport 68 ffff action csum ip and udp";
    host.finds("checksum", &["no tc filter with action csum"])?;
    // libvirt's way, and the same at clsact.
    host.host("tc", "qdisc add dev br0 root handle 1: htb")?;
    host.host("tc", &format!("filter add dev br0 parent 1: prio 2 {filter}"))?;
    host.passes("checksum")?;
    host.host("tc", "qdisc del dev br0 root")?;
    host.finds("checksum", &["fixer attach -i br0"])?;
    host.host("tc", "qdisc add dev guest0 clsact")?;
    host.host("tc", &format!("filter add dev guest0 egress {filter}"))?;
    host.passes("checksum")?;
    host.host("tc", "qdisc del dev guest0 clsact")?;
    host.finds("checksum", &["ports that pass them on so: guest0"])?;
    turn_off(&host.scene.host, PORT, "tx")?;
    host.passes("checksum")
}
