//! Behind Open vSwitch, whose datapath is a program here: it takes frames off a port before the ingress
//! hook sees them, and knows of no mark. So the sum must be finished where dnsmasq is.

use anyhow::{Context as _, Result, ensure};

use super::{
    AT_THE_PORT, Act, INSIDE, INTERFACE, NAMESPACE, PORT, TAP, attached, dnsmasq, network, told,
};
use crate::scenario::{guest::Guest, host::Host, story};

/// Where Debian has it; the link in `/usr/sbin` is not there before the package is configured.
pub const VSWITCHD: &str = "/usr/lib/openvswitch-switch/ovs-vswitchd";

/// fixer where dnsmasq is, if that is at a port of the switch itself.
const INSIDE_AT_TAP: &[&str] = &["run", "--netns", NAMESPACE, "-i", "tap*"];

/// Starts Open vSwitch as its service does, and makes the integration bridge.
const START: &str = "
PATH=$PATH:/usr/lib/openvswitch-switch
mkdir -p /run/openvswitch /var/lib/openvswitch /var/log/openvswitch
ovsdb-tool create /var/lib/openvswitch/conf.db /usr/share/openvswitch/vswitch.ovsschema
ovsdb-server /var/lib/openvswitch/conf.db --remote=punix:/run/openvswitch/db.sock --pidfile --detach
ovs-vsctl --no-wait init
ovs-vswitchd --pidfile --detach
ovs-vsctl add-br br-int -- set bridge br-int datapath_type=netdev
";

/// As neutron's openvswitch agent makes it, with `ovs_use_veth`.
pub fn behind_a_pair() -> Result<Act> {
    let host = switch()?;
    network(&host)?;
    host.sh(&format!("ip link set {TAP} up\novs-vsctl add-port br-int {TAP} tag=1"))?;
    let guest = guest(&host)?;
    let _dnsmasq = dnsmasq(&host, INTERFACE, "192.168.7.10,192.168.7.90")?;
    let fault = story::fault(&guest.ask_in_vain()?)?;

    let fixer = attached(&host, AT_THE_PORT)?;
    let still = guest.ask_in_vain()?;
    ensure!(story::fault(&still).is_ok(), "what was fixed at the port has reached the client");
    let counted = told(&host, fixer, AT_THE_PORT)?.pop().unwrap_or_default();
    let in_vain = format!("in vain at the port, which the switch reads before: {counted}");

    let fixer = attached(&host, INSIDE)?;
    let client = story::cure(&guest.ask()?)?;
    let told = [vec![in_vain], told(&host, fixer, INSIDE)?].concat();
    let setting = "behind Open vSwitch, its userspace datapath".to_owned();
    Ok(Act { setting, fault, fixer: told, client })
}

/// The same without: a port of the switch itself is moved into the namespace. Here that is a tap without
/// checksum offload, and so dnsmasq's replies are whole from the start: fixer leaves them alone.
pub fn internal() -> Result<Act> {
    let host = switch()?;
    host.sh(&format!(
        "ip netns add {NAMESPACE}\n\
         ovs-vsctl add-port br-int {TAP} tag=1 -- set interface {TAP} type=internal\n\
         ip link set {TAP} netns {NAMESPACE}\n\
         ip -n {NAMESPACE} link set lo up\n\
         ip -n {NAMESPACE} address add 192.168.7.2/24 dev {TAP}\n\
         ip -n {NAMESPACE} link set {TAP} up"
    ))?;
    let guest = guest(&host)?;
    let _dnsmasq = dnsmasq(&host, TAP, "192.168.7.10,192.168.7.90")?;
    let without = story::cure(&guest.ask()?)?;
    let fixer = attached(&host, INSIDE_AT_TAP)?;
    let client = story::cure(&guest.ask()?)?;
    let ended = host.stop(fixer)?.ok()?;
    let counted = ended.stdout.last().filter(|line| line.ends_with("egress: 2 valid"));
    let counted = counted.with_context(|| format!("replies were not whole: {ended:?}"))?;
    Ok(Act {
        setting: "the same, with an internal port in the namespace".to_owned(),
        fault: format!("none, for the port has no checksum offload: the client {without}"),
        fixer: vec![format!("fixer {}", INSIDE_AT_TAP.join(" ")), counted.clone()],
        client,
    })
}

/// A network node with Open vSwitch.
fn switch() -> Result<Host> {
    let host = Host::start("network node")?;
    host.sh(START)?;
    Ok(host)
}

/// A guest behind a port of the switch.
fn guest(host: &Host) -> Result<Guest> {
    let guest = Guest::new(&host.netns, PORT, 1)?;
    host.sh(&format!("ovs-vsctl add-port br-int {PORT} tag=1"))?;
    Ok(guest)
}
