//! Firewalls that drop DHCP.

use anyhow::{Context as _, Result, ensure};
use fixer_tests::command::{output, program};
use fixer_user::{lab::link, net::netns::NetNs};
use serde_json::Value;

use super::{Diagnosis, Host, contains};

/// Loads rules as `nft -f` takes them.
pub(super) fn load(netns: &NetNs, rules: &str) -> Result<()> {
    output(netns, "nft", &[rules]).map(drop)
}

/// Fails unless a shell takes each line for a command.
pub(super) fn are_commands(lines: &Value) -> Result<()> {
    let lines = lines.as_array().context("there is nothing to do")?;
    ensure!(!lines.is_empty(), "there is nothing to do");
    for line in lines.iter().filter_map(Value::as_str) {
        let ended = program("bash", &["-n", "-c", line]).output()?;
        ensure!(ended.status.success(), "this is no command: {line}");
    }
    Ok(())
}

impl Host {
    fn rules(&self, rules: &str) -> Result<()> {
        load(&self.scene.host, rules)
    }

    /// The rules lead to this finding, and what it says to do mends it.
    pub(super) fn blocked(&self, rules: &str, likelihood: &str, words: &[&str]) -> Result<()> {
        self.rules(rules)?;
        let diagnosis = self.diagnosis()?;
        contains(&diagnosis.names("firewall", likelihood)?, words)?;
        let findings = diagnosis.report["findings"].as_array().cloned().unwrap_or_default();
        for finding in findings.iter().filter(|finding| finding["check"] == "firewall") {
            let command = finding["do"][0].as_str().unwrap_or_default();
            output(&self.scene.host, "sh", &["-c", command])?;
        }
        self.diagnosis()?.passes("firewall")?;
        self.rules("flush ruleset")?;
        self.finish_sums()
    }
}

#[test]
fn rules_of_nftables() -> Result<()> {
    let host = Host::new()?;
    let base = "add table inet f; add chain inet f in { type filter hook input priority 0; policy";
    host.blocked(
        &format!("{base} accept; }}; add rule inet f in udp dport 67 counter drop"),
        "certain",
        &["drops what guests ask of br0", "inet f in: udp dport 67 drop"],
    )?;
    host.blocked(
        &format!(
            "{base} drop; }}; add rule inet f in ct state established,related accept; \
             add rule inet f in iifname lo accept; add rule inet f in tcp dport 22 accept"
        ),
        "certain",
        &["inet f in: policy drop"],
    )?;
    host.blocked(
        &format!(
            "{base} accept; }}; add chain inet f guests; add rule inet f guests udp dport 53 accept; \
             add rule inet f guests reject; \
             add rule inet f in iifname vmap {{ lo : accept, br0 : jump guests }}"
        ),
        "certain",
        &["inet f in > guests: reject"],
    )?;
    // What is not understood may be what lets it through.
    host.blocked(
        &format!("{base} drop; }}; add rule inet f in meta mark 7 accept"),
        "possible",
        &["may drop"],
    )
}

/// Many keep DHCP from passing between a bridge and other hosts, and no guest on the bridge minds.
#[test]
fn an_uplink_that_is_kept_free_of_dhcp() -> Result<()> {
    let host = Host::new()?;
    host.host("ip", "link add vx0 type vxlan id 5 dstport 4789 local 10.0.3.1")?;
    host.host("ip", "link set vx0 up master br0 mtu 1500")?;
    host.rules(
        "add table bridge f; add chain bridge f p { type filter hook prerouting priority 0; }; \
         add rule bridge f p iifname vx0 udp dport 67 drop",
    )?;
    host.diagnosis()?.passes("firewall")?;
    // Where all guests are on other hosts, it is what keeps them from their server.
    host.host("ip", "link set guest0 nomaster")?;
    host.diagnosis()?.names("firewall", "certain").map(drop)
}

/// nft has a grammar of its own for what a shell takes as a word.
#[test]
fn a_rule_at_an_interface_with_a_strange_name() -> Result<()> {
    let host = Host::new()?;
    link::bridge(&host.scene.host, "a;b$c")?;
    link::address(&host.scene.host, "a;b$c", [10, 0, 9, 1].into(), 24)?;
    let _dnsmasq = super::checksum::dnsmasq(&host.scene.host, "a;b$c", "10.0.9", &[])?;
    host.rules(
        "add table inet f; add chain inet f in { type filter hook input priority 0; policy drop; }",
    )?;
    let look = || Diagnosis::of(&host.scene.host, &["-i", "a;b$c"]);
    let diagnosis = look()?;
    diagnosis.names("firewall", "certain")?;
    output(&host.scene.host, "sh", &["-c", &diagnosis.remedy("firewall")?])?;
    look()?.passes("firewall")
}

#[test]
fn replies_that_do_not_leave() -> Result<()> {
    let host = Host::new()?;
    host.blocked(
        "add table ip f; add chain ip f out { type filter hook output priority 0; }; \
         add rule ip f out udp sport 60-70 drop",
        "certain",
        &["drops what answers guests on br0", "replies to UDP port 68"],
    )
}

/// A server answers everybody, or the address that it offers: which, the client says.
#[test]
fn replies_to_everybody_that_do_not_leave() -> Result<()> {
    let host = Host::new()?;
    for rule in
        ["fib daddr type broadcast udp dport 68 drop", "ip daddr 255.255.255.255 udp dport 68 drop"]
    {
        host.blocked(
            &format!(
                "add table ip f; add chain ip f out {{ type filter hook output priority 0; }}; \
                 add rule ip f out {rule}"
            ),
            "possible",
            &["may drop what answers guests on br0"],
        )?;
    }
    Ok(())
}

/// One rule may be in the way of the guests of several bridges.
#[test]
fn a_rule_is_told_for_each_bridge() -> Result<()> {
    let host = Host::new()?;
    link::bridge(&host.scene.host, "br1")?;
    link::address(&host.scene.host, "br1", [10, 0, 4, 1].into(), 24)?;
    let other = NetNs::scratch("other")?;
    link::veth(&host.scene.host, "guest1", &other, "eth0")?;
    link::enslave(&host.scene.host, "guest1", "br1")?;
    let arguments = ["--interface=br1", "--dhcp-range=10.0.4.100,10.0.4.199,255.255.255.0"];
    let _second = super::role::told(&host.scene.host, &arguments, "DHCP, IP range")?;
    host.rules(
        "add table inet f; add chain inet f in { type filter hook input priority 0; }; \
         add rule inet f in udp dport 67 drop",
    )?;
    let diagnosis = Diagnosis::of(&host.scene.host, &[])?;
    let findings = diagnosis.report["findings"].as_array().context("no findings")?;
    let headlines: Vec<_> = findings
        .iter()
        .filter(|finding| finding["check"] == "firewall")
        .filter_map(|finding| finding["headline"].as_str())
        .collect();
    for bridge in ["br0", "br1"] {
        let words = format!("what guests ask of {bridge}");
        ensure!(headlines.iter().any(|line| line.contains(&words)), "{headlines:?}");
    }
    Ok(())
}

#[test]
fn rules_of_the_bridge_and_of_a_port() -> Result<()> {
    let host = Host::new()?;
    host.blocked(
        "add table bridge f; add chain bridge f in { type filter hook input priority 0; }; \
         add rule bridge f in iifname guest0 udp dport 67 drop",
        "certain",
        &["bridge f in: iifname guest0 udp dport 67 drop"],
    )?;
    host.blocked(
        "add table netdev f; \
         add chain netdev f in { type filter hook ingress device guest0 priority 0; }; \
         add rule netdev f in udp dport 67 drop",
        "certain",
        &["netdev f in: udp dport 67 drop"],
    )
}

#[test]
fn rules_that_let_dhcp_through() -> Result<()> {
    let host = Host::new()?;
    host.rules(
        "add table inet f; add set inet f bridges { type ifname; elements = { br0, br1 } }; \
         add chain inet f in { type filter hook input priority 0; policy drop; }; \
         add rule inet f in fib saddr . iif oif missing drop; \
         add rule inet f in iifname @bridges udp dport { 53, 67 } accept; \
         add chain inet f pre { type filter hook prerouting priority -300; }; \
         add rule inet f pre ct state invalid drop; \
         add rule inet f pre iifname other0 drop; add rule inet f pre ip saddr 192.168.0.0/16 drop; \
         add rule inet f pre tcp dport 67 drop; add rule inet f pre limit rate over 9/second drop; \
         add chain inet f routed { type filter hook forward priority 0; policy drop; }",
    )?;
    host.diagnosis()?.is_healthy()
}

/// What is not understood may be what lets it through, so nothing behind it is certain.
#[test]
fn rules_that_are_not_understood_leave_a_doubt() -> Result<()> {
    let base = "add table inet f; add chain inet f g; add chain inet f in \
                { type filter hook input priority 0; policy";
    let strange = "ether saddr 02:00:00:00:00:01";
    for rules in [
        format!("{base} drop; }}; add rule inet f in {strange} accept"),
        format!(
            "{base} drop; }}; add rule inet f in ether saddr vmap {{ 02:00:00:00:00:01 : accept }}"
        ),
        format!(
            "{base} drop; }}; \
             add rule inet f in ether saddr . udp dport vmap {{ 02:00:00:00:00:01 . 67 : accept }}"
        ),
        format!(
            "{base} accept; }}; add rule inet f g {strange} return; add rule inet f g drop; \
             add rule inet f in udp dport 67 jump g"
        ),
        format!(
            "{base} accept; }}; add chain inet f h; add rule inet f g {strange} goto h; \
             add rule inet f g drop; add rule inet f in udp dport 67 jump g"
        ),
        format!(
            "{base} accept; }}; add rule inet f in udp dport 67 ct count over 20 accept; add rule inet f in udp dport 67 drop"
        ),
    ] {
        let host = Host::new()?;
        host.rules(&rules)?;
        let finding = host.diagnosis()?.names("firewall", "possible")?;
        contains(&finding, &["may drop"]).with_context(|| rules.clone())?;
    }
    for iptables in ["iptables-nft", "iptables-legacy"] {
        let host = Host::new()?;
        host.host(iptables, "-N G")?;
        host.host(iptables, "-A G -m mac --mac-source 02:00:00:00:00:01 -j RETURN")?;
        host.host(iptables, "-A G -j DROP")?;
        host.host(iptables, "-A INPUT -p udp --dport 67 -j G")?;
        contains(&host.diagnosis()?.names("firewall", "possible")?, &["INPUT > G"])?;
        let host = Host::new()?;
        host.host(iptables, "-A INPUT -p udp --dport 67 -j NFQUEUE --queue-num 3")?;
        host.host(iptables, "-A INPUT -p udp --dport 67 -j DROP")?;
        host.diagnosis()?.names("firewall", "possible")?;
    }
    Ok(())
}

/// Behind a return that may be meant for it, a packet is in doubt no longer than that chain.
#[test]
fn a_doubt_ends_with_its_chain() -> Result<()> {
    let host = Host::new()?;
    host.rules(
        "add table inet f; add chain inet f g; \
         add rule inet f g ether saddr 02:00:00:00:00:01 return; add rule inet f g counter; \
         add chain inet f in { type filter hook input priority 0; }; \
         add rule inet f in jump g; add rule inet f in udp dport 67 drop",
    )?;
    contains(&host.diagnosis()?.names("firewall", "certain")?, &["inet f in: udp dport 67 drop"])?;
    // A map that sends it back ends the chain as well.
    host.rules(
        "flush ruleset; add table inet f; add chain inet f g; \
         add rule inet f g udp dport vmap { 67 : return }; add rule inet f g drop; \
         add chain inet f in { type filter hook input priority 0; }; \
         add rule inet f in udp dport 67 jump g",
    )?;
    host.finish_sums()?;
    host.diagnosis()?.is_healthy()
}

#[test]
fn more_rules_that_let_dhcp_through() -> Result<()> {
    let base = "add chain inet f in { type filter hook input priority 0; policy";
    for rules in [
        format!(
            "add table inet f; {base} drop; }}; \
             add rule inet f in iifname . udp dport vmap {{ \"br0\" . 67 : accept }}"
        ),
        format!(
            "add table inet f; {base} drop; }}; \
             add rule inet f in iifname . udp dport {{ \"br1\" . 67, \"br0\" . 60-70 }} accept"
        ),
        // The end of a chain that was gone to is the end of the one that went there.
        format!(
            "add table inet f; add chain inet f zone1; add chain inet f zone2; \
             add rule inet f zone2 drop; add chain inet f zones; \
             add rule inet f zones iifname br0 goto zone1; add rule inet f zones goto zone2; \
             {base} accept; }}; add rule inet f in jump zones"
        ),
        "add table netdev f; \
         add chain netdev f in { type filter hook ingress devices = { d0, d1 } priority 0; }; \
         add rule netdev f in udp dport 67 drop"
            .to_owned(),
    ] {
        let host = Host::new()?;
        host.host("ip", "link add d0 type veth peer name d1")?;
        host.rules(&rules)?;
        host.diagnosis()?.is_healthy().with_context(|| rules.clone())?;
    }
    let host = Host::new()?;
    host.host("ip", "link add d0 type veth peer name d1")?;
    host.rules(
        "add table netdev f; \
         add chain netdev f in { type filter hook ingress devices = { d0, guest0 } priority 0; }; \
         add rule netdev f in udp dport 67 drop",
    )?;
    host.diagnosis()?.names("firewall", "certain").map(drop)
}

/// The chains that firewalld makes for its zones.
#[test]
fn a_zone_of_firewalld() -> Result<()> {
    let host = Host::new()?;
    host.rules(
        "add table inet firewalld; \
         add chain inet firewalld filter_IN_public_allow; \
         add rule inet firewalld filter_IN_public_allow tcp dport 22 accept; \
         add chain inet firewalld filter_IN_public_deny; \
         add chain inet firewalld filter_IN_public; \
         add rule inet firewalld filter_IN_public jump filter_IN_public_deny; \
         add rule inet firewalld filter_IN_public jump filter_IN_public_allow; \
         add rule inet firewalld filter_IN_public meta l4proto { icmp, ipv6-icmp } accept; \
         add chain inet firewalld filter_INPUT_ZONES; \
         add rule inet firewalld filter_INPUT_ZONES goto filter_IN_public; \
         add chain inet firewalld filter_INPUT { type filter hook input priority filter + 10; }; \
         add rule inet firewalld filter_INPUT ct state { established, related } accept; \
         add rule inet firewalld filter_INPUT jump filter_INPUT_ZONES; \
         add rule inet firewalld filter_INPUT reject with icmpx admin-prohibited; \
         add rule inet firewalld filter_IN_public reject with icmpx admin-prohibited",
    )?;
    let finding = host.diagnosis()?.names("firewall", "certain")?;
    let commands = ["", " --permanent"]
        .map(|option| format!("\"firewall-cmd --zone=public{option} --add-service=dhcp\""));
    contains(&finding, &["firewalld's zone 'public'", &commands.join(",")])
}

#[test]
fn rules_of_iptables_old_and_new() -> Result<()> {
    for iptables in ["iptables-nft", "iptables-legacy"] {
        let host = Host::new()?;
        host.host(iptables, "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")?;
        host.host(iptables, "-A INPUT -i lo -j ACCEPT")?;
        host.host(iptables, "-N GUESTS")?;
        host.host(iptables, "-A INPUT -i br+ -j GUESTS")?;
        host.host(iptables, "-A GUESTS -p udp --dport 67:68 -j REJECT")?;
        let finding = host.diagnosis()?.names("firewall", "certain")?;
        let program = if iptables == "iptables-nft" { "iptables" } else { iptables };
        let command = format!("{program} -t filter -I INPUT -i br0 -p udp --dport 67 -j ACCEPT");
        contains(&finding, &["INPUT > GUESTS", &command])?;
        output(&host.scene.host, "sh", &["-c", &command])?;
        host.diagnosis()?.is_healthy()?;
    }
    Ok(())
}
