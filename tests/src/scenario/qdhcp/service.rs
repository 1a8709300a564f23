//! fixer as a service of the network node, under a real systemd: installed once, whatever networks
//! there are.

use anyhow::{Result, ensure};

use super::{Act, BRIDGE, INTERFACE, NAMESPACE, PORT, TAP, bridge, dnsmasq, network};
use crate::{
    command::interfaces,
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

/// A network that was there before the service, and goes before it does.
pub fn act() -> Result<Act> {
    let host = Host::boot("network node")?;
    network(&host)?;
    bridge(&host)?;
    let server = dnsmasq(&host, "192.168.7.10,192.168.7.90")?;
    let guest = Guest::behind(&host.netns, BRIDGE, PORT, 1)?;
    let fault = story::fault(&guest.ask_in_vain()?)?;

    host.write(INSTALLED, &SERVICE.replace("qdhcp-*", NAMESPACE))?;
    let verified = host.run("systemd-analyze", &["verify", "fixer-qdhcp.service"])?.ok()?;
    ensure!(verified.stderr.is_empty(), "systemd does not like it: {verified:?}");
    host.sh("systemctl enable --now fixer-qdhcp")?;
    until("the service is attached", || Ok(status(&host)?.contains("attached to")))?;
    let client = story::cure(&guest.ask()?)?;
    let counted = format!("interface=\"{INTERFACE}\",hook=\"egress\",verdict=\"fixed\"}} 2");
    let metrics = host.sh("busybox wget -q -O - http://127.0.0.1:9768/metrics")?;
    ensure!(metrics.contains(&counted), "nothing was counted: {metrics}");
    let told = status(&host)?;

    // It holds no namespace that neutron deletes.
    host.stop(server)?;
    host.sh(&format!("ip netns del {NAMESPACE}"))?;
    until("the network is gone", || Ok(!interfaces(&host.netns)?.iter().any(|name| name == TAP)))?;
    host.sh("systemctl disable --now fixer-qdhcp")?;
    Ok(Act {
        setting: "as a service".to_owned(),
        fault,
        fixer: vec![
            "dist/openstack/fixer-qdhcp.service installed; systemctl enable --now fixer-qdhcp"
                .to_owned(),
            format!("systemctl status: {told}"),
            "metrics: 2 fixed; the namespace can be deleted".to_owned(),
        ],
        client,
    })
}

/// What the service says of itself.
fn status(host: &Host) -> Result<String> {
    host.sh("systemctl show fixer-qdhcp --value --property StatusText")
}
