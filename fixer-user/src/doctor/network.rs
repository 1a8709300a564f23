//! One network namespace, as far as it can be read.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::Ipv4Addr,
};

use fixer_common::abi::Hook;

use super::{
    finding::{Source, Unseen},
    fixers::{self, Effect, Fixer},
    processes::Inode,
    remedy::Remedy,
    rules::{Packet, Ruleset, Walk},
};
use crate::net::{
    inspect::{self, Interface},
    netns::{HOST, NetNs},
    offload,
    summing::summing,
};

/// A network namespace.
pub struct Network {
    /// The namespace.
    pub netns: NetNs,
    /// The inode of its file.
    pub inode: Inode,
    /// Its interfaces.
    pub interfaces: Vec<Interface>,
    /// The bridges, or other interfaces, that are looked at, by index.
    pub selected: BTreeSet<u32>,
    /// Whether each interface promises to finish checksums later, by name.
    pub promises: Option<BTreeMap<String, bool>>,
    /// Interfaces with a filter of tc that finishes checksums.
    pub summing: BTreeSet<u32>,
    /// What of fixer's is attached.
    pub fixers: Option<Vec<Fixer>>,
    /// Its firewall, as far as it can be read.
    pub rules: Ruleset,
}

impl Network {
    /// Reads everything that can be read. What cannot goes to `unseen`.
    pub fn read(netns: NetNs, unseen: &mut Vec<Unseen>) -> Self {
        let mut miss = |source, what: String| unseen.push(Unseen { source, what });
        let inode = netns.identity().map_or(0, |(_, inode)| inode);
        let interfaces = inspect::interfaces(&netns).unwrap_or_else(|error| {
            miss(Source::Links, format!("the interfaces of '{netns}': {error}"));
            Vec::new()
        });
        let promises = offload::promises(&netns)
            .map_err(|error| {
                miss(Source::Offload, format!("which interfaces offload checksums: {error}"));
            })
            .ok();
        let indexes: Vec<_> = interfaces.iter().map(|interface| interface.ifindex).collect();
        let summing = summing(&netns, &indexes).unwrap_or_else(|error| {
            miss(Source::Filters, format!("the filters of tc in '{netns}': {error}"));
            BTreeSet::new()
        });
        let fixers = fixers::read(&netns, &interfaces)
            .map_err(|error| {
                let what = format!("whether fixer is attached in '{netns}': {error}; run as root");
                miss(Source::Fixers, what);
            })
            .ok();
        let (rules, unread) = Ruleset::read(&netns);
        for what in unread {
            miss(Source::Firewall, format!("the firewall of '{netns}': {what}"));
        }
        let selected = BTreeSet::new();
        Self { netns, inode, interfaces, selected, promises, summing, fixers, rules }
    }

    /// An interface by its index.
    pub fn interface(&self, ifindex: u32) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.ifindex == ifindex)
    }

    /// The interfaces that are looked at.
    pub fn selected(&self) -> impl Iterator<Item = &Interface> {
        self.interfaces.iter().filter(|interface| self.selected.contains(&interface.ifindex))
    }

    /// The bridges that are looked at.
    pub fn bridges(&self) -> impl Iterator<Item = (&Interface, inspect::Bridge)> {
        self.selected().filter_map(|interface| Some((interface, interface.bridge?)))
    }

    /// The ports of a bridge.
    pub fn ports(&self, bridge: u32) -> impl Iterator<Item = &Interface> {
        self.interfaces.iter().filter(move |interface| interface.controller == Some(bridge))
    }

    /// What a VLAN device is over, if that is here.
    pub fn below(&self, interface: &Interface) -> Option<&Interface> {
        self.interface(interface.tagged?.lower?)
    }

    /// How an interface is called in findings.
    pub fn place(&self, interface: &str) -> String {
        match &**self.netns.label() {
            HOST => interface.to_owned(),
            label => format!("{label}/{interface}"),
        }
    }

    /// A command that acts in this namespace, with a name in place of each `{}`.
    pub fn command(&self, line: &'static str, names: &[&str]) -> Remedy {
        let command = Remedy::line(line, names);
        let within = match &**self.netns.label() {
            HOST => return command,
            label => match label.strip_prefix("pid:") {
                Some(pid) => Remedy::line("nsenter -t {} -n ", &[pid]),
                None if label.contains('/') => Remedy::line("nsenter --net={} ", &[label]),
                None => Remedy::line("ip netns exec {} ", &[label]),
            },
        };
        within.with(command)
    }

    /// A command of fixer's about an interface of this namespace: its verb and the options before `-i`,
    /// and those behind it.
    pub fn fixer(&self, verb: &'static str, interface: &str, more: &'static str) -> Remedy {
        let command = Remedy::from(verb).with(Remedy::line(" -i {}", &[interface])).with(more);
        match &**self.netns.label() {
            HOST => command,
            label => command.with(Remedy::line(" --netns {}", &[label])),
        }
    }

    /// What of fixer's is at a hook of an interface.
    pub fn fixer_at(&self, ifindex: u32, hook: Hook) -> Option<&Fixer> {
        self.fixers.as_ref()?.iter().find(|fixer| (fixer.ifindex, fixer.hook) == (ifindex, hook))
    }

    /// Whether fixer finishes sums at a hook of an interface.
    pub fn fixes(&self, ifindex: u32, hook: Hook) -> bool {
        self.fixer_at(ifindex, hook).is_some_and(|fixer| fixer.effect == Effect::Fixes)
    }

    /// A setting of the kernel below `/proc/sys/net`.
    pub fn setting(&self, path: &str) -> Option<i64> {
        let read = || fs::read_to_string(format!("/proc/sys/net/{path}"));
        self.netns.run(read).ok()?.ok()?.trim().parse().ok()
    }

    /// A server's reply through the rules, on its way out of an interface.
    pub fn reply_out(&self, interface: &Interface) -> [Walk; 2] {
        let server = interface.addresses.first().map_or(Ipv4Addr::UNSPECIFIED, |(at, _)| *at);
        let packet = Packet {
            iif: None,
            oif: Some(&interface.name),
            bridge: None,
            addresses: [server, Ipv4Addr::BROADCAST],
            ports: [67, 68],
        };
        ["output", "postrouting"].map(|hook| self.rules.walk(&["ip", "inet"], hook, &packet))
    }
}

/// Whether an interface leads to other hosts. What leaves through it is finished by hardware, or by
/// what carries it, and no packet socket sees that.
pub fn leads_out(interface: &Interface) -> bool {
    const KINDS: [&str; 7] = ["vxlan", "vlan", "bond", "geneve", "gretap", "team", "ip6gretap"];
    let is_loopback = interface.name == "lo";
    // The frames of a bridge's own VLAN go where the bridge's do.
    let is_on_bridge = interface.tagged.is_some_and(|tagged| tagged.is_on_bridge);
    !is_on_bridge && interface.kind.as_deref().map_or(!is_loopback, |kind| KINDS.contains(&kind))
}
