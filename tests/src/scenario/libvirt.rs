//! libvirt: its default network, with the bridge `virbr0` and the dnsmasq that libvirtd starts for it.
//!
//! Where iptables has a target CHECKSUM, libvirt adds a rule that finishes the sums, and fixer finds
//! nothing to do. Where it has none, libvirt goes on without it. (Newer versions of libvirt, which need no
//! iptables, set a filter with the action `csum`; not every kernel has that, so it is played in an emulated
//! machine, by the scenario `vhost-net`.)

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    Scenario,
    guest::Guest,
    host::{Host, until},
    story::{self, Act},
};
use crate::{command::hooks, pxe};

/// What is installed, as it is shipped.
const HOOK: &str = include_str!("../../../dist/libvirt/network");

/// Where it is installed.
const INSTALLED: &str = "/etc/libvirt/hooks/network.d/fixer";

/// The bridge of the default network.
const BRIDGE: &str = "virbr0";

/// What iptables' target CHECKSUM is in.
const TARGET: &str = "/usr/lib/x86_64-linux-gnu/xtables/libxt_CHECKSUM.so";

/// What libvirtd says.
const LOG: &str = "/var/log/libvirt/libvirtd.log";

/// How long a client asks in vain. Its port forwards after four seconds, for libvirt's bridges have a
/// spanning tree, and dnsmasq tries for three whether an address is in use.
const IN_VAIN: Duration = Duration::from_secs(12);

/// How long each step of a guest that is emulated may take.
const BOOT: Duration = Duration::from_secs(90);

/// What is played.
pub const SCENARIO: Scenario = Scenario {
    name: "libvirt",
    title: "libvirt's default network, guests on virbr0",
    packages: &[
        ("libvirt-daemon", "/usr/sbin/libvirtd"),
        (
            "libvirt-daemon-driver-qemu",
            "/usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so",
        ),
        ("libvirt-daemon-config-network", "/usr/share/libvirt/networks/default.xml"),
        ("libvirt-clients", "/usr/bin/virsh"),
        ("libxml2-utils", "/usr/bin/xmllint"),
        // libvirtd may hang where it cannot start it.
        ("dmidecode", "/usr/sbin/dmidecode"),
        ("dnsmasq-base", "/usr/sbin/dnsmasq"),
        ("iptables", TARGET),
        ("qemu-system-x86", "/usr/bin/qemu-system-x86_64"),
        ("ipxe-qemu", "/usr/lib/ipxe/qemu/pxe-virtio.rom"),
    ],
    play,
};

fn play(acts: &mut Vec<Act>) -> Result<()> {
    let host = Host::start("libvirt")?;
    start(&host)?;
    acts.push(with_the_rule(&host)?);
    acts.push(without_it(&host)?);
    Ok(())
}

/// libvirtd, which knows the default network.
fn start(host: &Host) -> Result<()> {
    // What the packages' scripts make, and what Debian does not start by itself here.
    host.sh(
        "echo libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin >> /etc/passwd\n\
         echo libvirt-qemu:x:64055: >> /etc/group\n\
         mkdir -p /var/log/libvirt/qemu",
    )?;
    host.write(
        "/etc/libvirt/qemu.conf",
        "user = \"root\"\n\
         group = \"root\"\n\
         security_driver = \"none\"\n\
         cgroup_controllers = []\n",
    )?;
    host.write(
        "/etc/libvirt/libvirtd.conf",
        &format!("log_filters = \"1:util.firewall\"\nlog_outputs = \"1:file:{LOG}\"\n"),
    )?;
    host.sh("virtlogd --daemon\n\
         libvirtd --daemon\n\
         virsh net-define /usr/share/libvirt/networks/default.xml")
        .map(drop)
}

/// Starts libvirtd anew; its networks stay.
fn restart(host: &Host) -> Result<()> {
    host.sh("kill $(cat /run/libvirtd.pid)")?;
    until("libvirtd has ended", || Ok(!host.path("/run/libvirtd.pid").exists()))?;
    host.sh("libvirtd --daemon").map(drop)
}

/// Whether libvirt has a rule that finishes sums.
fn has_rule(host: &Host) -> Result<bool> {
    Ok(host.sh("iptables -t mangle -S LIBVIRT_PRT")?.contains("CHECKSUM --checksum-fill"))
}

/// As on most hosts of the last ten years.
fn with_the_rule(host: &Host) -> Result<Act> {
    host.sh("virsh net-start default")?;
    ensure!(has_rule(host)?, "libvirt has not added its rule");
    let guest = Guest::behind(&host.netns, BRIDGE, "vm1", 1)?;
    let alone = story::cure(&guest.ask()?)?;
    let attached = host.sh(&format!("fixer attach -i {BRIDGE}"))?;
    let beside = story::cure(&guest.ask()?)?;
    let status = status(host)?;
    ensure!(
        status.contains("valid") && !status.contains("fixed"),
        "fixer did not find the replies finished: {status}"
    );
    host.sh("virsh net-destroy default")?;
    Ok(Act {
        setting: "with libvirt's own rule, `-j CHECKSUM --checksum-fill`".to_owned(),
        fault: format!("none; the client {alone}"),
        fixer: vec![
            format!("fixer attach -i {BRIDGE}: {attached}"),
            format!("status: {status}; there was nothing to do, and it did nothing"),
        ],
        client: beside,
    })
}

/// As with an iptables older than 1.4.10, or built without the target.
fn without_it(host: &Host) -> Result<Act> {
    host.sh(&format!("rm {TARGET}; : > {LOG}"))?;
    host.sh("virsh net-start default")?;
    ensure!(!has_rule(host)?, "libvirt has added its rule after all");
    let guest = Guest::behind(&host.netns, BRIDGE, "vm2", 2)?;
    let fault = story::fault(&guest.ask_for(IN_VAIN)?)?;
    let doctor = host.run("fixer", &["doctor", "-i", BRIDGE])?;
    let mut fixer = vec![
        format!("libvirtd's log, of that rule: {}", complaint(host)?),
        format!("doctor: {}", story::finding(doctor, "unfinished UDP checksums")?),
    ];

    install(host)?;
    fixer.push(format!("dist/libvirt/network installed as {INSTALLED}; libvirtd restarted"));
    fixer.push(format!("virsh net-destroy, net-start: {}", status(host)?));
    let guest = Guest::behind(&host.netns, BRIDGE, "vm3", 3)?;
    let client = story::cure(&guest.ask()?)?;
    let booted = boot(host)?;
    let counted = status(host)?;
    ensure!(counted.contains("fixed"), "nothing was fixed: {counted}");
    fixer.push(format!("status: {counted}"));

    host.sh("virsh net-destroy default")?;
    ensure!(status(host).is_err(), "the program outlived its bridge");
    let pinned = host.path("/sys/fs/bpf/fixer");
    ensure!(!pinned.exists(), "{} is still there", pinned.display());
    host.sh("virsh net-start default")?;
    let guest = Guest::behind(&host.netns, BRIDGE, "vm4", 4)?;
    story::cure(&guest.ask()?)?;
    host.sh("virsh net-destroy default")?;
    fixer.push("net-destroy: nothing is attached or pinned; net-start: attached again".to_owned());
    Ok(Act {
        setting: "without it: iptables has no target CHECKSUM".to_owned(),
        fault,
        fixer,
        client: format!("{client}; {booted}"),
    })
}

/// What libvirtd says of the rule that it could not add. Before version 1.2.4 it was a warning: "Could not
/// add rule to fixup DHCP response checksums on network 'default'".
fn complaint(host: &Host) -> Result<String> {
    let log = host.sh(&format!("cat {LOG}"))?;
    let mut lines = log.lines().skip_while(|line| !line.contains("--jump CHECKSUM")).skip(1);
    let line = lines.next().context("libvirtd did not try to add its rule")?;
    ensure!(line.contains("Ignoring error"), "libvirtd did not fail to add its rule: {line}");
    // Before it are the time and the place in the source.
    Ok(line.rsplit(" : ").next().unwrap_or(line).to_owned())
}

/// What the page says to do.
fn install(host: &Host) -> Result<()> {
    host.write(INSTALLED, HOOK)?;
    host.sh(&format!("chmod 755 {INSTALLED}"))?;
    restart(host)?;
    host.sh("virsh net-destroy default && virsh net-start default").map(drop)
}

/// The row of the bridge in fixer's status.
fn status(host: &Host) -> Result<String> {
    let status = host.sh("fixer status")?;
    let row = status.lines().find(|row| row.starts_with(BRIDGE));
    let row = row.with_context(|| format!("fixer is not on {BRIDGE}: {status}"))?;
    ensure!(!hooks(&host.netns, BRIDGE)?.is_empty(), "the kernel knows of no program on {BRIDGE}");
    Ok(row.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// A domain that boots over the network, and what it got.
fn boot(host: &Host) -> Result<String> {
    const CONSOLE: &str = "/var/log/libvirt/qemu/console";
    host.write(CONSOLE, "")?;
    host.write(
        "/root/guest.xml",
        &format!(
            "<domain type='qemu'>
               <name>guest</name>
               <memory unit='MiB'>64</memory>
               <os>
                 <type arch='x86_64'>hvm</type>
                 <boot dev='network'/>
                 <bios useserial='yes'/>
               </os>
               <devices>
                 <interface type='network'>
                   <source network='default'/>
                   <model type='virtio'/>
                 </interface>
                 <serial type='file'><source path='{CONSOLE}'/></serial>
               </devices>
             </domain>"
        ),
    )?;
    let mut console = host.spawn("tail", &["-F", "--lines=+1", CONSOLE])?;
    host.sh("virsh create /root/guest.xml")?;
    // It says so when it starts, when it asks, and when it has an answer or gives up.
    console.stdout.wait_for(BOOT, "iPXE initialising devices")?;
    console.stdout.wait_for(BOOT, "Configuring")?;
    let line = console.stdout.wait_for(BOOT, "net0: ")?;
    host.sh("virsh destroy guest")?;
    match pxe::guest::address_in(&pxe::guest::shown(&line)) {
        Some(address) => Ok(format!("iPXE in a domain has {address}")),
        None => bail!("iPXE in a domain has no address: {line}"),
    }
}
