//! `fixer status`: what is attached, who holds it, and what it has counted.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::{Outcome, checks};
use crate::{
    bpf::{
        counters::Row,
        resident::{Holder, Resident, settled},
    },
    cli,
    names::shown,
    net::{netns::NetNs, turn::Turn},
    privileges,
    say::print,
    summary::counts,
};

/// Prints a table with a line, or an array with an object, for every hook that is attached.
pub fn run(args: &cli::Status) -> Result<Outcome> {
    checks::privileges(privileges::TO_LOOK, &args.select, None)?;
    let mut entries = Vec::new();
    let namespaces = checks::namespaces(&args.select)?;
    checks::every_name_is_somewhere(&args.select, &namespaces)?;
    for netns in namespaces {
        let turn = netns.run(Turn::take).flatten().context("cannot lock the namespace")?;
        checks::tell_halfway(&netns, &turn)?;
        drop(turn);
        let look = |links: &[(u32, &str)]| settled(links.iter().copied());
        for there in checks::attached(&args.select, args.hook, &netns, look)? {
            let counted = there.counted().context("cannot read the counters")?;
            entries.push(Entry { netns: netns.clone(), there, counted });
        }
    }
    if args.json {
        let entries: Vec<_> = entries.iter().map(Entry::as_json).collect();
        print(format_args!("{}\n", serde_json::to_string(&entries)?))?;
    } else if entries.is_empty() {
        print("nothing is attached\n")?;
    } else {
        let may_be_many = args.select.netns.len() > 1 || args.select.globs().next().is_some();
        print(table(&entries, may_be_many))?;
    }
    Ok(Outcome::Done)
}

/// A hook that is attached.
struct Entry {
    netns: NetNs,
    there: Resident,
    counted: Option<Row>,
}

/// The same as JSON.
#[derive(Serialize)]
struct Json<'a> {
    netns: &'a str,
    interface: String,
    ifindex: u32,
    hook: &'a str,
    mode: &'a str,
    held_by: &'a str,
    pid: Option<u32>,
    abi: Option<u32>,
    /// Every verdict, also those that were never given.
    packets: BTreeMap<&'static str, u64>,
}

impl Entry {
    fn as_json(&self) -> Json<'_> {
        let Self { netns, there, counted } = self;
        let packets = counted.unwrap_or_else(|| Row::of(there.ifindex, there.hook, &[]));
        let (pid, abi) = match there.holder {
            Holder::Run(pid) => (Some(pid), None),
            Holder::Attach(version) => (None, Some(version)),
            Holder::Elsewhere | Holder::Unknown | Holder::Nobody => (None, None),
        };
        Json {
            netns: netns.label(),
            interface: shown(&there.interface),
            ifindex: there.ifindex,
            hook: there.hook.name(),
            mode: there.mode().name(),
            held_by: there.holder.name(),
            pid,
            abi,
            packets: packets.counts().map(|(verdict, count)| (verdict.name(), count)).collect(),
        }
    }

    /// Its cells, in the order of [`TITLES`].
    fn cells(&self) -> [String; 6] {
        let Self { netns, there, counted } = self;
        let counted = counted.as_ref().map(counts).filter(|counted| !counted.is_empty());
        [
            netns.label().to_string(),
            shown(&there.interface),
            there.hook.name().to_owned(),
            there.mode().name().to_owned(),
            there.holder.to_string(),
            counted.unwrap_or_else(|| "no packet matched yet".to_owned()),
        ]
    }
}

const TITLES: [&str; 6] = ["NETNS", "INTERFACE", "HOOK", "MODE", "HELD BY", "PACKETS"];

/// A line of titles and a line for each entry, in columns. The namespace is a column where there may
/// be several.
fn table(entries: &[Entry], with_netns: bool) -> String {
    let mut rows = vec![TITLES.map(str::to_owned)];
    rows.extend(entries.iter().map(Entry::cells));
    let first = usize::from(!with_netns);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<_> = (0..TITLES.len()).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).skip(first);
        let line: Vec<_> = cells.map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}
