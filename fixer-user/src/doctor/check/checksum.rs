//! Whether the checksums of replies stay partial on their way to guests.

use std::{fs, path::Path};

use fixer_common::abi::Hook;

use crate::{
    bpf::resident::Holder,
    doctor::{
        facts::{Facts, Serving},
        finding::{Finding, Likelihood, Source},
        fixers::Effect,
        network::{Network, leads_out},
        program,
        remedy::Remedy,
    },
    metrics::kernel,
    net::inspect::Interface,
};

/// What has to be seen before it can be said that nobody finishes sums.
const MENDERS: &[Source] = &[Source::Filters, Source::Fixers, Source::Firewall];

/// The rule that others use.
const RULE: &str =
    "iptables -t mangle -A POSTROUTING -p udp --dport 68 -j CHECKSUM --checksum-fill";

/// Replies whose sums nobody finishes. What was heard is surer, and told by its own check.
pub fn partial(facts: &Facts) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for serving in &facts.serving {
        if was_heard(facts, serving) {
            continue;
        }
        let Some(finding) = expected(facts, serving) else { continue };
        if !found.iter().any(|other| other.place == finding.place) {
            found.push(finding);
        }
    }
    found
}

/// Whether replies passed that tell. Whole ones of a server that writes them itself say nothing of others.
fn was_heard(facts: &Facts, serving: &Serving) -> bool {
    let sums = facts.heard.iter().flat_map(|heard| &heard.sums);
    let here: Vec<_> = sums.filter(|it| it.at == serving.serves && it.replies > 0).collect();
    match is_framed(facts, serving) {
        true => here.iter().any(|sums| sums.partial > 0),
        false => !here.is_empty(),
    }
}

/// Whether a server writes what it sends to clients without an address itself.
fn is_framed(facts: &Facts, serving: &Serving) -> bool {
    let told = facts.origin(serving).zip(facts.server(serving));
    told.is_some_and(|((_, interface), server)| server.writes_frames(interface))
}

fn expected(facts: &Facts, serving: &Serving) -> Option<Finding> {
    let (origin, interface) = facts.origin(serving)?;
    let server = facts.server(serving)?;
    let bridge = facts.networks.get(serving.serves.0)?;
    let promises = |network: &Network, interface: &Interface| {
        network.promises.as_ref()?.get(&interface.name).copied()
    };
    // What leaves a VLAN device leaves what is below it, too.
    let way_out: Vec<_> =
        [Some(interface), origin.below(interface)].into_iter().flatten().collect();
    let is_framed = is_framed(facts, serving);
    if (is_framed && server.is_framer())
        || way_out.iter().any(|at| promises(origin, at) != Some(true))
    {
        return None;
    }
    let ports: Vec<_> =
        bridge.ports(serving.serves.1).filter(|port| Some(port.ifindex) != serving.port).collect();
    // Only where frames leave to guests do their sums stay as they are.
    let is_believing =
        |port: &&&Interface| !leads_out(port) && promises(bridge, port) != Some(false);
    let believing: Vec<_> = ports.iter().filter(is_believing).copied().collect();
    let leaves_here = ports.is_empty() && leads_out(interface);
    let is_mended = |port: &&Interface| mends(bridge, port, Hook::Egress);
    let way_in = serving.port.and_then(|port| bridge.interface(port));
    if leaves_here
        || (!ports.is_empty() && believing.iter().all(is_mended))
        || way_out.iter().any(|at| mends(origin, at, Hook::Egress))
        || way_in.is_some_and(|port| mends(bridge, port, Hook::Ingress))
        || origin.reply_out(interface)[1].summed
    {
        return None;
    }
    let on_the_way = way_out
        .iter()
        .map(|at| (origin, *at, Hook::Egress))
        .chain(way_in.map(|port| (bridge, port, Hook::Ingress)))
        .chain(believing.iter().map(|port| (bridge, *port, Hook::Egress)));
    let idle: Vec<_> = on_the_way
        .filter_map(|(network, at, hook)| Some((at, network.fixer_at(at.ifindex, hook)?)))
        .collect();
    let place = origin.place(&interface.name);
    let is_sure = !ports.is_empty() && !facts.misses(MENDERS);
    let likelihood = match idle.iter().any(|(_, fixer)| fixer.effect == Effect::Unknown) {
        true => Likelihood::Note,
        false if is_sure && !is_framed => Likelihood::Likely,
        false => Likelihood::Possible,
    };
    let headline = match (likelihood, is_framed) {
        (Likelihood::Note, _) => {
            format!("replies that leave {place} may have unfinished UDP checksums")
        }
        (_, true) => {
            format!("replies to clients that renew leave {place} with unfinished UDP checksums")
        }
        (_, false) => format!("replies that leave {place} have unfinished UDP checksums"),
    };
    let mut finding =
        Finding::new(facts.at_most(serving, likelihood), &place, headline).seen(format!(
            "{}; {} promises checksums (tx-checksumming on)",
            facts.label(serving),
            interface.name
        ));
    if is_framed {
        finding = finding.seen(
            "it writes frames to clients without an address itself, and has the kernel send the rest",
        );
    }
    finding = finding.seen(match facts.misses(MENDERS) {
        true => "whether a CHECKSUM rule, a tc filter or fixer finishes them could not be seen",
        false if idle.is_empty() => "no CHECKSUM rule, no tc filter with action csum, no fixer",
        false => "no CHECKSUM rule, no tc filter with action csum",
    });
    for (at, fixer) in idle.iter().take(4) {
        finding = finding.seen(format!("{} is at {}: {}", fixer.label(), at.name, fixer.effect));
    }
    if !believing.is_empty() {
        let names: Vec<_> = believing.iter().take(8).map(|port| port.name.as_str()).collect();
        finding = finding.seen(format!("ports that pass them on so: {}", names.join(", ")));
    }
    let finding = finding.means(match is_framed {
        true if server.broadcasts() => {
            "guests that verify checksums and want a broadcast get no lease, and others cannot keep it"
        }
        true => "guests that verify checksums get a lease and cannot keep it: its renewal is not heard",
        false => "guests that verify checksums drop every offer: \"bad udp cksum\" in their logs",
    });
    Some(attach(origin, interface, finding))
}

/// Whether something finishes sums at a hook of an interface.
fn mends(network: &Network, interface: &Interface, hook: Hook) -> bool {
    network.fixes(interface.ifindex, hook)
        || (hook == Hook::Egress && network.summing.contains(&interface.ifindex))
}

/// With how fixer comes to the egress of an interface, whatever of its own is there.
pub(super) fn attach(network: &Network, interface: &Interface, finding: Finding) -> Finding {
    let attach = network.fixer("fixer attach", &interface.name, "");
    let holder = network.fixer_at(interface.ifindex, Hook::Egress).map(|fixer| fixer.holder);
    match holder {
        None => finding.remedy(attach),
        Some(Holder::Attach(_) | Holder::Nobody) => {
            let detach = network.fixer("fixer detach", &interface.name, "");
            finding.remedy(detach.with("; ").with(attach))
        }
        Some(Holder::Run(pid)) => finding
            .remedy(
                Remedy::line("kill {}", &[&pid.to_string()])
                    .remark("fixer run; or have it finish the sums of DHCP by its own options"),
            )
            .remedy(attach),
        Some(Holder::Elsewhere | Holder::Unknown) => finding
            .remedy(Remedy::from("fixer status").remark("as root: end who holds it"))
            .remedy(attach),
    }
}

/// Where sums are partial, whether the rule that others use could be had.
pub fn no_rule_possible(facts: &Facts) -> Vec<Finding> {
    let was_heard = |facts: &Facts| {
        facts.heard.iter().flat_map(|heard| &heard.sums).any(|sums| sums.partial > 0)
    };
    let needs_it = !partial(facts).is_empty() || was_heard(facts);
    let Some(network) = facts.networks.first().filter(|_| needs_it) else { return Vec::new() };
    let version = program::ask(&network.netns, "iptables", &["--version"]);
    let reason = match version.as_ref().map(|said| said.as_deref().map(version_of)) {
        None => Some("there is no iptables here, and nftables has no such statement".to_owned()),
        Some(Ok(Some(version))) if version < [1, 4, 10] => {
            let [major, minor, patch] = version;
            Some(format!("iptables {major}.{minor}.{patch} is older than 1.4.10"))
        }
        _ if !has_extension() => Some("iptables has no libxt_CHECKSUM.so".to_owned()),
        _ if !has_module() => Some(format!("Linux {} has no module xt_CHECKSUM", kernel())),
        _ => None,
    };
    let finding = |reason: String| {
        Finding::new(Likelihood::Note, "", "a CHECKSUM rule is not possible here")
            .seen(reason)
            .means(format!("this cannot be used: {RULE}"))
    };
    reason.map(finding).into_iter().collect()
}

/// The version in `iptables v1.8.9 (nf_tables)`.
fn version_of(said: &str) -> Option<[u32; 3]> {
    let word = said.split_whitespace().find_map(|word| word.strip_prefix('v'))?;
    let mut numbers = word.split('.').map(|part| part.parse().unwrap_or(0));
    Some([numbers.next()?, numbers.next()?, numbers.next().unwrap_or(0)])
}

/// Whether iptables can be told of the target.
fn has_extension() -> bool {
    const ROOTS: [&str; 4] = ["/usr/lib", "/usr/lib64", "/lib", "/usr/local/lib"];
    let places = ROOTS.iter().flat_map(|root| {
        let architectures = fs::read_dir(root).into_iter().flatten().flatten();
        let below = architectures.map(|entry| entry.path());
        below.chain([Path::new(root).to_owned()])
    });
    places.map(|place| place.join("xtables/libxt_CHECKSUM.so")).any(|file| file.exists())
}

/// Whether the kernel has the target, as far as can be told: without a list of its modules it may be
/// built in.
fn has_module() -> bool {
    may_have_module(&Path::new("/lib/modules").join(kernel()))
        || Path::new("/sys/module/xt_CHECKSUM").exists()
}

/// The same by the lists in the directory of the kernel's modules.
fn may_have_module(directory: &Path) -> bool {
    let lists = ["modules.dep", "modules.builtin"];
    let lists: Vec<_> =
        lists.iter().filter_map(|list| fs::read_to_string(directory.join(list)).ok()).collect();
    lists.is_empty() || lists.iter().any(|list| list.contains("/xt_CHECKSUM.ko"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_of_a_kernel_tell_whether_it_has_the_module() {
        let directory = tempfile::tempdir().unwrap();
        let write = |list: &str, text: &str| fs::write(directory.path().join(list), text).unwrap();
        assert!(may_have_module(directory.path()), "without lists it may be built in");
        write("modules.dep", "kernel/net/netfilter/xt_mark.ko: kernel/net/netfilter/x_tables.ko\n");
        assert!(!may_have_module(directory.path()));
        write("modules.builtin", "kernel/net/netfilter/xt_CHECKSUM.ko\n");
        assert!(may_have_module(directory.path()));
        write("modules.builtin", "");
        write("modules.dep", "kernel/net/netfilter/xt_CHECKSUM.ko.xz: x\n");
        assert!(may_have_module(directory.path()));
    }

    #[test]
    fn iptables_tells_its_version() {
        assert_eq!(version_of("iptables v1.8.9 (nf_tables)\n"), Some([1, 8, 9]));
        assert_eq!(version_of("iptables v1.4.7"), Some([1, 4, 7]));
        assert_eq!(version_of("iptables v1.4"), Some([1, 4, 0]));
        assert_eq!(version_of("no such thing"), None);
        assert!([1, 4, 7] < [1, 4, 10] && [1, 8, 0] > [1, 4, 10]);
    }
}
