//! Servers that are too many.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    doctor::{
        dnsmasq::Told,
        facts::{Facts, Serving},
        finding::{Finding, Likelihood},
        processes::{Bound, Program, Role, Server},
        remedy::Remedy,
    },
    net::inspect::Interface,
};

/// Interfaces that several give addresses on.
pub fn many(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for (at, network) in facts.selected() {
        for interface in network.selected() {
            // Of one that may serve anything, nothing tells that it answers here.
            let servers = facts.servers_of(at, interface.ifindex);
            let servers = servers.filter(|it| it.is_sure && facts.role(it) == Role::Server);
            let mut rivals = BTreeMap::<_, Vec<_>>::new();
            servers.for_each(|it| rivals.entry(vlan(facts, it)).or_default().push(it));
            let place = network.place(&interface.name);
            for servers in rivals.values().filter(|servers| servers.len() > 1) {
                found.push(several(facts, &place, servers));
            }
        }
    }
    found
}

/// The VLAN that a server is in, on a bridge that has such.
fn vlan(facts: &Facts, serving: &Serving) -> Option<u16> {
    let bridge = facts.networks.get(serving.serves.0)?.interface(serving.serves.1)?;
    let filters = bridge.bridge.is_some_and(|bridge| bridge.filters_vlans);
    serving.vlan.or_else(|| facts.end(serving)?.pvid().filter(|_| filters))
}

fn several(facts: &Facts, place: &str, servings: &[&Serving]) -> Finding {
    let servers: Vec<_> = servings.iter().filter_map(|serving| facts.server(serving)).collect();
    let programs: Vec<_> = servers.iter().filter_map(|server| server.process.as_ref()).collect();
    let headline = format!("{} servers answer on {place}", servings.len());
    let mut finding = Finding::new(Likelihood::Possible, place, headline);
    for serving in servings {
        let told = facts.server(serving).and_then(|server| server.told.as_ref());
        let ranges = told.map(|told| format!(" ({})", told.ranges())).unwrap_or_default();
        finding = finding.seen(format!("{}{ranges}", facts.label(serving)));
    }
    let means =
        "a client takes the first offer, and the other server may refuse what this one gave";
    finding = match may_be_pair(&programs) {
        true => finding.means(format!("in order if they are a failover pair; otherwise {means}")),
        false => finding.means(means),
    };
    finding.remedy(end(facts, servings).unwrap_or_else(|| compare(&programs)))
}

/// Whether they may know of each other: they are two of a server that can do so.
fn may_be_pair(programs: &[&Program]) -> bool {
    let [one, other] = programs else { return false };
    one.name == other.name && ["dhcpd", "kea-dhcp4"].contains(&&*one.name)
}

/// A dnsmasq, and the interface that it serves.
struct Rival<'a> {
    told: &'a Told,
    process: &'a Program,
    interface: &'a Interface,
}

impl<'a> Rival<'a> {
    fn of(facts: &'a Facts, serving: &Serving) -> Option<Self> {
        let server = facts.server(serving)?;
        let (told, process) = (server.told.as_ref()?, server.process.as_ref()?);
        Some(Self { told, process, interface: facts.origin(serving)?.1 })
    }

    fn is_replaced_by(&self, other: &Self) -> bool {
        self.told.is_replaced_by(other.told, other.process.pid)
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.told.overlaps(other.told, self.interface)
    }
}

/// How the one is ended that should not be there, if something tells which: another took its place, or
/// both give the same addresses, and of these the one that was there before the others is left over.
fn end(facts: &Facts, servings: &[&Serving]) -> Option<Remedy> {
    let rivals: Vec<_> = servings.iter().filter_map(|it| Rival::of(facts, it)).collect();
    let has = |one: &Rival<'_>, is_so: fn(&Rival<'_>, &Rival<'_>) -> bool| {
        rivals.iter().any(|other| other.process.pid != one.process.pid && is_so(one, other))
    };
    let kill = |it: &Rival<'_>| Remedy::line("kill {}", &[&it.process.pid.to_string()]);
    let replaced = rivals.iter().find(|it| has(it, |it, other| it.is_replaced_by(other)));
    let doubles = rivals.iter().filter(|it| has(it, |it, other| it.overlaps(other)));
    let oldest = doubles.min_by_key(|it| (it.process.started, it.process.pid));
    replaced
        .map(|it| kill(it).remark("another took its place: its pid file names that one"))
        .or_else(|| oldest.map(|it| kill(it).remark("the oldest of those with the same addresses")))
}

/// Without such a sign, whoever knows what they are for has to say.
fn compare(programs: &[&Program]) -> Remedy {
    let pids: Vec<_> = programs.iter().map(|program| program.pid.to_string()).collect();
    match pids.is_empty() {
        true => Remedy::from("sudo fixer doctor").remark("as root it tells whose they are"),
        false => Remedy::line("ps -o pid,ppid,lstart,args -p {}", &[&pids.join(",")])
            .remark("keep the one that is meant to serve here"),
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
        if let Some(finding) = forlorn(facts, server, process, likelihood)
            && told.insert(process.pid)
        {
            found.push(finding);
        }
    }
    found
}

fn forlorn(
    facts: &Facts,
    server: &Server,
    process: &Program,
    likelihood: Likelihood,
) -> Option<Finding> {
    let network = facts.networks.iter().find(|network| network.inode == server.netns);
    match (&server.bound, &server.told) {
        (Bound::Gone, _) => Some(
            Finding::new(likelihood, "", format!("{} is left over", process.label()))
                .seen("it holds UDP port 67 for an interface that is gone")
                .means("it may keep the port, the address and the lease file from today's server")
                .remedy(Remedy::line("kill {}", &[&process.pid.to_string()])),
        ),
        (Bound::Told, Some(told)) if network.is_some_and(|it| told.lacks(&it.interfaces)) => {
            let names = told.only.join(", ");
            let headline = format!("{} waits for an interface", process.label());
            Some(
                Finding::new(Likelihood::Note, "", headline)
                    .seen(format!("it was told to serve {names}, and there is no such interface"))
                    .means("in order where the interface comes later, with its first guest"),
            )
        }
        _ => None,
    }
}
