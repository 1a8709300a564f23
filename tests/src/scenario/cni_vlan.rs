//! The bridge of [`super::cni`] with VLANs: the plugin makes each pod's port an access port of one.
//!
//! Bridges that keep VLANs apart take a kernel with 802.1Q, so it is played in an emulated machine.

use std::{
    fs::{self, File},
    path::Path,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use fixer_user::net::netns::{NetNs, Spec};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{
    DNSMASQ, Scenario,
    guest::Guest,
    story::{self, Act},
};
use crate::{
    command::{Running, fixer, hooks, output, program},
    http::{self, METRICS},
};

/// The bridge of the network.
const BRIDGE: &str = "br1";

/// A pod's interface in it.
const INTERFACE: &str = "net1";

/// Where the plugins are.
const PLUGINS: &str = "/usr/lib/cni";

/// The VLAN of the server and its clients, and another one.
const VLANS: [u16; 2] = [100, 200];

/// How long a client asks: the machine is emulated.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is played, in a machine with all that it takes.
pub const SCENARIO: Scenario = Scenario {
    name: "cni-vlan",
    title: "Multus' bridge network with VLANs, on a Debian host",
    packages: &[("containernetworking-plugins", "/usr/lib/cni/bridge")],
    play,
};

fn play(acts: &mut Vec<Act>) -> Result<()> {
    let host = NetNs::current()?;
    output(&host, "ip", &["link", "set", "lo", "up"])?;
    let [own, other] = VLANS;
    let server = Pod::new(&host, "pod-dhcp", own)?;
    let _dnsmasq = dnsmasq(&server)?;
    let client = Pod::new(&host, "pod-client", own)?;
    let guest = Guest::at(client.netns.clone(), INTERFACE, 1);

    let fault = story::fault(&guest.ask_for(PATIENCE)?)?;
    let headline = text(&finding(&host, "checksum")?["headline"]);
    let arguments = ["run", "--auto", "-i", "veth*", "--events", "none"];
    let mut run = Running::start(&host, fixer(&arguments)?)?;
    for _ in [BRIDGE, "the server's port", "the client's port"] {
        run.stderr.wait("attached to egress of")?;
    }
    let cured = story::cure(&guest.ask()?)?;
    acts.push(Act {
        setting: format!(
            "a client and its server in VLAN {own} of {BRIDGE}, ports as the plugin makes them"
        ),
        fault,
        fixer: vec![
            format!("fixer doctor -i {BRIDGE}: {headline}"),
            format!("fixer {}", arguments.join(" ")),
            counted(&host, &client.port)?,
        ],
        client: cured,
    });

    let lost = Pod::new(&host, "pod-lost", other)?;
    run.stderr.wait(&format!("attached to egress of {}", lost.port))?;
    let guest = Guest::at(lost.netns.clone(), INTERFACE, 2);
    let asked = guest.ask_for(PATIENCE)?;
    ensure!(asked.lease.is_none() && asked.replies == 0, "the VLANs are one: {asked:?}");
    let found = finding(&host, "vlan")?;
    let remedy = text(&found["do"][0]);
    output(&host, "sh", &["-c", &remedy])?;
    let cured = story::cure(&guest.ask()?)?;
    acts.push(Act {
        setting: format!("a client in VLAN {other}"),
        fault: "none of the checksum: what it asks reaches no server".to_owned(),
        fixer: vec![
            format!("fixer doctor -i {BRIDGE}: {}", text(&found["headline"])),
            format!("what it says to do: {remedy}"),
        ],
        client: cured,
    });

    run.stop(Signal::SIGTERM)?.ok()?;
    for place in [BRIDGE, &server.port, &client.port, &lost.port] {
        let left = hooks(&host, place)?;
        ensure!(left.is_empty(), "fixer left {left:?} on {place}");
    }
    Ok(())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A pod in the network.
struct Pod {
    netns: NetNs,
    /// Its port of the bridge.
    port: String,
}

impl Pod {
    /// Adds one as Multus does, in a VLAN.
    fn new(host: &NetNs, name: &str, vlan: u16) -> Result<Self> {
        output(host, "ip", &["netns", "add", name])?;
        output(host, "ip", &["-n", name, "link", "set", "lo", "up"])?;
        let network = format!(
            r#"{{"cniVersion":"0.4.0","name":"pxe","type":"bridge","bridge":"{BRIDGE}","vlan":{vlan},"ipam":{{}}}}"#
        );
        let file = Path::new("/run").join(name);
        fs::write(&file, network)?;
        let mut plugin = program(&format!("{PLUGINS}/bridge"), &[]);
        plugin
            .env("CNI_COMMAND", "ADD")
            .env("CNI_CONTAINERID", name)
            .env("CNI_NETNS", format!("/run/netns/{name}"))
            .env("CNI_IFNAME", INTERFACE)
            .env("CNI_PATH", PLUGINS)
            .stdin(Stdio::from(File::open(&file)?));
        let ended = host.run(|| plugin.output())??;
        let added = String::from_utf8_lossy(&ended.stdout);
        ensure!(ended.status.success(), "the plugin refuses {name}: {added}");
        let added: Value = serde_json::from_str(&added).context("the plugin's answer")?;
        let names = added["interfaces"].as_array().into_iter().flatten();
        let mut names = names.filter_map(|interface| interface["name"].as_str());
        let port = names.find(|name| name.starts_with("veth")).map(str::to_owned);
        let port = port.with_context(|| format!("the plugin made no port: {added}"))?;
        Ok(Self { netns: NetNs::open(&Spec::named(name))?, port })
    }
}

/// dnsmasq in its pod.
fn dnsmasq(pod: &Pod) -> Result<Running> {
    output(&pod.netns, "ip", &["address", "add", "10.0.6.1/24", "dev", INTERFACE])?;
    let own = ["--interface=net1", "--dhcp-range=10.0.6.100,10.0.6.199,255.255.255.0,1h"];
    let arguments = [&DNSMASQ[..], &own].concat();
    let mut dnsmasq = Running::start(&pod.netns, program("dnsmasq", &arguments))?;
    dnsmasq.stderr.wait("DHCP, IP range")?;
    Ok(dnsmasq)
}

/// What a check of the doctor's finds on the bridge.
fn finding(host: &NetNs, check: &str) -> Result<Value> {
    let ended = Running::start(host, fixer(&["doctor", "--json", "-i", BRIDGE])?)?.end()?;
    let report: Value = serde_json::from_str(&ended.stdout.concat())?;
    let mut findings = report["findings"].as_array().into_iter().flatten();
    let found = findings.find(|finding| finding["check"] == check).cloned();
    found.with_context(|| format!("the doctor finds nothing of '{check}': {report:#}"))
}

/// What was fixed at a port, as Prometheus is told.
fn counted(host: &NetNs, port: &str) -> Result<String> {
    let metrics = http::get(host, METRICS, "/metrics")?.body;
    let is_wanted = |line: &&str| {
        line.starts_with("fixer_packets_total") && line.contains(port) && line.contains("fixed")
    };
    let line = metrics.lines().find(is_wanted);
    Ok(line.with_context(|| format!("nothing was fixed at {port}"))?.to_owned())
}
