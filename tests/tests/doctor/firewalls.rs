//! The rules of real firewalls: ufw's and firewalld's as they made them on a host with br0, open for DHCP and
//! shut.

use anyhow::{Context as _, Result, ensure};
use fixer_tests::command::output;
use fixer_user::net::netns::NetNs;

use super::{Host, contains, firewall::load, matches::BOTH};

/// Rules with the one line that opens them for DHCP, and without it.
fn open_and_shut(rules: &str, line: &str) -> Result<[String; 2]> {
    ensure!(rules.lines().any(|it| it.trim() == line), "nothing opens these rules");
    let shut: Vec<_> = rules.lines().filter(|it| it.trim() != line).collect();
    Ok([rules.to_owned(), shut.join("\n") + "\n"])
}

/// Restores what `iptables-save` told.
fn restore(netns: &NetNs, iptables: &str, rules: &str) -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), rules)?;
    let path = file.path().to_str().context("a path in UTF-8")?;
    output(netns, &format!("{iptables}-restore"), &["--noflush", path]).map(drop)
}

/// `ufw enable`, and `ufw allow in on br0 to any port 67 proto udp`: ufw 0.36.2.
#[test]
fn ufw() -> Result<()> {
    let line = "-A ufw-user-input -i br0 -p udp -m udp --dport 67 -j ACCEPT";
    let [open, shut] = open_and_shut(include_str!("../../fixtures/firewalls/ufw.rules"), line)?;
    for iptables in BOTH {
        let host = Host::new()?;
        restore(&host.scene.host, iptables, &open)?;
        host.diagnosis()?.is_healthy()?;
        let host = Host::new()?;
        restore(&host.scene.host, iptables, &shut)?;
        let finding = host.diagnosis()?.names("firewall", "certain")?;
        contains(&finding, &["filter INPUT > ufw-after-input > ufw-skip-to-policy-input: drop"])?;
    }
    Ok(())
}

/// br0 in the zone public, and `firewall-cmd --zone=public --add-service=dhcp`: firewalld 1.3.3.
#[test]
fn firewalld() -> Result<()> {
    let [open, shut] = open_and_shut(
        include_str!("../../fixtures/firewalls/firewalld.nft"),
        "udp dport 67 accept",
    )?;
    let host = Host::new()?;
    load(&host.scene.host, &open)?;
    host.diagnosis()?.is_healthy()?;
    let host = Host::new()?;
    load(&host.scene.host, &shut)?;
    let finding = host.diagnosis()?.names("firewall", "certain")?;
    contains(&finding, &["firewalld's zone 'public'", "--zone=public --add-service=dhcp"])
}
