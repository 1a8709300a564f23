//! Ports that a bridge keeps from each other, VLANs or not.

use crate::{
    doctor::{
        facts::{Facts, Serving},
        finding::{Finding, Likelihood},
        network::{Network, leads_out},
    },
    net::inspect::Interface,
};

/// How many guests are named.
const MOST: usize = 8;

/// Ports that what is sent to everybody does not leave through, and isolated ones that would have to
/// reach each other.
pub fn find(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for (at, network) in facts.selected() {
        for (bridge, _) in network.bridges() {
            let servings: Vec<_> = facts.servers_of(at, bridge.ifindex).collect();
            let ends: Vec<_> = match servings.is_empty() {
                true => network.ports(bridge.ifindex).filter(|port| leads_out(port)).collect(),
                false => servings.iter().filter_map(|serving| facts.end(serving)).collect(),
            };
            if ends.is_empty() {
                continue;
            }
            let is_end = |port: &Interface| ends.iter().any(|end| end.ifindex == port.ifindex);
            let guests: Vec<_> = network
                .ports(bridge.ifindex)
                .filter(|port| !is_end(port) && !leads_out(port))
                .collect();
            let likelihood = likelihood(facts, &servings);
            let here = [deaf(network, &ends), apart(network, &ends, &guests)];
            for mut finding in here.into_iter().flatten() {
                finding.likelihood = likelihood;
                found.push(finding);
            }
            for mut finding in guests.iter().filter_map(|guest| unheard(network, guest)) {
                finding.likelihood = likelihood.max(Likelihood::Possible);
                found.push(finding);
            }
        }
    }
    found
}

/// A server may be beyond an uplink; one that is here is at fault as surely as it serves.
fn likelihood(facts: &Facts, servings: &[&Serving]) -> Likelihood {
    let surest = servings.iter().map(|serving| facts.at_most(serving, Likelihood::Likely)).min();
    surest.unwrap_or(Likelihood::Possible)
}

fn names(ports: &[&Interface]) -> String {
    let names: Vec<_> = ports.iter().take(MOST).map(|port| port.name.as_str()).collect();
    names.join(", ")
}

/// No server's end is sent what is for everybody, as requests are.
fn deaf(network: &Network, ends: &[&Interface]) -> Option<Finding> {
    let end = ends.first().filter(|_| ends.iter().all(|end| end.is_spared_broadcasts))?;
    let place = network.place(&end.name);
    let headline = format!("requests do not get to the server behind {place}");
    let mut finding = Finding::new(Likelihood::Likely, &place, headline)
        .seen(format!("{}: bcast_flood off", names(ends)))
        .means("clients ask everybody, and what is sent to everybody does not leave there");
    for end in ends {
        let command = network.command("bridge link set dev {} bcast_flood on", &[&end.name]);
        finding = finding.remedy(command);
    }
    Some(finding)
}

/// Isolated guests, and no server's end that is not.
fn apart(network: &Network, ends: &[&Interface], guests: &[&Interface]) -> Option<Finding> {
    let guests: Vec<_> = guests.iter().copied().filter(|guest| guest.is_isolated).collect();
    let end = ends.first().filter(|_| ends.iter().all(|end| end.is_isolated))?;
    if guests.is_empty() {
        return None;
    }
    let place = network.place(&end.name);
    let headline = format!("the bridge keeps guests and the server behind {place} apart");
    Some(
        Finding::new(Likelihood::Likely, &place, headline)
            .seen(format!("isolated on: {}, and {}", names(ends), names(&guests)))
            .means("no frame gets from an isolated port to another one")
            .remedy(network.command("bridge link set dev {} isolated off", &[&end.name])),
    )
}

/// A guest that is not sent what is for everybody, as many replies are.
fn unheard(network: &Network, guest: &Interface) -> Option<Finding> {
    if !guest.is_spared_broadcasts {
        return None;
    }
    let place = network.place(&guest.name);
    let headline = format!("replies to everybody do not get to the guest behind {place}");
    Some(
        Finding::new(Likelihood::Possible, &place, headline)
            .seen(format!("{}: bcast_flood off", guest.name))
            .means(
                "a client that asks for a broadcast reply, as network boot clients do, hears none",
            )
            .remedy(network.command("bridge link set dev {} bcast_flood on", &[&guest.name])),
    )
}
