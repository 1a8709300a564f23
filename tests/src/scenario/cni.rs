//! A bridge of Kubernetes' secondary networks, as Multus has the CNI plugin `bridge` make it.
//!
//! A server for boot over the network runs in a pod, and its clients are other pods and machines on the same
//! node. What the server sends never leaves through the bridge's own interface: it goes from port to port.
//! fixer runs as the DaemonSet of `dist/kubernetes/fixer.yaml` has it: the arguments, the capabilities and
//! the read-only root are read from there.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};

use super::{
    Scenario,
    guest::Guest,
    host::Host,
    story::{self, Act},
};
use crate::{
    command::{Running, hooks},
    http,
    kubernetes::{Container, MANIFEST, Manifest},
    pxe::{
        card::Card,
        guest::{self, Boot, Got},
        server::boot_file,
    },
};

/// The bridge of the network.
const BRIDGE: &str = "br1";

/// A pod's interface in it, as Multus names the first that it adds.
const INTERFACE: &str = "net1";

/// The network, as a NetworkAttachmentDefinition has it.
const NETWORK: &str =
    r#"{"cniVersion":"0.4.0","name":"pxe","type":"bridge","bridge":"br1","ipam":{}}"#;

/// The pod that serves.
const SERVER: &str = "pod-dhcp";

/// The port of the machine that boots, and the machine's address, which is QEMU's default.
const MACHINE: &str = "veth-vm0";
const MAC: &str = "52:54:00:12:34:56";

/// What is played.
pub const SCENARIO: Scenario = Scenario {
    name: "cni",
    title: "Multus' bridge network, with a server for PXE in a pod",
    packages: &[
        ("containernetworking-plugins", "/usr/lib/cni/bridge"),
        ("dnsmasq-base", "/usr/sbin/dnsmasq"),
        ("iproute2", "/usr/bin/ip"),
    ],
    play,
};

fn play(acts: &mut Vec<Act>) -> Result<()> {
    let host = Host::start("node")?;
    let _port = pod(&host, SERVER)?;
    let mut dnsmasq = dnsmasq(&host)?;
    let port = pod(&host, "pod-client")?;
    let client = Guest::at(host.named("pod-client")?, INTERFACE, 1);
    let manifest = Manifest::read()?;

    let fault = story::fault(&client.ask_in_vain()?)?;
    let booted = boot(&host)?;
    ensure!(booted.got == Got::Nothing && booted.ended, "nothing is wrong there: {booted:?}");
    dnsmasq.stderr.wait(&format!("DHCPDISCOVER({INTERFACE}) {MAC}"))?;
    let offer = dnsmasq.stderr.wait("DHCPOFFER")?;
    ensure!(offer.contains(MAC), "the machine was offered nothing: {offer}");
    let mut told = vec![diagnosis(&host)?, self_test(&host, &manifest.first()?)?];
    let fixer = as_on_a_node(&host, &manifest.main()?)?;
    told.push(format!("fixer {}", manifest.main()?.args()?.join(" ")));
    for interface in [BRIDGE, &port] {
        let there = hooks(&host.netns, interface)?;
        ensure!(there.len() == 1, "on {interface} there is {there:?}");
    }
    let cured = story::cure(&client.ask()?)?;
    told.push(counted(&host, &manifest.main()?, &port)?);
    acts.push(Act {
        setting: format!("a pod on {BRIDGE}, and a server in another pod"),
        fault,
        fixer: told,
        client: cured,
    });

    let booted = boot(&host)?;
    ensure!(booted.got == Got::BootFile, "the machine does not boot: {booted:?}");
    let address = booted.address.context("it booted without an address")?;
    acts.push(Act {
        setting: format!(
            "a machine that boots from {BRIDGE}: iPXE in QEMU, which verifies every sum"
        ),
        fault: "no address: every reply has a bad UDP checksum".to_owned(),
        fixer: vec!["the same".to_owned(), counted(&host, &manifest.main()?, MACHINE)?],
        client: format!("has {address}, and its boot file by TFTP"),
    });
    stop(&host, fixer, &port)
}

/// Adds a pod with an interface in the network, and hands over the name of its port.
fn pod(host: &Host, name: &str) -> Result<String> {
    let added = host.sh(&format!(
        "ip netns add {name}\n\
         ip -n {name} link set lo up\n\
         export CNI_COMMAND=ADD CNI_CONTAINERID={name} CNI_NETNS=/run/netns/{name}\n\
         export CNI_IFNAME={INTERFACE} CNI_PATH=/usr/lib/cni\n\
         echo '{NETWORK}' | /usr/lib/cni/bridge"
    ))?;
    let added: serde_json::Value = serde_json::from_str(&added).context("the plugin's answer")?;
    let names = added["interfaces"].as_array().into_iter().flatten();
    let mut names = names.filter_map(|interface| interface["name"].as_str());
    let port = names.find(|name| name.starts_with("veth"));
    Ok(port.with_context(|| format!("the plugin made no port: {added}"))?.to_owned())
}

/// dnsmasq in its pod, with DHCP, and with TFTP from the port that it is asked at.
fn dnsmasq(host: &Host) -> Result<Running> {
    host.write("/srv/tftp/boot.ipxe", &boot_file(100_000))?;
    host.sh(&format!("ip -n {SERVER} address add 10.0.6.1/24 dev {INTERFACE}"))?;
    let mut arguments = vec!["netns", "exec", SERVER, "dnsmasq", "--keep-in-foreground"];
    arguments.extend(["--log-facility=-", "--conf-file=/dev/null", "--no-hosts", "--no-resolv"]);
    arguments.extend(["--port=0", "--no-ping", "--user=root", "--dhcp-authoritative"]);
    arguments.extend(["--interface=net1", "--dhcp-range=10.0.6.100,10.0.6.199,255.255.255.0,1h"]);
    // ipxe.no-pxedhcp = 1: there is no second server to wait for.
    arguments.extend(["--dhcp-option=175,b0:01:01", "--dhcp-boot=boot.ipxe"]);
    arguments.extend(["--enable-tftp", "--tftp-root=/srv/tftp", "--tftp-single-port"]);
    arguments.extend(["--pid-file=/run/dnsmasq.pid", "--dhcp-leasefile=/run/leases"]);
    let mut dnsmasq = host.spawn("ip", &arguments)?;
    dnsmasq.stderr.wait("TFTP root is")?;
    Ok(dnsmasq)
}

/// The machine boots: behind a raw socket, where nobody finishes anything.
fn boot(host: &Host) -> Result<Boot> {
    let card = Card::RawSocket.plug_in(&host.netns, BRIDGE, MACHINE)?;
    guest::boot(&host.netns, card)
}

/// What the doctor finds on the bridge.
fn diagnosis(host: &Host) -> Result<String> {
    let said = host.run("fixer", &["doctor", "-i", BRIDGE])?.stdout;
    let found = said.iter().find(|line| line.contains("have unfinished UDP checksums"));
    let found = found.with_context(|| format!("the doctor says something else: {said:#?}"))?;
    Ok(format!("fixer doctor -i {BRIDGE}: {found}"))
}

/// Runs what the manifest runs before fixer, with the privileges that it gives there.
fn self_test(host: &Host, container: &Container<'_>) -> Result<String> {
    let ended = contained(host, container)?.end()?.ok().context(MANIFEST)?;
    ended.stdout.last().cloned().context("the self-test says nothing")
}

/// Starts fixer as the manifest does, and probes it as a node does.
fn as_on_a_node(host: &Host, container: &Container<'_>) -> Result<Running> {
    let mut fixer = contained(host, container)?;
    for _ in [BRIDGE, "the server's port", "the client's port"] {
        fixer.stderr.wait("attached to egress of")?;
    }
    let (place, path) = container.probe()?;
    let answer = http::get(&host.netns, place.parse::<SocketAddr>()?, path)?;
    ensure!(answer.is(200), "the probe at {place}{path}: {answer:?}");
    Ok(fixer)
}

/// A container's process: root with some capabilities and no others, that never gets more, on a read-only
/// root without a file system for BPF.
fn contained(host: &Host, container: &Container<'_>) -> Result<Running> {
    let enter = "umount /sys/fs/bpf; capabilities=$1; shift\n\
                 for place in / /etc /usr /sys; do mount -o remount,bind,ro $place; done\n\
                 exec setpriv --no-new-privs --bounding-set=-all$capabilities fixer \"$@\"";
    let capabilities: String = container
        .capabilities()?
        .into_iter()
        .map(|name| format!(",+{}", name.to_lowercase()))
        .collect();
    let mut arguments = vec!["--mount", "sh", "-ec", enter, "fixer", &capabilities];
    arguments.extend(container.args()?);
    host.spawn("unshare", &arguments)
}

/// What was fixed at a port, as Prometheus is told.
fn counted(host: &Host, container: &Container<'_>, port: &str) -> Result<String> {
    let place = container.probe()?.0.parse::<SocketAddr>()?;
    let metrics = http::get(&host.netns, place, "/metrics")?.body;
    let is_wanted = |line: &&str| {
        line.starts_with("fixer_packets_total") && line.contains(port) && line.contains("fixed")
    };
    let line = metrics.lines().find(is_wanted);
    Ok(line.with_context(|| format!("nothing was fixed at {port}"))?.to_owned())
}

/// Ends fixer as a node does, and sees that nothing of it stays.
fn stop(host: &Host, fixer: Running, port: &str) -> Result<()> {
    host.sh("kill -TERM $(pidof fixer)")?;
    fixer.end()?.ok()?;
    for interface in [BRIDGE, port] {
        let left = hooks(&host.netns, interface)?;
        ensure!(left.is_empty(), "fixer left {left:?} on {interface}");
    }
    Ok(())
}
