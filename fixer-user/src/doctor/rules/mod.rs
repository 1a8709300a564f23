//! The firewall: its rules, and what becomes of a packet that walks through them.

mod ask;
mod known;
mod legacy;
mod nft;
mod options;
mod read;
mod walk;
mod words;

use serde_json::Value;

pub use known::Packet;
pub use walk::{Stop, Verdict, Walk};

use crate::net::netns::NetNs;

/// Who keeps its tables in nftables: a program, the family, and the tables.
const KEPT: [(&str, &str, &[&str]); 2] = [
    ("iptables", "ip", &["raw", "mangle", "nat", "filter", "security"]),
    ("ebtables", "bridge", &["broute", "nat", "filter"]),
];

/// Every rule of a namespace.
#[derive(Clone, Debug, Default)]
pub struct Ruleset {
    chains: Vec<Chain>,
    /// The named sets: family, table and name, and what is in them.
    sets: Vec<([String; 3], Value)>,
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Truth {
    No,
    Perhaps,
    Yes,
}

impl From<bool> for Truth {
    fn from(is_so: bool) -> Self {
        if is_so { Self::Yes } else { Self::No }
    }
}

/// A chain of rules.
#[derive(Clone, Debug, Default)]
struct Chain {
    family: String,
    table: String,
    name: String,
    /// Where packets enter it, if they do.
    hook: Option<Hook>,
    /// Whether it was made by the old iptables, to which other commands belong.
    is_legacy: bool,
    /// What is in each rule: statements as nftables' JSON has them.
    rules: Vec<Vec<Value>>,
}

/// Where packets enter a chain.
#[derive(Clone, Debug, Default)]
struct Hook {
    name: String,
    priority: i64,
    drops: bool,
    /// The devices that it is at; `None`: it is at no device alone.
    devices: Option<Vec<String>>,
}

impl Hook {
    /// Whether packets enter at some devices only.
    fn is_of_devices(&self) -> bool {
        ["ingress", "egress"].contains(&&*self.name)
    }
}

impl Chain {
    /// Whether it is at devices that were not told.
    fn hides_devices(&self) -> bool {
        self.hook.as_ref().is_some_and(|hook| hook.is_of_devices() && hook.devices.is_none())
    }
}

impl Ruleset {
    /// Reads the rules of a namespace, and says what could not be read of them.
    pub fn read(netns: &NetNs) -> (Self, Vec<String>) {
        read::read(netns)
    }

    /// Whether there is a chain whose name begins so.
    pub fn has_chain(&self, start: &str) -> bool {
        self.chains.iter().any(|chain| chain.name.starts_with(start))
    }

    /// A chain of the same table as another.
    fn beside(&self, chain: &Chain, name: &str) -> Option<&Chain> {
        let is_it = |other: &&Chain| {
            (&other.family, &other.table, other.is_legacy)
                == (&chain.family, &chain.table, chain.is_legacy)
                && other.name == name
        };
        self.chains.iter().find(is_it)
    }

    /// What is in a named set, or map, of a chain's table.
    fn elements(&self, chain: &Chain, name: &str) -> Option<&Value> {
        let names = [chain.family.as_str(), chain.table.as_str(), name];
        let found = self.sets.iter().find(|(key, _)| key.iter().eq(names.iter()));
        found.map(|(_, elements)| elements)
    }

    /// Walks a packet through all chains of a hook, of these families.
    pub fn walk(&self, families: &[&str], hook: &str, packet: &Packet<'_>) -> Walk {
        walk::walk(self, families, hook, packet)
    }
}
