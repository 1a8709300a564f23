//! fixer as a service of the network node, under a real systemd: installed once, whatever networks
//! there are.

use anyhow::{Result, ensure};

use super::{Act, BRIDGE, INTERFACE, NAMESPACE, PORT, TAP, bridge, dnsmasq, network};
use crate::{
    command::interfaces,
    http,
    scenario::{
        guest::Guest,
        host::{Host, until},
        story,
    },
};

/// What is installed, as it is shipped.
const SERVICE: &str = include_str!("../../../../dist/openstack/fixer-qdhcp.service");

/// Where it is installed.
const INSTALLED: &str = "/etc/systemd/system/fixer-qdhcp.service";

/// Where it tells what it has counted.
const METRICS: ([u8; 4], u16) = ([127, 0, 0, 1], 9768);

/// A network that was there before the service, and comes again after it.
pub fn act() -> Result<Act> {
    let host = Host::boot("network node")?;
    network(&host)?;
    bridge(&host)?;
    let server = dnsmasq(&host, INTERFACE, "192.168.7.10,192.168.7.90")?;
    let guest = Guest::behind(&host.netns, BRIDGE, PORT, 1)?;
    let fault = story::fault(&guest.ask_in_vain()?)?;

    host.write(INSTALLED, SERVICE)?;
    let verified = host.run("systemd-analyze", &["verify", "fixer-qdhcp.service"])?.ok()?;
    ensure!(verified.stderr.is_empty(), "systemd does not like it: {verified:?}");
    host.sh("systemctl enable --now fixer-qdhcp")?;
    let client = cure(&host, &guest)?;
    let status = host.sh("systemctl show fixer-qdhcp --value --property StatusText")?;

    // The network is deleted and made again, as neutron does it.
    host.stop(server)?;
    host.sh(&format!("ip netns del {NAMESPACE}"))?;
    until("nothing holds the network any more", || {
        Ok(!interfaces(&host.netns)?.iter().any(|name| name == TAP))
    })?;
    network(&host)?;
    host.sh(&format!("ip link set {TAP} master {BRIDGE} up"))?;
    let _server = dnsmasq(&host, INTERFACE, "192.168.7.10,192.168.7.90")?;
    cure(&host, &guest)?;
    let counted = format!("interface=\"{INTERFACE}\",hook=\"egress\",verdict=\"fixed\"}} 4");
    let metrics = http::get(&host.netns, METRICS, "/metrics")?;
    ensure!(metrics.body.contains(&counted), "not four replies were counted: {metrics:?}");

    host.sh("systemctl disable --now fixer-qdhcp")?;
    ensure!(!is_attached(&host)?, "the service has left something");
    Ok(Act {
        setting: "as a service".to_owned(),
        fault,
        fixer: vec![
            "dist/openstack/fixer-qdhcp.service installed; systemctl enable --now fixer-qdhcp"
                .to_owned(),
            format!("systemctl status: {status}"),
            "the namespace deleted and made again; fixer_packets_total: 4 fixed".to_owned(),
        ],
        client,
    })
}

/// What a client gets once the service is attached.
fn cure(host: &Host, guest: &Guest) -> Result<String> {
    until("the service is attached", || is_attached(host))?;
    story::cure(&guest.ask()?)
}

/// Whether something is attached where dnsmasq is.
fn is_attached(host: &Host) -> Result<bool> {
    Ok(host.sh(&format!("fixer status --netns {NAMESPACE}"))?.contains(INTERFACE))
}
