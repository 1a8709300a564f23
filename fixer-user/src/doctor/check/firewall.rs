//! Whether a firewall, or a setting that acts like one, drops DHCP.

mod open;
mod reverse;

use std::net::Ipv4Addr;

pub use reverse::reverse_path;

use open::{Wanted, open, zone};

use crate::{
    doctor::{
        facts::{Facts, Serving},
        finding::{Finding, Likelihood},
        network::{Network, leads_out},
        rules::{Packet, Stop, Verdict, Walk},
    },
    net::inspect::Interface,
};

/// From where to where the two messages go, by their ports.
const REQUEST: [u16; 2] = [68, 67];
const REPLY: [u16; 2] = [67, 68];

/// The families and hooks in which rules are at devices.
const DEVICES: (&[&str], &[&str]) = (&["netdev", "inet"], &["ingress", "egress"]);

/// The beginnings of chains of those who rely on rules about what passes between ports of bridges.
const RELYING: [&str; 3] = ["neutron-", "KUBE-", "DOCKER"];

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
    let mut found: Vec<((usize, u32), Finding)> = Vec::new();
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
        let here = blocked(origin, interface, &ways).map(|blocked| blocked.told(origin));
        for mut finding in here.into_iter().chain(on_bridge(facts, serving, server)) {
            finding.likelihood = facts.at_most(serving, finding.likelihood);
            found.push((serving.serves, finding));
        }
    }
    // Of two that saw the same on the way to the same guests, the surer is told.
    found.sort_by_key(|(_, finding)| finding.likelihood);
    let mut told = Vec::new();
    found.retain(|(guests, finding)| {
        let this = (*guests, finding.seen.clone());
        let is_new = !told.contains(&this);
        told.push(this);
        is_new
    });
    found.into_iter().map(|(_, finding)| finding).collect()
}

/// The rules of the bridge family, at each port.
fn on_bridge(facts: &Facts, serving: &Serving, server: Ipv4Addr) -> Option<Finding> {
    let network = facts.networks.get(serving.serves.0)?;
    let bridge = network.interface(serving.serves.1)?;
    let behind = serving.port.and_then(|port| network.interface(port));
    let ports: Vec<_> =
        network.ports(bridge.ifindex).filter(|port| Some(port.ifindex) != serving.port).collect();
    // Many keep DHCP from passing between networks. Where guests are only out there, that is a fault.
    let is_inner =
        |port: &&&Interface| ports.iter().all(|port| leads_out(port)) || !leads_out(port);
    ports.iter().filter(is_inner).find_map(|port| {
        let (near, far) = (Some(port.name.as_str()), behind.map(|port| port.name.as_str()));
        let hooks: [&'static [&'static str]; 2] = match behind {
            Some(_) => [&["prerouting", "forward", "postrouting"]; 2],
            None => [&["prerouting", "input"], &["output", "postrouting"]],
        };
        let request = Packet { bridge: Some(&bridge.name), ..packet(near, far, REQUEST, server) };
        let reply = Packet { bridge: Some(&bridge.name), ..packet(far, near, REPLY, server) };
        let ways = [
            Way { families: DEVICES.0, hooks: DEVICES.1, packet: request },
            Way { families: &["bridge"], hooks: hooks[0], packet: request },
            Way { families: &["bridge"], hooks: hooks[1], packet: reply },
            Way { families: DEVICES.0, hooks: DEVICES.1, packet: reply },
        ];
        blocked(network, port, &ways).map(|blocked| blocked.told(network))
    })
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
            let Some(Blocked { mut finding, stop, .. }) = blocked(network, bridge, &ways) else {
                continue;
            };
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
            let wanted = Wanted { packet: ways[0].packet, is_both_ways: true };
            finding.remedy = open(network, &wanted, &stop);
            let is_relied_on = RELYING.iter().any(|start| network.rules.has_chain(start));
            for (is_on, seen, command) in [
                (
                    is_shown[1],
                    format!("{}: nf_call_iptables 1", bridge.name),
                    network
                        .command("ip link set {} type bridge nf_call_iptables 0", &[&bridge.name])
                        .with("  # or so: no rule filters between its ports then"),
                ),
                (
                    is_shown[0],
                    "net.bridge.bridge-nf-call-iptables = 1".to_owned(),
                    network
                        .command("sysctl -w net.bridge.bridge-nf-call-iptables=0", &[])
                        .with("  # or so: no rule filters between ports of any bridge then"),
                ),
            ] {
                if is_on {
                    finding.seen.insert(0, seen);
                    finding.remedy.extend((!is_relied_on).then_some(command));
                }
            }
            found.push(finding);
        }
    }
    found
}

/// A finding, and what it is about.
struct Blocked<'a> {
    finding: Finding,
    stop: Stop,
    packet: Packet<'a>,
}

impl Blocked<'_> {
    /// The finding, with the commands that let this packet through.
    fn told(self, network: &Network) -> Finding {
        let wanted = Wanted { packet: self.packet, is_both_ways: false };
        Finding { remedy: open(network, &wanted, &self.stop), ..self.finding }
    }
}

/// The first of the ways on which something drops the packet.
fn blocked<'a>(network: &Network, interface: &Interface, ways: &[Way<'a>]) -> Option<Blocked<'a>> {
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
    Some(Blocked { finding, stop, packet: way.packet })
}
