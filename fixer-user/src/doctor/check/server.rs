//! Who serves DHCP, where, and how many of them.

use std::collections::BTreeSet;

use crate::{
    doctor::{
        facts::Facts,
        finding::{Finding, Likelihood, Source},
        network::{Network, leads_out},
        processes::{Bound, Program},
        remedy::Remedy,
    },
    net::inspect::Interface,
};

/// Interfaces that nobody serves.
pub fn nobody(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for (at, network) in facts.selected() {
        for interface in network.selected() {
            if facts.servers_of(at, interface.ifindex).next().is_none() {
                found.push(unserved(facts, network, interface));
            }
        }
    }
    found
}

fn unserved(facts: &Facts, network: &Network, interface: &Interface) -> Finding {
    let place = network.place(&interface.name);
    let ports: Vec<_> = network.ports(interface.ifindex).collect();
    let finding = |likelihood| {
        let headline = format!("nobody on this host serves DHCP to {place}");
        let elsewhere = elsewhere(facts);
        Finding::new(likelihood, &place, headline)
            .seen(format!("no socket listens at UDP port 67 for {place}{elsewhere}"))
    };
    let has_machines = ports.iter().any(|port| port.kind.as_deref() == Some("tun"));
    if let Some(uplink) = ports.iter().find(|port| leads_out(port)) {
        let listen = network.fixer("fixer doctor", &interface.name, " --listen 30");
        return finding(Likelihood::Note)
            .means(format!("the server has to be beyond {}", uplink.name))
            .remedy(Remedy::from("see whether it answers: ").with(listen));
    }
    if !facts.is_asked && !has_machines {
        return finding(Likelihood::Note)
            .means("in order where containers are given their addresses without DHCP");
    }
    let start = start(network, &interface.name);
    if let Some(port) = ports.iter().find(|port| may_lead_on(network, port)) {
        return finding(Likelihood::Possible)
            .means(format!(
                "requests of its guests end here, unless a server is behind the other end of {}",
                port.name
            ))
            .remedy(start);
    }
    finding(match facts.misses(&[Source::Processes]) {
        true => Likelihood::Likely,
        false => Likelihood::Certain,
    })
    .means("requests of its guests end here, and no port leads to another host")
    .remedy(start)
}

/// Whether the other end of a veth pair may be on the way to a server: out of sight, or a port of
/// another switch.
fn may_lead_on(network: &Network, port: &Interface) -> bool {
    let end = port.joined.filter(|_| port.joined_in.is_none());
    let end = end.and_then(|end| network.interface(end));
    port.kind.as_deref() == Some("veth") && end.is_none_or(|end| end.controller.is_some())
}

/// Who serves something else.
fn elsewhere(facts: &Facts) -> String {
    let mut others = BTreeSet::new();
    for server in &facts.census.servers {
        let name = server.process.as_ref().map_or("somebody", |program| &program.name);
        let network = facts.networks.iter().find(|network| network.inode == server.netns);
        let interface = |index: &u32| Some(network?.interface(*index)?.name.clone());
        let names = match &server.bound {
            Bound::Device(name) => Some(name.clone()),
            Bound::Packets(indexes) => {
                let names: Option<Vec<_>> = indexes.iter().map(interface).collect();
                names.map(|names| names.join(", "))
            }
            Bound::Told(told) => told.names(),
            Bound::Gone => Some("an interface that is gone".to_owned()),
            Bound::All => None,
        };
        others.extend(names.map(|names| format!("{name} serves {names}")));
    }
    if others.is_empty() {
        return String::new();
    }
    let first: Vec<_> = others.into_iter().take(4).collect();
    format!("; {}", first.join(", "))
}

/// How the server of a well-known bridge is started.
fn start(network: &Network, bridge: &str) -> Remedy {
    match bridge {
        "virbr0" => "virsh net-start default".into(),
        "lxcbr0" => "systemctl start lxc-net".into(),
        "lxdbr0" => "systemctl restart snap.lxd.daemon".into(),
        bridge => Remedy::line("start the server that belongs to {}, such as ", &[bridge])
            .with(network.command("dnsmasq --interface={}", &[bridge])),
    }
}

/// Interfaces that several serve.
pub fn many(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for (at, network) in facts.selected() {
        for interface in network.selected() {
            // Of one that may serve anything, nothing tells that it answers here.
            let servers = facts.servers_of(at, interface.ifindex);
            let servers: Vec<_> = servers.filter(|serving| serving.is_sure).collect();
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
            found.push(finding.remedy(Remedy::from(unless).with(end(&programs))));
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
fn end(programs: &[&Program]) -> Remedy {
    match programs.iter().min_by_key(|program| (program.started, program.pid)) {
        Some(oldest) => Remedy::line(
            "keep one; the oldest is {} (pid {}): kill {}",
            &[&oldest.name, &oldest.pid.to_string(), &oldest.pid.to_string()],
        ),
        None => "keep one; as root, fixer doctor tells whose they are".into(),
    }
}

/// Servers for interfaces that are gone.
pub fn left_over(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut told = BTreeSet::new();
    for server in &facts.census.servers {
        let Some(process) = &server.process else { continue };
        let network = facts.networks.iter().find(|network| network.inode == server.netns);
        // Elsewhere it disturbs nobody who is asked about.
        let likelihood = match facts.knows(server.netns) {
            true => Likelihood::Possible,
            false if facts.is_asked => continue,
            false => Likelihood::Note,
        };
        let finding = match &server.bound {
            Bound::Gone => {
                Finding::new(likelihood, "", format!("{} is left over", process.label()))
                    .seen("it holds UDP port 67 for an interface that is gone")
                    .means(
                        "it may keep the port, the address and the lease file from today's server",
                    )
                    .remedy(Remedy::line("kill {}", &[&process.pid.to_string()]))
            }
            Bound::Told(told) if network.is_some_and(|it| told.lacks(&it.interfaces)) => {
                let names = told.only.join(", ");
                let headline = format!("{} waits for an interface", process.label());
                Finding::new(Likelihood::Note, "", headline)
                    .seen(format!("it was told to serve {names}, and there is no such interface"))
                    .means("in order where the interface comes later, with its first guest")
            }
            _ => continue,
        };
        if told.insert(process.pid) {
            found.push(finding);
        }
    }
    found
}
