//! Who serves DHCP, where, and how many of them.

use std::collections::BTreeSet;

use crate::{
    doctor::{
        facts::Facts,
        finding::{Finding, Likelihood, Source},
        processes::{Bound, Program, Server},
    },
    net::inspect::Interface,
};

/// Interfaces that nobody serves.
pub fn nobody(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for (at, network) in facts.selected() {
        for interface in network.selected() {
            if facts.servers_of(at, interface.ifindex).next().is_some() {
                continue;
            }
            let place = network.place(&interface.name);
            let ports: Vec<_> = network.ports(interface.ifindex).collect();
            let uplinks: Vec<_> = ports.iter().filter(|port| leads_out(port)).collect();
            let elsewhere = elsewhere(facts);
            let headline = format!("nobody on this host serves DHCP to {place}");
            let finding = |likelihood| {
                Finding::new(likelihood, &place, &*headline)
                    .seen(format!("no socket listens at UDP port 67 for {place}{elsewhere}"))
            };
            let has_machines = ports.iter().any(|port| port.kind.as_deref() == Some("tun"));
            found.push(if let Some(uplink) = uplinks.first() {
                finding(Likelihood::Note)
                    .means(format!("the server has to be beyond {}", uplink.name))
                    .remedy(format!(
                        "see whether it answers: fixer doctor -i {} --listen 30",
                        interface.name
                    ))
            } else if facts.is_asked || has_machines {
                let likelihood = match facts.misses(&[Source::Processes]) {
                    true => Likelihood::Likely,
                    false => Likelihood::Certain,
                };
                finding(likelihood)
                    .means("requests of its guests end here, and no port leads to another host")
                    .remedy(start(&interface.name))
            } else {
                finding(Likelihood::Note)
                    .means("in order where containers are given their addresses without DHCP")
            });
        }
    }
    found
}

/// Whether a port leads to other hosts.
fn leads_out(port: &Interface) -> bool {
    let kind = port.kind.as_deref();
    matches!(
        kind,
        None | Some("vxlan" | "vlan" | "bond" | "geneve" | "gretap" | "team" | "ip6gretap")
    )
}

/// Who serves something else.
fn elsewhere(facts: &Facts) -> String {
    let mut others = BTreeSet::new();
    for server in &facts.census.servers {
        let name = server.process.as_ref().map_or("somebody", |program| &program.name);
        let names = match &server.bound {
            Bound::Named(names) => names.join(", "),
            Bound::Gone => "an interface that is gone".to_owned(),
            Bound::All => continue,
        };
        others.insert(format!("{name} serves {names}"));
    }
    if others.is_empty() {
        return String::new();
    }
    let first: Vec<_> = others.into_iter().take(4).collect();
    format!("; {}", first.join(", "))
}

/// How the server of a well-known bridge is started.
fn start(bridge: &str) -> String {
    match bridge {
        "virbr0" => "virsh net-start default".to_owned(),
        "lxcbr0" => "systemctl start lxc-net".to_owned(),
        "lxdbr0" => "systemctl restart snap.lxd.daemon".to_owned(),
        bridge => format!(
            "start the server that belongs to {bridge}, such as dnsmasq --interface={bridge}"
        ),
    }
}

/// Interfaces that several serve.
pub fn many(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for (at, network) in facts.selected() {
        for interface in network.selected() {
            let servers: Vec<_> = facts.servers_of(at, interface.ifindex).collect();
            if servers.len() < 2 {
                continue;
            }
            let place = network.place(&interface.name);
            let names: Vec<_> = servers.iter().map(|serving| facts.label(serving)).collect();
            let programs: Vec<_> = servers
                .iter()
                .filter_map(|serving| facts.server(serving)?.process.as_ref())
                .collect();
            let headline = format!("{} servers answer on {place}", servers.len());
            let finding =
                Finding::new(Likelihood::Possible, &place, headline).seen(names.join(", ")).means(
                    "a client takes the first offer, and the other server may refuse what this one gave",
                );
            let unless =
                if may_be_pair(&programs) { "unless they are a failover pair: " } else { "" };
            found.push(finding.remedy(format!("{unless}{}", end(&programs))));
        }
    }
    found
}

/// Whether they may know of each other: they are two of a server that can do so.
fn may_be_pair(programs: &[&Program]) -> bool {
    let [one, other] = programs else { return false };
    one.name == other.name && ["dhcpd", "kea-dhcp4"].contains(&&*one.name)
}

/// Of several, the one that was there before the others is likely left over.
fn end(programs: &[&Program]) -> String {
    match programs.iter().min_by_key(|program| (program.started, program.pid)) {
        Some(oldest) => format!("keep one; the oldest is {}: kill {}", oldest.label(), oldest.pid),
        None => "keep one; as root, fixer doctor tells whose they are".to_owned(),
    }
}

/// Servers for interfaces that are gone.
pub fn left_over(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut told = BTreeSet::new();
    for server in &facts.census.servers {
        let Some(process) = &server.process else { continue };
        // Elsewhere it disturbs nobody who is asked about.
        let likelihood = match facts.knows(server.netns) {
            true => Likelihood::Possible,
            false if facts.is_asked => continue,
            false => Likelihood::Note,
        };
        let Some(gone) = lost(facts, server).filter(|_| told.insert(process.pid)) else { continue };
        let headline = format!("{} is left over", process.label());
        found.push(
            Finding::new(likelihood, "", headline)
                .seen(format!("it holds UDP port 67 for {gone}"))
                .means("it may keep the port, the address and the lease file from today's server")
                .remedy(format!("kill {}", process.pid)),
        );
    }
    found
}

/// The interface that a server is there for, if it is gone. Of namespaces that are not looked at, we
/// know only what the kernel says of the socket.
fn lost(facts: &Facts, server: &Server) -> Option<String> {
    match &server.bound {
        Bound::Gone => Some("an interface that is gone".to_owned()),
        Bound::Named(names) => {
            let network = facts.networks.iter().find(|network| network.inode == server.netns)?;
            let is_there = |name: &String| network.named(name).is_some() || name.contains('*');
            (!names.iter().any(is_there)).then(|| format!("{}, which is gone", names.join(", ")))
        }
        Bound::All => None,
    }
}
