//! Behind Open vSwitch, whose datapath is a program here: it takes frames off a port before the ingress
//! hook sees them, and knows of no mark. So the sum must be finished where dnsmasq is.

use anyhow::{Result, ensure};

use super::{AT_THE_PORT, Act, INSIDE, PORT, TAP, attached, dnsmasq, network, told};
use crate::scenario::{guest::Guest, host::Host, story};

/// Debian starts it through a link that its package makes when it is installed.
pub const VSWITCHD: &str = "/usr/lib/openvswitch-switch/ovs-vswitchd";

/// Starts Open vSwitch as its service does, and makes the integration bridge.
const START: &str = "
mkdir -p /run/openvswitch /var/lib/openvswitch /var/log/openvswitch
ovsdb-tool create /var/lib/openvswitch/conf.db /usr/share/openvswitch/vswitch.ovsschema
ovsdb-server /var/lib/openvswitch/conf.db --remote=punix:/run/openvswitch/db.sock --pidfile --detach
ovs-vsctl --no-wait init
$VSWITCHD --pidfile --detach
ovs-vsctl add-br br-int -- set bridge br-int datapath_type=netdev
";

/// As neutron's openvswitch agent makes it, with `ovs_use_veth`.
pub fn act() -> Result<Act> {
    let host = Host::start("network node")?;
    network(&host)?;
    host.sh(&format!("VSWITCHD={VSWITCHD}\n{START}"))?;
    let guest = Guest::new(&host.netns, PORT, 1)?;
    host.sh(&format!(
        "ip link set {TAP} up\n\
         ovs-vsctl add-port br-int {TAP} tag=1 -- add-port br-int {PORT} tag=1"
    ))?;
    let _dnsmasq = dnsmasq(&host, "192.168.7.10,192.168.7.90")?;
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
