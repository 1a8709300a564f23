//! LXC: containers on `lxcbr0`, with the bridge and the dnsmasq that Debian's `lxc-net` starts.
//!
//! Its rules in iptables would have the kernel finish the sums of replies. In nftables, which is used
//! where there is `nft`, there is no such rule. The container's own client hides that, for it believes
//! the kernel's mark; one that computes the sum does not.

use anyhow::{Context as _, Result, ensure};

use super::{
    Scenario,
    guest::Guest,
    host::{Host, until},
    story::{self, Act},
};
use crate::command::hooks;

/// What is installed, as it is shipped.
const DROP_IN: &str = include_str!("../../../dist/lxc/fixer.conf");

/// Where it is installed.
const INSTALLED: &str = "/etc/systemd/system/lxc-net.service.d/fixer.conf";

/// The bridge of lxc-net.
const BRIDGE: &str = "lxcbr0";

/// The container.
const CONTAINER: &str = "web";

/// Who gave which container which address.
const LEASES: &str = "/var/lib/misc/dnsmasq.lxcbr0.leases";

/// What is played.
pub const SCENARIO: Scenario = Scenario {
    name: "lxc",
    title: "Debian's LXC, a container on lxcbr0 and the dnsmasq of lxc-net",
    packages: &[
        ("lxc", "/usr/bin/lxc-start"),
        ("busybox-static", "/usr/bin/busybox"),
        ("dnsmasq-base", "/usr/sbin/dnsmasq"),
        ("nftables", "/usr/sbin/nft"),
        ("systemd", "/usr/lib/systemd/systemd"),
    ],
    play,
};

fn play(acts: &mut Vec<Act>) -> Result<()> {
    let host = Host::boot("lxc")?;
    // Without its ping dnsmasq need not wait three seconds before each offer.
    host.write("/etc/default/lxc-net", "USE_LXC_BRIDGE=\"true\"\nLXC_DHCP_PING=\"false\"\n")?;
    host.sh("systemctl start lxc-net")?;
    let rules = host.sh("nft list ruleset")?;
    ensure!(rules.contains("lxcbr0") && !rules.contains("checksum"), "other rules: {rules}");
    let (guest, address) = container(&host)?;

    let fault = story::fault(&guest.ask_in_vain()?)?;
    let found = story::finding(host.run("fixer", &["doctor", "-i", BRIDGE])?, "unfinished")?;
    let mut fixer = vec![format!("doctor: {found}")];
    install(&host)?;
    let client = story::cure(&guest.ask()?)?;
    fixer.push("dist/lxc/fixer.conf installed; systemctl restart lxc-net".to_owned());
    fixer.push(format!("status: {}", fixed(&host)?));
    stop(&host)?;
    fixer.push("systemctl stop lxc-net: nothing is attached or pinned any more".to_owned());
    acts.push(Act {
        setting: format!("rules in nftables; udhcpc believes the mark, and has {address} anyway"),
        fault,
        fixer,
        client,
    });
    Ok(())
}

/// A busybox container that runs, and the address that its own client got.
fn container(host: &Host) -> Result<(Guest, String)> {
    // What Debian's package configures, but for what takes AppArmor and a terminal.
    host.write(
        "/etc/lxc/default.conf",
        "lxc.net.0.type = veth\n\
         lxc.net.0.link = lxcbr0\n\
         lxc.net.0.flags = up\n\
         lxc.apparmor.profile = unconfined\n\
         lxc.console.path = none\n",
    )?;
    host.sh(&format!("lxc-create -n {CONTAINER} -t busybox && lxc-start -d -n {CONTAINER}"))?;
    until("the container has an address", || Ok(!host.sh(&format!("cat {LEASES}"))?.is_empty()))?;
    let lease = host.sh(&format!("cat {LEASES}"))?;
    let address = lease.split(' ').nth(2).context("a lease without an address")?.to_owned();
    let pid = host.sh(&format!("lxc-info -n {CONTAINER} -p -H"))?;
    let netns = host.path(&format!("/proc/{}/ns/net", pid.trim()));
    Ok((Guest::inside(&netns, 1)?, address))
}

/// What the page says to install, and to check.
fn install(host: &Host) -> Result<()> {
    host.write(INSTALLED, DROP_IN)?;
    let verified = host.run("systemd-analyze", &["verify", "lxc-net.service"])?.ok()?;
    ensure!(verified.stderr.is_empty(), "systemd does not like it: {verified:?}");
    host.sh("systemctl daemon-reload && systemctl restart lxc-net").map(drop)
}

/// The row of the bridge in fixer's status, with what was fixed there.
fn fixed(host: &Host) -> Result<String> {
    let status = host.sh("fixer status")?;
    let row = status.lines().find(|row| row.starts_with(BRIDGE) && row.contains("fixed"));
    let row = row.with_context(|| format!("nothing was fixed: {status}"))?;
    Ok(row.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Stops lxc-net, with the container on its bridge and after it has gone.
fn stop(host: &Host) -> Result<()> {
    host.sh("systemctl stop lxc-net")?;
    let left = hooks(&host.netns, BRIDGE)?;
    ensure!(left.is_empty(), "{left:?} is still on the bridge");
    host.sh(&format!("lxc-stop -k -n {CONTAINER}\nsystemctl start lxc-net"))?;
    ensure!(!hooks(&host.netns, BRIDGE)?.is_empty(), "nothing is attached to the new bridge");
    host.sh("systemctl stop lxc-net")?;
    ensure!(!host.path(&format!("/sys/class/net/{BRIDGE}")).exists(), "the bridge is still there");
    let pinned = host.path("/sys/fs/bpf/fixer");
    ensure!(!pinned.exists(), "{} is still there", pinned.display());
    Ok(())
}
