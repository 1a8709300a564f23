//! The commands that let DHCP through where a rule drops it: in the words of whoever made the rule.

use crate::doctor::{
    network::Network,
    program::{self, Backend},
    remedy::Remedy,
    rules::{Packet, Stop},
};

/// What is to be let through: a packet, or both directions of a conversation between ports of a bridge.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) packet: Packet<'a>,
    pub(super) is_both_ways: bool,
}

impl Wanted<'_> {
    /// The ports, with what stands between the first and the last of a range.
    fn ports(&self, between: &str) -> String {
        match self.is_both_ways {
            true => format!("67{between}68"),
            false => self.packet.ports[1].to_string(),
        }
    }
}

/// The commands that let it through.
pub(super) fn open(network: &Network, wanted: &Wanted<'_>, stop: &Stop) -> Vec<Remedy> {
    if stop.table.starts_with("firewalld") {
        return firewalld(network, wanted, stop);
    }
    vec![iptables(network, wanted, stop).unwrap_or_else(|| nftables(network, wanted, stop))]
}

/// The zone of firewalld whose chain it is: `filter_IN_public`, `filter_FWD_public_deny`.
pub(super) fn zone(stop: &Stop) -> Option<&str> {
    let start = |chain: &'_ String| {
        let starts = ["filter_IN_", "filter_FWD_"];
        starts.iter().find(|start| chain.starts_with(**start)).map(|start| start.len())
    };
    let (chain, len) = stop.path.iter().find_map(|chain| Some((chain, start(chain)?)))?;
    let rest = stop.table.starts_with("firewalld").then_some(&chain[len..])?;
    let ends = ["_pre", "_log", "_deny", "_allow", "_post"];
    Some(ends.iter().find_map(|end| rest.strip_suffix(end)).unwrap_or(rest))
        .filter(|zone| !zone.starts_with("policy_"))
}

/// What is told to firewalld is gone with the next start, unless it is told a second time.
fn firewalld(network: &Network, wanted: &Wanted<'_>, stop: &Stop) -> Vec<Remedy> {
    const FORWARD: [&str; 2] = [" --add-forward", " --permanent --add-forward"];
    const SERVE: [&str; 2] = [" --add-service=dhcp", " --permanent --add-service=dhcp"];
    let lines = match (wanted.is_both_ways, wanted.packet.ports[1]) {
        (true, _) => FORWARD,
        (false, 67) => SERVE,
        // No zone says what leaves the host, only a policy does.
        (false, _) => return vec![network.command("firewall-cmd --list-all-policies", &[])],
    };
    let program = match zone(stop) {
        Some(zone) => network.command("firewall-cmd --zone={}", &[zone]),
        None => network.command("firewall-cmd", &[]),
    };
    lines.map(|options| program.clone().with(options)).into()
}

/// For a rule that iptables or ebtables made, if it is here.
fn iptables(network: &Network, wanted: &Wanted<'_>, stop: &Stop) -> Option<Remedy> {
    let first = stop.path.first().map(String::as_str)?;
    let name = stop.made_by()?;
    let backend = if stop.is_legacy { Backend::Legacy } else { Backend::Nft };
    let program = program::of(&network.netns, name, backend)?;
    let ports = wanted.ports(":");
    if name == "ebtables" {
        return Some(network.command(
            "{} -t {} -I {} -p IPv4 --ip-proto udp --ip-dport {} -j ACCEPT",
            &[&program, &stop.table, first, &ports],
        ));
    }
    // What stands before Docker's own rules belongs there.
    let has_place =
        (&*stop.table, first) == ("filter", "FORWARD") && network.rules.has_chain("DOCKER-USER");
    let chain = if has_place { "DOCKER-USER" } else { first };
    let mut command = network.command("{} -t {} -I {}", &[&program, &stop.table, chain]);
    for (option, name) in [(" -i {}", wanted.packet.iif), (" -o {}", wanted.packet.oif)] {
        if let Some(name) = name {
            command = command.with(Remedy::line(option, &[name]));
        }
    }
    Some(command.with(Remedy::line(" -p udp --dport {} -j ACCEPT", &[&ports])))
}

fn nftables(network: &Network, wanted: &Wanted<'_>, stop: &Stop) -> Remedy {
    let (family, table) = (&*stop.family, &*stop.table);
    let chain = stop.path.first().map_or("", String::as_str);
    let mut command = network.command("nft insert rule {} {} {}", &[family, table, chain]);
    let sides = [(" iifname {}", wanted.packet.iif), (" oifname {}", wanted.packet.oif)];
    // In the other families the rule is about frames, whatever port they come from.
    let is_routed = ["ip", "inet"].contains(&family);
    for (key, name) in sides.into_iter().filter(|_| is_routed) {
        let Some(name) = name else { continue };
        command = command.with(Remedy::line(key, &[&spelled(name)]));
    }
    command.with(Remedy::line(" udp dport {} accept", &[&wanted.ports("-")]))
}

/// An interface's name as nft takes it: its grammar has words, and strings in which a star at the end makes
/// a glob. No string can hold a quote, so a glob stands for a name that does.
fn spelled(name: &str) -> String {
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    match name.split_once('"') {
        Some((start, _)) => format!("\"{start}*\""),
        None if name.chars().all(is_word) => name.to_owned(),
        None => format!("\"{name}\""),
    }
}
