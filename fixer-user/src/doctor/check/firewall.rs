//! Whether a firewall, or a setting that acts like one, drops DHCP.

use std::{collections::BTreeSet, net::Ipv4Addr};

use crate::{
    doctor::{
        facts::{Facts, Serving},
        finding::{Finding, Likelihood},
        network::{Network, leads_out},
        remedy::Remedy,
        rules::{Packet, Stop, Verdict, Walk},
    },
    net::inspect::{Interface, share_network},
};

/// From where to where the two messages go, by their ports.
const REQUEST: [u16; 2] = [68, 67];
const REPLY: [u16; 2] = [67, 68];

/// The families and hooks in which rules are at devices.
const DEVICES: (&[&str], &[&str]) = (&["netdev", "inet"], &["ingress", "egress"]);

/// A way through the rules.
struct Way<'a> {
    families: &'static [&'static str],
    hooks: &'static [&'static str],
    packet: Packet<'a>,
}

/// A request, or a reply, between two interfaces.
fn packet<'a>(
    iif: Option<&'a str>,
    oif: Option<&'a str>,
    ports: [u16; 2],
    server: Ipv4Addr,
) -> Packet<'a> {
    let from = if ports == REQUEST { Ipv4Addr::UNSPECIFIED } else { server };
    Packet { iif, oif, bridge: None, addresses: [from, Ipv4Addr::BROADCAST], ports }
}

/// Rules that drop what a client asks, or what its server answers.
pub fn drops(facts: &Facts) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for serving in &facts.serving {
        let Some((origin, interface)) = facts.origin(serving) else { continue };
        let server = interface.addresses.first().map_or(Ipv4Addr::UNSPECIFIED, |(at, _)| *at);
        let name = Some(interface.name.as_str());
        let request = packet(name, None, REQUEST, server);
        let reply = packet(None, name, REPLY, server);
        let ways = [
            Way { families: DEVICES.0, hooks: DEVICES.1, packet: request },
            Way { families: &["ip", "inet"], hooks: &["prerouting", "input"], packet: request },
            Way { families: &["ip", "inet"], hooks: &["output", "postrouting"], packet: reply },
            Way { families: DEVICES.0, hooks: DEVICES.1, packet: reply },
        ];
        let here = blocked(origin, interface, &ways);
        for mut finding in here.into_iter().chain(on_bridge(facts, serving, server)) {
            finding.likelihood = facts.at_most(serving, finding.likelihood);
            found.push(finding);
        }
    }
    // Of two that saw the same, the surer is told.
    found.sort_by_key(|finding| finding.likelihood);
    let mut told = Vec::new();
    found.retain(|finding| {
        let is_new = !told.contains(&finding.seen);
        told.push(finding.seen.clone());
        is_new
    });
    found
}

/// The rules of the bridge family, at each port.
fn on_bridge(facts: &Facts, serving: &Serving, server: Ipv4Addr) -> Option<Finding> {
    let network = facts.networks.get(serving.serves.0)?;
    let bridge = network.interface(serving.serves.1)?;
    let behind = serving.port.and_then(|port| network.interface(port));
    network.ports(bridge.ifindex).filter(|port| Some(port.ifindex) != serving.port).find_map(
        |port| {
            let (near, far) = (Some(port.name.as_str()), behind.map(|port| port.name.as_str()));
            let hooks: [&'static [&'static str]; 2] = match behind {
                Some(_) => [&["prerouting", "forward", "postrouting"]; 2],
                None => [&["prerouting", "input"], &["output", "postrouting"]],
            };
            let request =
                Packet { bridge: Some(&bridge.name), ..packet(near, far, REQUEST, server) };
            let reply = Packet { bridge: Some(&bridge.name), ..packet(far, near, REPLY, server) };
            let ways = [
                Way { families: DEVICES.0, hooks: DEVICES.1, packet: request },
                Way { families: &["bridge"], hooks: hooks[0], packet: request },
                Way { families: &["bridge"], hooks: hooks[1], packet: reply },
                Way { families: DEVICES.0, hooks: DEVICES.1, packet: reply },
            ];
            blocked(network, port, &ways)
        },
    )
}

/// Frames between ports that the settings of the bridge show to iptables.
pub fn bridged(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for (at, network) in facts.selected() {
        for (bridge, settings) in network.bridges() {
            let shows = |setting: &str| network.setting(setting) == Some(1);
            let is_shown = [shows("bridge/bridge-nf-call-iptables"), settings.calls_iptables];
            let servers: Vec<_> = facts.servers_of(at, bridge.ifindex).collect();
            let is_local = |serving: &&&Serving| serving.port.is_none();
            // Between a guest and the server on the bridge itself nothing is forwarded.
            if is_shown == [false; 2]
                || network.ports(bridge.ifindex).count() < 2
                || (!servers.is_empty() && servers.iter().all(|serving| is_local(&serving)))
            {
                continue;
            }
            let name = Some(bridge.name.as_str());
            let ways = [REQUEST, REPLY].map(|ports| Way {
                families: &["ip", "inet"],
                hooks: &["prerouting", "forward", "postrouting"],
                packet: packet(name, name, ports, Ipv4Addr::UNSPECIFIED),
            });
            let Some(mut finding) = blocked(network, bridge, &ways) else { continue };
            // Containers that are given their addresses without DHCP have no server to ask.
            let has_server = !servers.is_empty() || network.ports(bridge.ifindex).any(leads_out);
            finding.likelihood = match has_server || facts.is_asked {
                true => finding.likelihood.max(Likelihood::Likely),
                false => Likelihood::Note,
            };
            finding.headline = format!(
                "iptables' rules for routed packets drop DHCP between the ports of {}",
                finding.place
            );
            finding.remedy.clear();
            for (is_on, seen, command) in [
                (
                    is_shown[1],
                    format!("{}: nf_call_iptables 1", bridge.name),
                    network
                        .command("ip link set {} type bridge nf_call_iptables 0", &[&bridge.name]),
                ),
                (
                    is_shown[0],
                    "net.bridge.bridge-nf-call-iptables = 1".to_owned(),
                    network.command("sysctl -w net.bridge.bridge-nf-call-iptables=0", &[]),
                ),
            ] {
                if is_on {
                    finding.seen.insert(0, seen);
                    finding.remedy.insert(0, command);
                }
            }
            found.push(finding);
        }
    }
    found
}

/// The first of the ways on which something drops the packet.
fn blocked(network: &Network, interface: &Interface, ways: &[Way<'_>]) -> Option<Finding> {
    let rules = &network.rules;
    let walks = ways.iter().flat_map(|way| {
        way.hooks.iter().map(move |hook| (way, rules.walk(way.families, hook, &way.packet)))
    });
    let (way, walk) = walks
        .filter(|(_, walk)| walk.verdict != Verdict::Passes)
        .max_by_key(|(_, walk)| walk.verdict == Verdict::Drops)?;
    let Walk { verdict, stop: Some(stop), .. } = walk else { return None };
    let place = network.place(&interface.name);
    let is_request = way.packet.ports == REQUEST;
    let what = if is_request { "what guests ask of" } else { "what answers guests on" };
    let (likelihood, verb) = match verdict {
        Verdict::Drops => (Likelihood::Certain, "drops"),
        _ => (Likelihood::Possible, "may drop"),
    };
    let port = way.packet.ports[1];
    let mut finding =
        Finding::new(likelihood, &place, format!("the firewall {verb} {what} {place}"))
            .seen(format!(
                "{} {} {}: {}",
                if stop.is_legacy { "iptables-legacy" } else { &stop.family },
                stop.table,
                stop.path.join(" > "),
                stop.rule
            ))
            .means(match is_request {
                true => format!("requests to UDP port {port} do not reach the server"),
                false => format!("replies to UDP port {port} do not leave this host"),
            });
    if let Some(zone) = zone(&stop) {
        finding = finding.seen(format!("firewalld's zone '{zone}' has it"));
    }
    Some(finding.remedy(open(network, interface, way, &stop)))
}

/// The zone of firewalld whose chain it is: `filter_IN_public`, `filter_IN_public_deny`.
fn zone(stop: &Stop) -> Option<&str> {
    let chain = stop.path.iter().find_map(|chain| chain.strip_prefix("filter_IN_"))?;
    let rest = stop.table.starts_with("firewalld").then_some(chain)?;
    let ends = ["_pre", "_log", "_deny", "_allow", "_post"];
    Some(ends.iter().find_map(|end| rest.strip_suffix(end)).unwrap_or(rest))
        .filter(|zone| !zone.starts_with("policy_"))
}

/// The command that lets the packet through.
fn open(network: &Network, interface: &Interface, way: &Way<'_>, stop: &Stop) -> Remedy {
    let (name, port) = (&*interface.name, way.packet.ports[1].to_string());
    let (family, table) = (&*stop.family, &*stop.table);
    let first = stop.path.first().map_or("", String::as_str);
    let is_request = way.packet.ports == REQUEST;
    if table.starts_with("firewalld") {
        return match zone(stop) {
            Some(zone) => network.command(
                "firewall-cmd --zone={} --add-service=dhcp (and with --permanent)",
                &[zone],
            ),
            None => network.command("firewall-cmd --add-service=dhcp (and with --permanent)", &[]),
        };
    }
    if stop.is_legacy || (family == "ip" && first.chars().all(char::is_uppercase)) {
        let program = if stop.is_legacy { "iptables-legacy" } else { "iptables" };
        let direction = if is_request { "-i" } else { "-o" };
        return network.command(
            "{} -t {} -I {} {} {} -p udp --dport {} -j ACCEPT",
            &[program, table, first, direction, name, &port],
        );
    }
    let key = match (family, is_request) {
        ("ip" | "inet", true) => "iifname",
        ("ip" | "inet", false) => "oifname",
        _ => "",
    };
    // nft has a grammar of its own, in which a name may be more than a word.
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    match key {
        "" => network.command(
            "nft insert rule {} {} {} udp dport {} accept",
            &[family, table, first, &port],
        ),
        key if name.chars().all(is_word) => network.command(
            "nft insert rule {} {} {} {} {} udp dport {} accept",
            &[family, table, first, key, name, &port],
        ),
        key => Remedy::line(
            "in the chain {} {} {}, accept UDP port {} where {} is {}",
            &[family, table, first, &port, key, name],
        ),
    }
}

/// A strict reverse path filter, where the way back leads elsewhere. The first request has no address
/// and is let through; a renewal is not.
pub fn reverse_path(facts: &Facts) -> Vec<Finding> {
    let (mut found, mut told) = (Vec::new(), BTreeSet::new());
    for serving in &facts.serving {
        let Some((network, interface)) = facts.origin(serving) else { continue };
        let setting = |name: &str| network.setting(&format!("ipv4/conf/{name}/rp_filter"));
        let strictest = setting("all").max(setting(&interface.name));
        let share = |(at, len): &(Ipv4Addr, u8), other: &Interface| {
            let mut others = other.addresses.iter();
            others.any(|(there, wide)| share_network(*at, *there, *len.min(wide)))
        };
        let rival = network.interfaces.iter().find(|other| {
            other.ifindex != interface.ifindex
                && interface.addresses.iter().any(|own| share(own, other))
        });
        let Some(rival) = rival.filter(|_| strictest == Some(1)) else { continue };
        if !told.insert((serving.network, serving.ifindex)) {
            continue;
        }
        let place = network.place(&interface.name);
        let name = &interface.name;
        found.push(
            Finding::new(
                facts.at_most(serving, Likelihood::Possible),
                &place,
                format!("rp_filter may drop what guests on {place} send from their addresses"),
            )
            .seen(format!(
                "net.ipv4.conf.{name}.rp_filter is 1 (strict), and {} is in the same network",
                rival.name
            ))
            .means("a first lease is given, and its renewal is dropped where the route leads elsewhere")
            .remedy(network.command("sysctl -w net/ipv4/conf/{}/rp_filter=2", &[name])),
        );
    }
    found
}
