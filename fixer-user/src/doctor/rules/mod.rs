//! The firewall: its rules, and what becomes of a packet that walks through them.

mod legacy;
mod nft;
mod question;
mod walk;
mod words;

use std::io;

use serde_json::Value;

pub use question::Packet;
pub use walk::{Stop, Verdict, Walk};

use super::program;
use crate::net::netns::NetNs;

/// Every rule of a namespace.
#[derive(Clone, Debug, Default)]
pub struct Ruleset {
    chains: Vec<Chain>,
    /// The named sets: family, table and name, and what is in them.
    sets: Vec<([String; 3], Value)>,
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
    device: Option<String>,
}

impl Chain {
    /// Whether it is in one of the tables that the new iptables keeps in nftables.
    fn is_of_iptables(&self) -> bool {
        const TABLES: [&str; 5] = ["raw", "mangle", "nat", "filter", "security"];
        self.family == "ip" && TABLES.contains(&self.table.as_str())
    }
}

impl Ruleset {
    /// Reads the rules of a namespace. `None`: neither nftables nor iptables is installed, so nobody
    /// can have made any. It makes no table and loads none.
    pub fn read(netns: &NetNs) -> io::Result<Option<Self>> {
        let mut ruleset = Self::default();
        let mut is_known = false;
        if let Some(listing) = program::ask(netns, "nft", &["-j", "list", "ruleset"]) {
            nft::read(&listing?, &mut ruleset)?;
            is_known = true;
            if ruleset.hides_matches()
                && let Some(listing) = program::ask(netns, "iptables-nft-save", &[])
            {
                ruleset.chains.retain(|chain| !chain.is_of_iptables());
                legacy::read(&listing?, false, &mut ruleset);
            }
        } else if let Some(listing) = program::ask(netns, "iptables-nft-save", &[]) {
            legacy::read(&listing?, false, &mut ruleset);
            is_known = true;
        }
        // Asked about a table that is not there, the old iptables would make it.
        let tables =
            netns.run(|| std::fs::read_to_string("/proc/thread-self/net/ip_tables_names"))?;
        if tables.is_ok_and(|tables| !tables.trim().is_empty()) {
            let listing = program::ask(netns, "iptables-legacy-save", &[])
                .or_else(|| program::ask(netns, "iptables-save", &[]));
            if let Some(listing) = listing {
                legacy::read(&listing?, true, &mut ruleset);
                is_known = true;
            }
        }
        Ok(is_known.then_some(ruleset))
    }

    /// Whether nft names matches of iptables without saying what they match.
    fn hides_matches(&self) -> bool {
        let is_match = |statement: &Value| {
            statement.get("xt").is_some_and(|match_or_target| match_or_target["type"] != "target")
        };
        let rules = self.chains.iter().filter(|chain| chain.is_of_iptables());
        rules.flat_map(|chain| &chain.rules).flatten().any(is_match)
    }

    /// Walks a packet through all chains of a hook, of these families.
    pub fn walk(&self, families: &[&str], hook: &str, packet: &Packet<'_>) -> Walk {
        walk::walk(self, families, hook, packet)
    }
}
