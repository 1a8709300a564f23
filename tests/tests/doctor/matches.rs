//! What rules ask about a packet: what is understood is certain, what is not is told only where a rule is
//! meant for DHCP.

use anyhow::{Context as _, Result};
use fixer_user::net::netns::NetNs;

use super::{Host, contains, firewall::load, run};

/// Both kinds of iptables.
pub(super) const BOTH: [&str; 2] = ["iptables-nft", "iptables-legacy"];

/// A chain at input, and a rule in it.
fn input(policy: &str, rules: &[&str]) -> String {
    let mut all = format!(
        "add table inet f; add chain inet f in {{ type filter hook input priority 0; policy {policy}; }}"
    );
    for rule in rules {
        all.push_str(&format!("; add rule inet f in {rule}"));
    }
    all
}

/// Takes every rule away, also those of the old iptables.
fn flush(netns: &NetNs) -> Result<()> {
    load(netns, "flush ruleset")?;
    for arguments in ["-P INPUT ACCEPT", "-F", "-X"] {
        run(netns, "iptables-legacy", arguments)?;
    }
    Ok(())
}

/// Makes rules, looks, and takes them away: rules of nftables, or one of another program's in a line
/// that begins with its name.
fn with(host: &Host, rules: &[&str], look: impl FnOnce(&Host) -> Result<()>) -> Result<()> {
    let netns = &host.scene.host;
    for rule in rules {
        match rule.split_once(' ') {
            Some((program, arguments)) if program.contains("tables") => {
                run(netns, program, arguments)?;
            }
            _ => load(netns, rule)?,
        }
    }
    look(host).with_context(|| rules.join("\n"))?;
    flush(netns)?;
    host.finish_sums()
}

#[test]
fn what_a_broadcast_is_known_by() -> Result<()> {
    let host = Host::new()?;
    let is_seen = |host: &Host| host.diagnosis()?.names("firewall", "certain").map(drop);
    for iptables in BOTH {
        for rule in [
            "-A INPUT -p udp -m multiport --dports 67,68 -j DROP",
            "-A INPUT -p udp -m multiport --ports 53,60:70 -j DROP",
            "-A INPUT -m pkttype --pkt-type broadcast -j DROP",
            "-A INPUT -m addrtype --dst-type MULTICAST,BROADCAST -j DROP",
            "-A INPUT -m addrtype ! --src-type UNICAST -j DROP",
            "-A INPUT -p udp -m state --state NEW -m udp --dport 67 -j REJECT",
            "-A INPUT ! -f -m conntrack ! --ctstatus ASSURED -m physdev ! --physdev-is-bridged -j DROP",
        ] {
            with(&host, &[&format!("{iptables} {rule}")], is_seen)?;
        }
    }
    for rule in [
        "fib daddr type broadcast drop",
        "fib daddr . iif type != local drop",
        "ether daddr ff:ff:ff:ff:ff:ff drop",
        "ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00 drop",
        "ct status != dnat ct direction original drop",
    ] {
        with(&host, &[&input("accept", &[rule])], is_seen)?;
    }
    for rule in [
        "ebtables -A INPUT -p IPv4 --ip-proto udp --ip-dport 67 -j DROP",
        "ebtables -A INPUT -p IPv4 --ip-proto 17 --ip-sport 60:70 --ip-src ! 10.0.0.0/8 -j DROP",
        "ebtables -A INPUT --pkttype-type broadcast -j DROP",
        "ebtables -A INPUT -d Broadcast -j DROP",
        "ebtables -A INPUT -d Multicast -i guest+ -j DROP",
        "add table bridge f; add chain bridge f in { type filter hook input priority 0; }; \
         add rule bridge f in ether daddr ff:ff:ff:ff:ff:ff drop",
    ] {
        with(&host, &[rule], is_seen)?;
    }
    // Behind a chain with a policy of its own, which nft tells as a rule.
    let rules = [
        "ebtables -N GUESTS -P DROP",
        "ebtables -A GUESTS -p ARP -j ACCEPT",
        "ebtables -A GUESTS -p IPv4 --ip-proto udp --ip-dport 53 -j ACCEPT",
        "ebtables -A INPUT -i guest0 -j GUESTS",
    ];
    with(&host, &rules, |host| {
        let finding = host.diagnosis()?.names("firewall", "certain")?;
        contains(&finding, &["bridge filter INPUT > GUESTS: drop", "ebtables -t filter -I INPUT"])
    })
}

/// The hooks of devices, before a bridge and behind it.
#[test]
fn at_devices() -> Result<()> {
    let host = Host::new()?;
    for (family, at, rule, words) in [
        ("inet", "ingress device br0", "udp dport 67", "guests ask of br0"),
        ("inet", "ingress device guest0", "udp dport 67", "guests ask of guest0"),
        ("netdev", "egress device br0", "udp sport 67", "guests on br0"),
        ("netdev", "egress device guest0", "udp dport 68", "guests on guest0"),
    ] {
        let rules = format!(
            "add table {family} f; \
             add chain {family} f c {{ type filter hook {at} priority 0; }}; \
             add rule {family} f c {rule} drop"
        );
        host.blocked(&rules, "certain", &[words, rule])?;
    }
    // Another device, and what only leaves it.
    let healthy = "add table netdev f; \
         add chain netdev f e { type filter hook egress device br0 priority 0; }; \
         add rule netdev f e udp dport 67 drop; add table inet g; \
         add chain inet g i { type filter hook ingress device lo priority 0; }; \
         add rule inet g i udp dport 67 drop";
    with(&host, &[healthy], |host| host.diagnosis()?.is_healthy())
}

/// A drop with a doubt is told where the rule names DHCP's ports, and nowhere else.
#[test]
fn what_is_not_understood() -> Result<()> {
    let host = Host::new()?;
    let strange = "meta mark 7";
    for rules in [
        vec![input("accept", &[&format!("{strange} udp dport 67 drop")])],
        vec![input("accept", &[&format!("udp dport {{ 53, 67 }} {strange} reject")])],
        vec![format!(
            "add table inet f; add chain inet f g; add rule inet f g {strange} drop; {}; \
             add rule inet f in udp dport 60-70 jump g",
            input("accept", &[])
        )],
        vec!["iptables-nft -A INPUT -p udp --dport 67 -m mark --mark 7 -j DROP".to_owned()],
        vec![
            "iptables-legacy -A INPUT -p udp --dport 67 -m mac --mac-source 02:00:00:00:00:01 -j DROP"
                .to_owned(),
        ],
        vec!["ebtables -A INPUT -p IPv4 --ip-proto udp --ip-dport 67 --mark 7 -j DROP".to_owned()],
    ] {
        let rules: Vec<_> = rules.iter().map(String::as_str).collect();
        with(&host, &rules, |host| {
            contains(&host.diagnosis()?.names("firewall", "possible")?, &["may drop"])
        })?;
    }
    let flood = "udp dport 67 limit rate over 5/second drop";
    for rule in [
        format!("{strange} drop"),
        format!("udp dport 1-1023 {strange} drop"),
        format!("udp dport != 53 {strange} drop"),
        flood.to_owned(),
        "udp dport 67 ct count over 20 drop".to_owned(),
        "tcp flags & (fin | syn) == fin | syn drop".to_owned(),
        "ether daddr & 01:00:00:00:00:00 == 00:00:00:00:00:00 drop".to_owned(),
    ] {
        with(&host, &[&input("accept", &[&rule])], |host| host.diagnosis()?.is_healthy())?;
    }
    for iptables in BOTH {
        for rule in [
            "-A INPUT -p udp -m multiport ! --dports 67,68 -j DROP",
            "-A INPUT -m addrtype ! --dst-type LOCAL,BROADCAST --limit-iface-in -j DROP",
            "-A INPUT -m mac --mac-source 02:00:00:00:00:01 -j DROP",
            "-A INPUT -p udp --dport 67 -m physdev --physdev-is-bridged -j DROP",
            "-A INPUT -p udp --dport 67 -m hashlimit --hashlimit-above 5/s --hashlimit-name g -j DROP",
            "-A INPUT -f -p udp -j DROP",
        ] {
            with(&host, &[&format!("{iptables} {rule}")], |host| host.diagnosis()?.is_healthy())?;
        }
    }
    with(&host, &["iptables-nft -t mangle -A PREROUTING -m rpfilter --invert -j DROP"], |host| {
        host.diagnosis()?.is_healthy()
    })
}

/// What lets DHCP through is understood, whatever comes behind it.
#[test]
fn what_accepts() -> Result<()> {
    let host = Host::new()?;
    for iptables in BOTH {
        for rules in [
            &["-i br0 -p udp -m state --state NEW -m udp --dport 67 -j ACCEPT", "-j REJECT"][..],
            &["-p udp -m multiport --dports 53,67 -j ACCEPT", "-j DROP"],
            &["-m addrtype --dst-type BROADCAST -j ACCEPT", "-j DROP"],
            &["-m pkttype --pkt-type broadcast -j ACCEPT", "-j DROP"],
            &["-m limit --limit 9/s --limit-burst 9 -p udp --dport 67 -j ACCEPT", "-j DROP"],
            &[
                "-p udp --dport 67 -m hashlimit --hashlimit-upto 9/s --hashlimit-name g -j ACCEPT",
                "-j DROP",
            ],
        ] {
            let rules: Vec<_> =
                rules.iter().map(|rule| format!("{iptables} -A INPUT {rule}")).collect();
            let rules: Vec<_> = rules.iter().map(String::as_str).collect();
            with(&host, &rules, |host| host.diagnosis()?.is_healthy())?;
        }
        // A first packet is none of a connection that something was done to.
        let accept = "-A INPUT -m conntrack --ctstate DNAT,ESTABLISHED -j ACCEPT";
        let rules = [format!("{iptables} {accept}"), format!("{iptables} -P INPUT DROP")];
        with(&host, &[&rules[0], &rules[1]], |host| {
            host.diagnosis()?.names("firewall", "certain").map(drop)
        })?;
    }
    let rules = input("drop", &["udp dport 67 limit rate 9/second accept"]);
    with(&host, &[&rules], |host| host.diagnosis()?.is_healthy())?;
    let rules = input("drop", &["ct status dnat accept", "ct status { snat, dnat } accept"]);
    with(&host, &[&rules], |host| host.diagnosis()?.names("firewall", "certain").map(drop))
}

/// Only a rule that is surely about replies finishes their sums.
#[test]
fn a_rule_that_perhaps_finishes_sums() -> Result<()> {
    let host = Host::partial()?;
    for iptables in BOTH {
        let rule = "-t mangle -A POSTROUTING -m mark --mark 5 -p udp --dport 68 -j CHECKSUM";
        host.host(iptables, &format!("{rule} --checksum-fill"))?;
        host.diagnosis()?.names("checksum", "likely")?;
        host.host(iptables, "-t mangle -F")?;
        host.host(iptables, "-t mangle -N SUMS")?;
        host.host(iptables, "-t mangle -A SUMS -p udp --dport 68 -j CHECKSUM --checksum-fill")?;
        host.host(iptables, "-t mangle -A POSTROUTING -m mark --mark 5 -j SUMS")?;
        host.diagnosis()?.names("checksum", "likely")?;
        host.host(iptables, "-t mangle -A POSTROUTING -o br0 -j SUMS")?;
        host.diagnosis()?.is_healthy()?;
        host.host(iptables, "-t mangle -F")?;
        host.host(iptables, "-t mangle -X")?;
    }
    Ok(())
}

/// What nft tells in full is not read from iptables, which leaves out what it does not know.
#[test]
fn rules_of_both_in_one_chain() -> Result<()> {
    let host = Host::new()?;
    let of_iptables = "iptables-nft -A INPUT -p udp -m multiport --dports 53,123 -j DROP";
    let of_nft = "add rule ip filter INPUT iifname { \"eth0\", \"eth1\" } udp dport 67 drop";
    with(&host, &[of_iptables, of_nft], |host| host.diagnosis()?.is_healthy())?;
    let of_iptables = "iptables-nft -A INPUT -p udp -m multiport --dports 67,68 -j DROP";
    with(&host, &[of_iptables, of_nft], |host| {
        let finding = host.diagnosis()?.names("firewall", "certain")?;
        contains(&finding, &["ip filter INPUT: l4proto udp udp dport"])
    })
}
