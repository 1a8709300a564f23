//! Real DHCP clients against real servers, over the bridge, without fixer and with it.
//!
//! The [`clients`] and the [`servers`] are one table each. A [`trial`] plays one pair of them on a
//! [`stage`], on every kind of [`wire`], each [`program`] in a sandbox and a strict [`observer`] beside
//! the client. The [`matrix`] says what came of it, and whether that is as it must be.

pub mod clients;
pub mod matrix;
pub mod observer;
pub mod program;
pub mod servers;
pub mod stage;
pub mod trial;
pub mod wire;

use std::{
    collections::BTreeSet,
    fmt,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use anyhow::{Context as _, Result};

use clients::{CLIENTS, Client, Kind};
use program::Programs;
use servers::{SERVERS, Server};
use trial::Trial;

use crate::tshark;

/// What `fixer run` is started with: everything that a pair needs to have fixed.
pub const FIXER: &[&str] = &["--match", "dhcp,dhcpv6"];

/// How many pairs play at the same time. Each has namespaces of its own and mostly waits.
const AT_ONCE: usize = 3;

/// Which of the two protocols is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// DHCP over IPv4 (RFC 2131).
    Dhcpv4,
    /// DHCP over IPv6 (RFC 8415).
    Dhcpv6,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Dhcpv4 => "DHCPv4",
            Self::Dhcpv6 => "DHCPv6",
        })
    }
}

/// A client and a server of the same protocol.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// Who asks.
    pub client: &'static Client,
    /// Who answers.
    pub server: &'static Server,
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} with {}", self.client.protocol, self.client.name, self.server.name)
    }
}

/// Every pair of these names; `None` is any.
pub fn pairs(client: Option<&str>, server: Option<&str>) -> Vec<Pair> {
    let wanted = |name: &str, filter: Option<&str>| filter.is_none_or(|filter| filter == name);
    let mut pairs = Vec::new();
    for client in CLIENTS.iter().filter(|row| wanted(row.name, client)) {
        for server in SERVERS.iter().filter(|row| wanted(row.name, server)) {
            if client.protocol == server.protocol {
                pairs.push(Pair { client, server });
            }
        }
    }
    pairs
}

/// The Debian packages of the clients and servers that are not here, and of tshark.
pub fn lacking() -> Result<BTreeSet<&'static str>> {
    let programs = Programs::open()?;
    let clients = CLIENTS.iter().filter_map(|client| match &client.kind {
        Kind::Strict => None,
        Kind::Program(recipe) => Some(recipe),
    });
    let servers = SERVERS.iter().map(|server| &server.recipe);
    let recipes = clients.chain(servers).chain([&tshark::RECIPE]);
    Ok(recipes.filter(|recipe| !programs.has(recipe)).map(|recipe| recipe.package).collect())
}

/// Plays these pairs, some at a time, and hands over what came of each, in their order. `fixer` is
/// what fixer is started with; `done` hears of every pair that is over.
pub fn play(
    pairs: &[Pair],
    fixer: &'static [&'static str],
    done: impl Fn(&Trial) + Sync,
) -> Result<Vec<Trial>> {
    let programs = Programs::open()?;
    let next = AtomicUsize::new(0);
    let work = || {
        let mut played = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(&pair) = pairs.get(at) else { return Ok(played) };
            let trial = trial::play(&programs, pair, fixer).with_context(|| pair.to_string())?;
            done(&trial);
            played.push((at, trial));
        }
    };
    let mut played: Vec<(usize, Trial)> = Vec::new();
    thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            let trials: Result<_> =
                worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            played.extend::<Vec<_>>(trials?);
        }
        Ok(())
    })?;
    played.sort_by_key(|(at, _)| *at);
    Ok(played.into_iter().map(|(_, trial)| trial).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_speaks_one_protocol() {
        let all = pairs(None, None);
        assert!(all.iter().all(|pair| pair.client.protocol == pair.server.protocol));
        for (rows, pairs) in [
            (CLIENTS.len(), all.iter().map(|p| (p.client.name, p.client.protocol as u8)).collect()),
            (SERVERS.len(), all.iter().map(|p| (p.server.name, p.server.protocol as u8)).collect()),
        ] {
            let distinct: BTreeSet<(&str, u8)> = pairs;
            assert_eq!(distinct.len(), rows, "a row that is in no pair, or two of one name");
        }
    }

    #[test]
    fn a_name_picks_its_rows() {
        let picked = pairs(Some("dhclient"), Some("dnsmasq"));
        let protocols: Vec<_> = picked.iter().map(|pair| pair.client.protocol).collect();
        assert_eq!(protocols, [Protocol::Dhcpv4, Protocol::Dhcpv6]);
        assert!(pairs(Some("nobody"), None).is_empty());
    }
}
