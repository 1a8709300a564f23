//! Interfaces that nobody serves.

use std::collections::BTreeSet;

use super::start::{is_served_here, start};
use crate::{
    doctor::{
        facts::Facts,
        finding::{Finding, Likelihood, Source},
        network::{Network, leads_out},
        processes::{Bound, Inode, Role},
    },
    net::inspect::Interface,
};

/// Interfaces from which nobody here gives an address, or passes on who asks for one.
pub fn nobody(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for (at, network) in facts.selected() {
        for interface in network.selected() {
            let at = (at, interface.ifindex);
            let is_answered = facts.heard.as_ref().is_some_and(|heard| heard.has_reply(at));
            let mut servers = facts.servers_of(at.0, at.1);
            if !is_answered && servers.all(|serving| facts.role(serving) == Role::Proxy) {
                found.push(unserved(facts, at, network, interface));
            }
        }
    }
    found
}

/// The ways to guests: the ports of a bridge, or the interface itself.
fn ways<'a>(network: &'a Network, interface: &'a Interface) -> Vec<&'a Interface> {
    let bridge = [Some(interface), network.below(interface)];
    let bridge = bridge.into_iter().flatten().find(|interface| interface.bridge.is_some());
    match bridge {
        Some(bridge) => network.ports(bridge.ifindex).collect(),
        None => vec![interface],
    }
}

fn unserved(facts: &Facts, at: (usize, u32), network: &Network, interface: &Interface) -> Finding {
    let (place, ways) = (network.place(&interface.name), ways(network, interface));
    let finding = |likelihood| {
        let headline = format!("nobody on this host serves DHCP to {place}");
        seen(facts, at, interface, Finding::new(likelihood, &place, headline))
    };
    let listen = network.fixer("fixer doctor", &interface.name, " --listen 30");
    let listen = listen.remark("start a guest meanwhile, and see whether another server answers");
    if let Some(uplink) = ways.iter().find(|way| leads_out(way)) {
        let means = format!("the server has to be beyond {}", uplink.name);
        return finding(Likelihood::Note).means(means).remedy(listen);
    }
    let (is_ours, has_machines) =
        (is_served_here(&interface.name), ways.iter().any(|way| is_tap(way)));
    let Some(elsewhere) = elsewhere(facts, network, interface, &ways) else {
        return match facts.is_asked || (is_ours && has_machines) {
            true => finding(match facts.misses(&[Source::Processes]) {
                true => Likelihood::Likely,
                false => Likelihood::Certain,
            })
            .means("requests of its guests end here, and no port leads to another host")
            .remedy(start(network, interface)),
            false => finding(Likelihood::Note)
                .means("in order where containers are given their addresses without DHCP"),
        };
    };
    // A second server beside one that cannot be seen does harm, so who asked in vain has to be heard.
    let is_asked_in_vain = facts.heard.as_ref().is_some_and(|heard| heard.has_request(at));
    let remedy = if is_ours || is_asked_in_vain { start(network, interface) } else { listen };
    let means = match facts.is_asked || has_machines {
        true => format!("requests of its guests end here, unless {elsewhere}"),
        false => "in order where containers are given their addresses without DHCP".to_owned(),
    };
    finding(match facts.is_asked || (is_ours && has_machines) {
        true => Likelihood::Possible,
        false => Likelihood::Note,
    })
    .means(means)
    .remedy(remedy)
}

fn is_tap(interface: &Interface) -> bool {
    interface.kind.as_deref() == Some("tun")
}

/// Where a server may be that cannot be seen from here.
fn elsewhere(
    facts: &Facts,
    network: &Network,
    interface: &Interface,
    ways: &[&Interface],
) -> Option<String> {
    let bridges = facts.switches.iter().flat_map(|switches| &switches.bridges);
    let is_switch = interface.kind.as_deref() == Some("openvswitch")
        || bridges.into_iter().any(|bridge| *bridge == interface.name);
    if is_switch {
        return Some("a server is at a port of Open vSwitch: those are not looked at".to_owned());
    }
    if let Some(way) = ways.iter().find(|way| may_lead_on(network, way)) {
        return Some(format!("a server is behind the other end of {}", way.name));
    }
    let guest = ways.iter().find(|way| is_tap(way))?;
    Some(format!("a guest is the server, such as the one behind {}", guest.name))
}

/// Whether the other end of a veth pair may be on the way to a server: out of sight, or a port of
/// another switch.
fn may_lead_on(network: &Network, port: &Interface) -> bool {
    let end = port.joined.filter(|_| port.joined_in.is_none());
    let end = end.and_then(|end| network.interface(end));
    port.kind.as_deref() == Some("veth") && end.is_none_or(|end| end.controller.is_some())
}

/// What was read of those who might.
fn seen(facts: &Facts, at: (usize, u32), interface: &Interface, mut finding: Finding) -> Finding {
    let inode = facts.networks.get(at.0).map(|network| network.inode);
    for serving in facts.servers_of(at.0, at.1) {
        finding = finding.seen(format!("{}, gives no address", facts.label(serving)));
    }
    if finding.seen.is_empty() {
        let elsewhere = others(facts, inode);
        let place = &finding.place;
        let told = format!("no socket listens at UDP port 67 for {place}{elsewhere}");
        finding = finding.seen(told);
    }
    for server in facts.census.servers.iter().filter(|server| Some(server.netns) == inode) {
        if let (Some(told), Some(process)) = (&server.told, &server.process)
            && told.shuns(&interface.name)
        {
            let label = process.label();
            finding = finding.seen(format!("{label} is told to leave {} alone", interface.name));
        }
    }
    finding
}

/// Who serves something else.
fn others(facts: &Facts, here: Option<Inode>) -> String {
    let mut others = BTreeSet::new();
    for server in &facts.census.servers {
        let name = server.process.as_ref().map_or("somebody", |program| &program.name);
        let network = facts.networks.iter().find(|network| network.inode == server.netns);
        let interface = |index: &u32| Some(network?.interface(*index)?.name.clone());
        let names = match &server.bound {
            Bound::Device(name) => {
                let is_shunned = server.told.as_ref().is_some_and(|told| told.shuns(name));
                Some(name.clone()).filter(|_| !is_shunned)
            }
            Bound::Packets(indexes) => {
                let names: Option<Vec<_>> = indexes.iter().map(interface).collect();
                names.map(|names| names.join(" and "))
            }
            Bound::Told => server.told.as_ref().and_then(|told| told.names()),
            Bound::Gone => Some("an interface that is gone".to_owned()),
            Bound::All => None,
        };
        let place = if Some(server.netns) == here { "" } else { " in another namespace" };
        others.extend(names.map(|names| format!("{name} serves {names}{place}")));
    }
    if others.is_empty() {
        return String::new();
    }
    let first: Vec<_> = others.into_iter().take(4).collect();
    format!("; {}", first.join(", "))
}
