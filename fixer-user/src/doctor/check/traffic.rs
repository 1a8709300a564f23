//! What was wrong with what passed while we listened.

use std::collections::BTreeSet;

use fixer_common::abi::Hook;

use super::checksum::attach;
use crate::doctor::{
    facts::Facts,
    finding::{Finding, Likelihood},
    heard::{Exchange, GRACE, Heard},
    remedy::Remedy,
};

/// The place of a bridge that was listened at.
pub(super) fn place(facts: &Facts, (network, ifindex): (usize, u32)) -> Option<String> {
    let network = facts.networks.get(network)?;
    Some(network.place(&network.interface(ifindex)?.name))
}

/// The bridges that were listened at.
fn bridges(facts: &Facts) -> Vec<(usize, u32)> {
    let networks = facts.selected();
    networks.flat_map(|(at, network)| network.selected.iter().map(move |it| (at, *it))).collect()
}

/// Replies with bad sums.
pub fn sums(facts: &Facts) -> Vec<Finding> {
    let Some(heard) = &facts.heard else { return Vec::new() };
    let mut found = Vec::new();
    for at in bridges(facts) {
        let here: Vec<_> = heard.sums.iter().filter(|sums| sums.at == at).collect();
        let Some(place) = place(facts, at) else { continue };
        let bad: Vec<_> = here.iter().filter(|sums| sums.partial > 0).collect();
        if !bad.is_empty() {
            let mut finding = Finding::new(
                Likelihood::Certain,
                &place,
                format!("replies reach the guests of {place} with unfinished UDP checksums"),
            );
            for sums in bad.iter().take(4) {
                finding = finding.seen(format!(
                    "{}: {} of {} replies left partial",
                    sums.place, sums.partial, sums.replies
                ));
            }
            found.push(mend(facts, at, finding));
        }
        for sums in here.iter().filter(|sums| sums.corrupt > 0) {
            found.push(
                Finding::new(
                    Likelihood::Certain,
                    &place,
                    format!("replies leave {} with wrong UDP checksums", sums.place),
                )
                .seen(format!(
                    "{} of {} replies: wrong, and not partial",
                    sums.corrupt, sums.replies
                ))
                .means(
                    "something finished the sum twice, or damages replies; guests that verify drop \
                     them",
                )
                .remedy(
                    facts.networks[at.0]
                        .fixer("fixer run", &sums.interface, " --hook both --observe-only --all")
                        .remark("shows which"),
                ),
            );
        }
    }
    found
}

/// What to do about partial sums depends on what of fixer's is where the replies come from.
fn mend(facts: &Facts, at: (usize, u32), finding: Finding) -> Finding {
    let mut finding =
        finding.means("guests that verify checksums drop them; others get their leases");
    let here = || Some((&facts.networks[at.0], facts.networks[at.0].interface(at.1)?));
    let origin = facts.servers_of(at.0, at.1).find_map(|serving| facts.origin(serving));
    let Some((network, interface)) = origin.or_else(here) else { return finding };
    if let Some(fixer) = network.fixer_at(interface.ifindex, Hook::Egress) {
        finding = finding.seen(format!("although {} is there: {}", fixer.label(), fixer.effect));
    }
    attach(network, interface, finding)
}

/// Clients that asked early enough, and that nobody answered.
fn unanswered(heard: &Heard, at: (usize, u32)) -> Vec<&Exchange> {
    let in_time = |exchange: &&Exchange| exchange.first + GRACE.min(heard.span / 2) <= heard.span;
    let mut found: Vec<_> = heard
        .exchanges
        .iter()
        .filter(|exchange| exchange.at == at && exchange.requests > 0)
        .filter(|exchange| exchange.servers.is_empty())
        .filter(in_time)
        .collect();
    // A client that was answered under another number has what it wants.
    let answered: Vec<_> =
        heard.exchanges.iter().filter(|it| !it.servers.is_empty()).map(|it| it.client).collect();
    found.retain(|exchange| !answered.contains(&exchange.client));
    found
}

/// Who was answered all the while.
fn others(heard: &Heard, at: (usize, u32)) -> Option<String> {
    let (mut clients, mut servers) = (BTreeSet::new(), BTreeSet::new());
    for exchange in heard.exchanges.iter().filter(|it| it.at == at && !it.servers.is_empty()) {
        clients.insert(exchange.client.to_string());
        servers.extend(exchange.servers.iter().map(String::as_str));
    }
    let servers: Vec<_> = servers.into_iter().collect();
    let clients: Vec<_> = clients.into_iter().take(4).collect();
    let told = format!("meanwhile {} answered {}", servers.join(" and "), clients.join(", "));
    (!clients.is_empty()).then_some(told)
}

/// Requests that no server answered.
pub fn answers(facts: &Facts) -> Vec<Finding> {
    let Some(heard) = &facts.heard else { return Vec::new() };
    let mut found = Vec::new();
    for at in bridges(facts) {
        let (asked, Some(place)) = (unanswered(heard, at), place(facts, at)) else { continue };
        if asked.is_empty() {
            continue;
        }
        let clients: BTreeSet<_> =
            asked.iter().map(|exchange| exchange.client.to_string()).collect();
        let requests: usize = asked.iter().map(|exchange| exchange.requests).sum();
        let list: Vec<_> = clients.iter().take(4).cloned().collect();
        let servers: Vec<_> =
            facts.servers_of(at.0, at.1).map(|serving| facts.label(serving)).collect();
        let mut finding = Finding::new(
            heard.at_most(at, Likelihood::Certain),
            &place,
            format!("clients on {place} ask, and nobody answers"),
        )
        .seen(format!(
            "in {} s: {requests} requests and no reply, from {}",
            heard.span.as_secs(),
            list.join(", ")
        ));
        if servers.is_empty() {
            finding = finding
                .means("no server hears them, neither here nor beyond the ports of the bridge")
                .remedy("# start the server, or look at the way to it");
        } else {
            let is_pxe = asked.iter().all(|exchange| exchange.is_pxe);
            finding = finding
                .seen(format!("although there is {}", servers.join(", ")))
                .means(match is_pxe {
                    true => "network boot clients are not served: a pool that denies their class or is \
                             used up, a failover pair of which each says \"peer holds all free leases\"",
                    false => "its requests are dropped on the way, or the server has nothing to give: no \
                              range for this network, a pool that is full or denies the client, a \
                              failover pair that says \"peer holds all free leases\"",
                })
                .remedy(
                    Remedy::from("journalctl -t dhcpd -t dnsmasq-dhcp -t kea-dhcp4 -n 50")
                        .remark("the server's log"),
                );
        }
        finding.seen.extend(others(heard, at));
        found.push(finding);
    }
    found
}

/// Clients that a server refused.
pub fn refusals(facts: &Facts) -> Vec<Finding> {
    let Some(heard) = &facts.heard else { return Vec::new() };
    let mut found = Vec::new();
    for at in bridges(facts) {
        let refused: Vec<_> = heard
            .exchanges
            .iter()
            .filter(|exchange| exchange.at == at && !exchange.refusals.is_empty())
            .collect();
        let (Some(first), Some(place)) = (refused.first(), place(facts, at)) else { continue };
        let servers: BTreeSet<_> = refused.iter().flat_map(|exchange| &exchange.refusals).collect();
        let servers: Vec<_> = servers.into_iter().map(String::as_str).collect();
        found.push(
            Finding::new(
                Likelihood::Likely,
                &place,
                format!("a server on {place} refuses what clients ask for"),
            )
            .seen(format!("NAK from {} to {}", servers.join(", "), first.client))
            .means(
                "the client asks for an address of another network or server; it has to start \
                 anew, and with two servers this goes on for ever",
            )
            .remedy(
                Remedy::from("dhclient -r").remark(
                    "in the guest: takes its old lease away, as removing its lease file does",
                ),
            )
            .remedy("# of several servers, keep one"),
        );
    }
    found
}
