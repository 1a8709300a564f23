//! The rules of real firewalls: ufw's and firewalld's as they made them on a host with br0, open for DHCP and
//! shut.

use anyhow::{Context as _, Result, ensure};
use fixer_tests::command::output;
use fixer_user::{
    lab::scene::{BRIDGE, Scene},
    net::netns::NetNs,
};

use super::{Diagnosis, Host, contains, firewall::load, matches::BOTH, run, scene};

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
    let script = format!("{iptables}-restore --noflush < {path}");
    output(netns, "sh", &["-c", &script]).map(drop)
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

/// Rules for a port, written after those of libvirt's filter `clean-traffic`: they hold a guest to its
/// hardware address and its IP address.
#[test]
fn libvirt() -> Result<()> {
    let rules = include_str!("../../fixtures/firewalls/libvirt.ebtables");
    let host = Host::new()?;
    restore(&host.scene.host, "ebtables", rules)?;
    host.diagnosis()?.is_healthy()?;
    // An address of its own that it has to have already.
    let shut = rules.replace("--ip-src 0.0.0.0 --ip-proto udp", "--ip-src 10.0.3.8");
    let host = Host::new()?;
    restore(&host.scene.host, "ebtables", &shut)?;
    let finding = host.diagnosis()?.names("firewall", "certain")?;
    contains(&finding, &["PREROUTING > libvirt-I-guest0 > I-guest0-ipv4-ip: drop"])?;
    // What lets some through, and not at the guest's port, may have forgotten the guest.
    let host = Host::new()?;
    host.host("ebtables", "-A INPUT -s 02:00:00:00:00:07 -j ACCEPT")?;
    host.host("ebtables", "-A INPUT -j DROP")?;
    host.diagnosis()?.names("firewall", "possible").map(drop)
}

/// A bridge with a port to other hosts, whose frames iptables is shown. Its server is elsewhere.
fn shown() -> Result<Scene> {
    let scene = scene()?;
    run(&scene.host, "ip", "link add vx0 type vxlan id 5 dstport 4789 local 10.0.3.1")?;
    run(&scene.host, "ip", "link set vx0 up master br0")?;
    run(&scene.host, "sysctl", "-w net.bridge.bridge-nf-call-iptables=1")?;
    Ok(scene)
}

/// Rules for a port, written after those of neutron's Linux bridge agent: they keep its guest from being a
/// server, and let it ask one.
#[test]
fn neutron() -> Result<()> {
    let rules = include_str!("../../fixtures/firewalls/neutron.rules");
    // What comes in by one port of a bridge says nothing of what comes in by others.
    let spoofing = "-A neutron-linuxbri-o5a1b2c3d-4 -j neutron-linuxbri-s5a1b2c3d-4\n";
    ensure!(rules.contains(spoofing), "it holds no guest to its addresses");
    let scene = shown()?;
    restore(&scene.host, BOTH[0], &rules.replace(spoofing, ""))?;
    Diagnosis::of(&scene.host, &["-i", BRIDGE])?.passes("bridge-nf")?;
    for iptables in BOTH {
        let scene = shown()?;
        restore(&scene.host, iptables, rules)?;
        Diagnosis::of(&scene.host, &["-i", BRIDGE])?.passes("bridge-nf")?;
        run(&scene.host, iptables, "-I FORWARD -p udp --dport 67 -j DROP")?;
        let finding = Diagnosis::of(&scene.host, &["-i", BRIDGE])?.names("bridge-nf", "likely")?;
        ensure!(!finding.contains("bridge-nf-call-iptables=0"), "{finding}");
    }
    Ok(())
}

/// What the settings of bridges turn off, Docker and others rely on. A rule does less.
#[test]
fn between_ports() -> Result<()> {
    let rule = "-i br0 -o br0 -p udp --dport 67:68 -j ACCEPT";
    for (chain, place, relies) in [
        ("DOCKER-USER", "DOCKER-USER", true),
        ("KUBE-FORWARD", "FORWARD", true),
        ("neutron-filter-top", "FORWARD", true),
        ("GUESTS", "FORWARD", false),
    ] {
        for iptables in BOTH {
            let scene = shown()?;
            let host = |program: &str, arguments: &str| run(&scene.host, program, arguments);
            host("ip", "link set br0 type bridge nf_call_iptables 1")?;
            for rule in [
                "-P FORWARD DROP".to_owned(),
                format!("-N {chain}"),
                format!("-A FORWARD -j {chain}"),
            ] {
                host(iptables, &rule)?;
            }
            let look = || Diagnosis::of(&scene.host, &[]);
            let finding = look()?.names("bridge-nf", "likely")?;
            let program = if iptables == "iptables-nft" { "iptables" } else { iptables };
            contains(&finding, &[&format!("{program} -t filter -I {place} {rule}")])?;
            for setting in ["bridge-nf-call-iptables=0", "nf_call_iptables 0"] {
                ensure!(finding.contains(setting) != relies, "{finding}");
            }
            output(&scene.host, "sh", &["-c", &look()?.remedy("bridge-nf")?])?;
            look()?.passes("bridge-nf")?;
        }
    }
    Ok(())
}

/// The same where nftables itself does it, and firewalld.
#[test]
fn between_ports_without_iptables() -> Result<()> {
    let scene = shown()?;
    let look = || Diagnosis::of(&scene.host, &[]);
    load(
        &scene.host,
        "add table inet f; add chain inet f r { type filter hook forward priority 0; policy drop; }",
    )?;
    look()?.names("bridge-nf", "likely")?;
    output(&scene.host, "sh", &["-c", &look()?.remedy("bridge-nf")?])?;
    look()?.passes("bridge-nf")?;
    load(&scene.host, "flush ruleset")?;
    // firewalld lets through what stays in a zone, unless it was told otherwise.
    let rules = include_str!("../../fixtures/firewalls/firewalld.nft");
    load(&scene.host, rules)?;
    look()?.passes("bridge-nf")?;
    load(&scene.host, "flush ruleset")?;
    load(&scene.host, &rules.replace("oifname \"br0\" accept", ""))?;
    let finding = look()?.names("bridge-nf", "likely")?;
    contains(&finding, &["zone 'public'", "firewall-cmd --zone=public --add-forward"])
}
