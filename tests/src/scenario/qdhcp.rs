//! OpenStack: dnsmasq in a namespace of its own for each network, as neutron's DHCP agent starts it.
//!
//! The namespace `qdhcp-NETWORK` has one end of a veth pair, and the virtual switch of the network node
//! has the other. A reply crosses that pair without a sum.

mod left_over;
mod openvswitch;
mod service;

use anyhow::{Result, ensure};

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

/// The guest's port.
const PORT: &str = "tap-vm0";

/// fixer where dnsmasq is.
const INSIDE: &[&str] = &["run", "--netns", NAMESPACE, "-i", "ns-*"];

/// fixer where the switch is.
const AT_THE_PORT: &[&str] = &["run", "-i", "tap*", "--hook", "ingress"];

/// What is played.
pub const SCENARIO: Scenario = Scenario {
    name: "qdhcp",
    title: "OpenStack's qdhcp namespace, behind the network node's switch",
    packages: &[
        ("dnsmasq-base", "/usr/sbin/dnsmasq"),
        ("iproute2", "/usr/bin/ip"),
        ("systemd", "/usr/lib/systemd/systemd"),
        ("openvswitch-switch", openvswitch::VSWITCHD),
    ],
    play,
};

fn play(acts: &mut Vec<Act>) -> Result<()> {
    acts.push(behind_a_bridge(INSIDE, "behind a Linux bridge, fixer in the namespace")?);
    acts.push(behind_a_bridge(AT_THE_PORT, "behind a Linux bridge, fixer at the bridge's port")?);
    acts.push(service::act()?);
    acts.push(openvswitch::behind_a_pair()?);
    acts.push(openvswitch::internal()?);
    acts.push(left_over::act()?);
    Ok(())
}

/// As neutron's linuxbridge agent makes it.
fn behind_a_bridge(arguments: &[&str], setting: &str) -> Result<Act> {
    let host = bridged()?;
    let _dnsmasq = dnsmasq(&host, INTERFACE, "192.168.7.10,192.168.7.90")?;
    let guest = Guest::behind(&host.netns, BRIDGE, PORT, 1)?;
    let fault = story::fault(&guest.ask_in_vain()?)?;
    let found = host.run("fixer", &["doctor", "--netns", NAMESPACE, "-i", "ns-*"])?;
    let found = story::finding(found, "unfinished")?;
    let fixer = attached(&host, arguments)?;
    let client = story::cure(&guest.ask()?)?;
    let told = [vec![format!("doctor: {found}")], told(&host, fixer, arguments)?];
    Ok(Act { setting: setting.to_owned(), fault, fixer: told.concat(), client })
}

/// A network node with the bridge of a network, and the network's namespace on it.
fn bridged() -> Result<Host> {
    let host = Host::start("network node")?;
    network(&host)?;
    bridge(&host)?;
    Ok(host)
}

/// The bridge of the network, with the other end of its pair.
fn bridge(host: &Host) -> Result<()> {
    host.sh(&format!(
        "ip link add {BRIDGE} type bridge\n\
         ip link set {BRIDGE} up\n\
         ip link set {TAP} master {BRIDGE} up"
    ))
    .map(drop)
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

/// dnsmasq on this interface and for these addresses, with the options that neutron gives it, as far as
/// they matter to a client.
fn dnsmasq(host: &Host, interface: &str, range: &str) -> Result<Running> {
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
            &format!("--interface={interface}"),
            &format!("--dhcp-range={range},255.255.255.0,1h"),
            // The one for a network, whatever its subnets are.
            &format!("--pid-file=/run/dnsmasq-{NAMESPACE}.pid"),
            &format!("--dhcp-leasefile=/run/leases-{range}"),
        ],
    )?;
    dnsmasq.stderr.wait("DHCP, sockets bound")?;
    Ok(dnsmasq)
}

/// `fixer run`, once it is attached.
fn attached(host: &Host, arguments: &[&str]) -> Result<Running> {
    let mut fixer = host.spawn("fixer", &[arguments, &["--metrics", "off"]].concat())?;
    fixer.stderr.wait("attached to")?;
    Ok(fixer)
}

/// Ends `fixer run`, and tells how it was started, what it did to the first reply, and what it counted.
fn told(host: &Host, fixer: Running, arguments: &[&str]) -> Result<Vec<String>> {
    let ended = host.stop(fixer)?.ok()?;
    let reply = ended.stdout.iter().find_map(|line| {
        let (_, from) = line.split_once("bad udp cksum")?;
        Some(format!("bad udp cksum{}", from.split(" xid").next()?))
    });
    let counted = ended.stdout.last().filter(|line| line.contains(" fixed")).cloned();
    ensure!(reply.is_some() && counted.is_some(), "nothing was fixed: {ended:?}");
    let command = format!("fixer {}", arguments.join(" "));
    Ok([Some(command), reply, counted].into_iter().flatten().collect())
}
