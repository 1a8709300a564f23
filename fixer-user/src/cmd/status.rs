//! `fixer status`: what `fixer attach` left attached, with its counters.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::{Outcome, checks};
use crate::{
    bpf::{counters::Row, pin::Pins},
    cli,
    net::{links, netns::NetNs},
    privileges,
    site::place,
    summary::counts,
};

/// Prints a line or an object for every hook that is attached.
pub fn run(args: &cli::Status) -> Result<Outcome> {
    checks::privileges(privileges::TO_LOOK, &args.select, None)?;
    let selection = args.select.selection();
    let mut entries = Vec::new();
    for netns in checks::namespaces(&args.select)? {
        let pins = Pins::of(&netns)?;
        let links = links::list(&netns)
            .with_context(|| format!("cannot list the interfaces of '{netns}'"))?;
        let counters = pins.counters()?;
        for pinned in pins.list()? {
            if !args.hook.each().contains(&pinned.hook) {
                continue;
            }
            let Some(link) = links.iter().find(|link| link.ifindex == pinned.ifindex) else {
                continue;
            };
            if (selection.auto || !selection.patterns.is_empty()) && !selection.means(link) {
                continue;
            }
            if !netns.run(|| pins.is_alive(&pinned, &link.name))?? {
                continue;
            }
            let here = |row: &&Row| (row.ifindex, row.hook) == (pinned.ifindex, pinned.hook);
            entries.push(Entry {
                netns: netns.clone(),
                interface: link.name.clone(),
                ifindex: link.ifindex,
                hook: pinned.hook.name(),
                mode: pinned.mode().name(),
                counted: counters.iter().find(here).copied(),
            });
        }
    }
    if args.json {
        let entries: Vec<_> = entries.iter().map(Entry::as_json).collect();
        println!("{}", serde_json::to_string(&entries)?);
    } else if entries.is_empty() {
        println!("nothing is attached");
    } else {
        entries.iter().for_each(Entry::print);
    }
    Ok(Outcome::Done)
}

/// A hook that is attached.
struct Entry {
    netns: NetNs,
    interface: String,
    ifindex: u32,
    hook: &'static str,
    mode: &'static str,
    counted: Option<Row>,
}

/// The same as JSON.
#[derive(Serialize)]
struct Json<'a> {
    netns: &'a str,
    interface: &'a str,
    ifindex: u32,
    hook: &'a str,
    mode: &'a str,
    packets: BTreeMap<&'static str, u64>,
}

impl Entry {
    fn as_json(&self) -> Json<'_> {
        let packets = self.counted.iter().flat_map(Row::counts);
        Json {
            netns: self.netns.label(),
            interface: &self.interface,
            ifindex: self.ifindex,
            hook: self.hook,
            mode: self.mode,
            packets: packets.map(|(verdict, count)| (verdict.name(), count)).collect(),
        }
    }

    fn print(&self) {
        let place = place(&self.netns, &self.interface);
        let counted = self.counted.as_ref().map(counts).filter(|counted| !counted.is_empty());
        let counted = counted.as_deref().unwrap_or("no packet matched yet");
        println!("{place} {} ({}): {counted}", self.hook, self.mode);
    }
}
