//! OpenStack: dnsmasq in a namespace of its own for each network, as neutron's DHCP agent starts it.
//!
//! The namespace `qdhcp-NETWORK` has one end of a veth pair, and the virtual switch of the network node
//! has the other. A reply crosses that pair without a sum.

use anyhow::Result;

use super::{
    Scenario,
    guest::Guest,
    host::Host,
    story::{self, Act},
};
use crate::command::Running;

/// The namespace of a network.
const NAMESPACE: &str = "qdhcp-7c6d6e1e";

/// The interface of dnsmasq in it.
const INTERFACE: &str = "ns-3fa85f64-57";

/// Its other end, a port of the switch.
const TAP: &str = "tap3fa85f64-57";

/// The bridge of the network.
const BRIDGE: &str = "brq7c6d6e1e-0";

/// What is played.
pub const SCENARIO: Scenario = Scenario {
    name: "qdhcp",
    title: "OpenStack's qdhcp namespace, behind the network node's switch",
    packages: &[("dnsmasq-base", "/usr/sbin/dnsmasq"), ("iproute2", "/usr/bin/ip")],
    play: behind_a_bridge,
};

/// As neutron's linuxbridge agent makes it.
fn behind_a_bridge(acts: &mut Vec<Act>) -> Result<()> {
    let host = Host::start("network node")?;
    host.sh(&format!(
        "ip link add {BRIDGE} type bridge\n\
         ip link set {BRIDGE} up"
    ))?;
    network(&host)?;
    host.sh(&format!("ip link set {TAP} master {BRIDGE} up"))?;
    let _dnsmasq = dnsmasq(&host)?;
    let guest = Guest::behind(&host.netns, BRIDGE, "tap-vm0", 1)?;

    let fault = story::fault(&guest.ask_in_vain()?)?;
    let arguments = ["run", "--netns", NAMESPACE, "-i", "ns-*"];
    let mut fixer = host.spawn("fixer", &arguments)?;
    let attached = fixer.stderr.wait("attached to")?;
    let client = story::cure(&guest.ask()?)?;
    let fixed = fixer.stdout.wait("fixed")?;
    acts.push(Act {
        setting: "behind a Linux bridge".to_owned(),
        fault,
        fixer: vec![format!("fixer {}", arguments.join(" ")), attached, fixed],
        client,
    });
    Ok(())
}

/// The namespace of the network, with one end of its pair.
fn network(host: &Host) -> Result<()> {
    host.sh(&format!(
        "ip netns add {NAMESPACE}\n\
         ip link add {INTERFACE} netns {NAMESPACE} type veth peer name {TAP}\n\
         ip -n {NAMESPACE} link set lo up\n\
         ip -n {NAMESPACE} address add 192.168.7.2/24 dev {INTERFACE}\n\
         ip -n {NAMESPACE} link set {INTERFACE} up"
    ))
    .map(drop)
}

/// dnsmasq with the options that neutron gives it, as far as they matter to a client.
fn dnsmasq(host: &Host) -> Result<Running> {
    let mut dnsmasq = host.spawn(
        "ip",
        &[
            "netns",
            "exec",
            NAMESPACE,
            "dnsmasq",
            "--keep-in-foreground",
            "--log-facility=-",
            "--no-hosts",
            "--no-resolv",
            "--port=0",
            "--no-ping",
            "--user=root",
            "--conf-file=/dev/null",
            "--bind-dynamic",
            "--dhcp-authoritative",
            &format!("--interface={INTERFACE}"),
            "--dhcp-range=192.168.7.10,192.168.7.90,255.255.255.0,1h",
            "--pid-file=/run/dnsmasq.pid",
            "--dhcp-leasefile=/run/leases",
        ],
    )?;
    dnsmasq.stderr.wait("DHCP, sockets bound")?;
    Ok(dnsmasq)
}
