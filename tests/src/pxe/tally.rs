//! What a running fixer says of the packets that it saw, counted.

use std::{collections::BTreeMap, fmt};

use anyhow::{Context as _, Result, ensure};
use fixer_common::verdict::Verdict;
use fixer_user::net::netns::NetNs;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::command::{Running, fixer};

/// A DHCP server's port.
const DHCP_SERVER: u64 = 67;

/// A running `fixer run`.
#[derive(Debug)]
pub struct Fixer(Running);

impl Fixer {
    /// Starts it with these arguments, the interfaces among them, and waits until it is attached to
    /// each.
    pub fn start(netns: &NetNs, arguments: &[&str]) -> Result<Self> {
        // The guest is what proves the fix here.
        let always = ["run", "--events", "json", "--all", "--metrics", "off", "--skip-selftest"];
        let mut running = Running::start(netns, fixer(&[&always, arguments].concat())?)?;
        for _ in arguments.iter().filter(|argument| **argument == "-i") {
            running.stderr.wait("attached to")?;
        }
        Ok(Self(running))
    }

    /// Ends it, and counts what it said.
    pub fn stop(self) -> Result<Tally> {
        let ended = self.0.stop(Signal::SIGINT)?.ok()?;
        let mut tally = Tally::default();
        for line in &ended.stdout {
            tally.add(line).with_context(|| format!("`fixer run` said: {line}"))?;
        }
        Ok(tally)
    }
}

/// Packets by where they were seen, by what became of them, and whether a DHCP server sent them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally(BTreeMap<Kind, usize>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    place: String,
    verdict: String,
    dhcp: bool,
}

impl Tally {
    /// Packets of a DHCP server with this verdict.
    pub fn dhcp(&self, verdict: Verdict) -> usize {
        self.sum(|kind| kind.dhcp && kind.verdict == verdict.name())
    }

    /// Packets of others with this verdict.
    pub fn other(&self, verdict: Verdict) -> usize {
        self.sum(|kind| !kind.dhcp && kind.verdict == verdict.name())
    }

    /// Packets that no DHCP server sent.
    pub fn other_packets(&self) -> usize {
        self.sum(|kind| !kind.dhcp)
    }

    /// The same for programs.
    pub fn rows(&self) -> Value {
        let row = |(Kind { place, verdict, dhcp }, count): (&Kind, &usize)| json!({ "place": place, "verdict": verdict, "dhcp": dhcp, "packets": count });
        self.0.iter().map(row).collect()
    }

    fn sum(&self, wanted: impl Fn(&Kind) -> bool) -> usize {
        self.0.iter().filter(|(kind, _)| wanted(kind)).map(|(_, count)| count).sum()
    }

    fn add(&mut self, event: &str) -> Result<()> {
        let event: Value = serde_json::from_str(event)?;
        // How an exchange ended is told beside its packets, and what a guest asks is shown beside replies.
        if event.get("exchange").is_some() || event["dport"] == 67 {
            return Ok(());
        }
        ensure!(event.get("verdict").is_some(), "it lost events, so they cannot be counted");
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        let kind = Kind {
            place: format!("{} of {}", text("hook"), text("interface")),
            verdict: text("verdict"),
            dhcp: event["sport"] == DHCP_SERVER,
        };
        *self.0.entry(kind).or_default() += 1;
        Ok(())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing");
        }
        for (number, (Kind { place, verdict, dhcp }, count)) in self.0.iter().enumerate() {
            let separator = if number == 0 { "" } else { ", " };
            let what = if *dhcp { "DHCP" } else { "other" };
            write!(f, "{separator}{count} {what} {verdict} at {place}")?;
        }
        Ok(())
    }
}
