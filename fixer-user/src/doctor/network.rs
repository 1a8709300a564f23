//! One network namespace, as far as it can be read.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::Ipv4Addr,
};

use fixer_common::abi::Hook;

use super::{
    finding::{Source, Unseen},
    processes::Inode,
    rules::{Packet, Ruleset, Walk},
};
use crate::{
    bpf::resident,
    net::{
        inspect::{self, Interface},
        netns::{HOST, NetNs},
        offload,
        summing::summing,
    },
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
    /// Where fixer is attached.
    pub fixers: Option<BTreeSet<(u32, Hook)>>,
    /// Its firewall.
    pub rules: Option<Ruleset>,
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
        let fixers = fixers(&netns, &interfaces)
            .map_err(|error| {
                let what = format!("whether fixer is attached in '{netns}': {error}; run as root");
                miss(Source::Fixers, what);
            })
            .ok();
        let rules = match Ruleset::read(&netns) {
            Ok(rules) => Some(rules.unwrap_or_default()),
            Err(error) => {
                let what = format!("the firewall of '{netns}': {error}; run as root");
                miss(Source::Firewall, what);
                None
            }
        };
        let selected = BTreeSet::new();
        Self { netns, inode, interfaces, selected, promises, summing, fixers, rules }
    }

    /// An interface by its index.
    pub fn interface(&self, ifindex: u32) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.ifindex == ifindex)
    }

    /// An interface by its name.
    pub fn named(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.name == name)
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

    /// How an interface is called in findings.
    pub fn place(&self, interface: &str) -> String {
        match &**self.netns.label() {
            HOST => interface.to_owned(),
            label => format!("{label}/{interface}"),
        }
    }

    /// What a command has to begin with to act in this namespace.
    pub fn within(&self) -> String {
        match &**self.netns.label() {
            HOST => String::new(),
            label => match label.strip_prefix("pid:") {
                Some(pid) => format!("nsenter -t {pid} -n "),
                None if label.contains('/') => format!("nsenter --net={label} "),
                None => format!("ip netns exec {label} "),
            },
        }
    }

    /// What a command of fixer's needs to act in this namespace.
    pub fn option(&self) -> String {
        match &**self.netns.label() {
            HOST => String::new(),
            label => format!(" --netns {label}"),
        }
    }

    /// Whether fixer is attached to a hook of an interface.
    pub fn has_fixer(&self, ifindex: u32, hook: Hook) -> bool {
        self.fixers.as_ref().is_some_and(|fixers| fixers.contains(&(ifindex, hook)))
    }

    /// A setting of the kernel below `/proc/sys/net`.
    pub fn setting(&self, path: &str) -> Option<i64> {
        let read = || fs::read_to_string(format!("/proc/sys/net/{path}"));
        self.netns.run(read).ok()?.ok()?.trim().parse().ok()
    }

    /// A server's reply through the rules, on its way out of an interface.
    pub fn reply_out(&self, interface: &Interface) -> Option<[Walk; 2]> {
        let rules = self.rules.as_ref()?;
        let server = interface.addresses.first().map_or(Ipv4Addr::UNSPECIFIED, |(at, _)| *at);
        let packet = Packet {
            iif: None,
            oif: Some(&interface.name),
            bridge: None,
            addresses: [server, Ipv4Addr::BROADCAST],
            ports: [67, 68],
        };
        Some(["output", "postrouting"].map(|hook| rules.walk(&["ip", "inet"], hook, &packet)))
    }
}

fn fixers(netns: &NetNs, interfaces: &[Interface]) -> std::io::Result<BTreeSet<(u32, Hook)>> {
    netns.run(|| {
        let mut found = BTreeSet::new();
        for interface in interfaces {
            for hook in [Hook::Egress, Hook::Ingress] {
                match resident::attached(&interface.name, hook) {
                    Ok(Some(_)) => drop(found.insert((interface.ifindex, hook))),
                    Ok(None) => {}
                    // It went away since it was listed.
                    Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(found)
    })?
}
