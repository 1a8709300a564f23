//! What fixer has in the kernel at the moment, of this soak and of nobody else's.
//!
//! Whatever the soak starts has a rule among its rules that nobody else has. It stands in the read-only
//! data of each program, so a program is known for ours wherever it hangs, or if it hangs nowhere.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::Result;
use aya::programs::{loaded_links, loaded_programs};
use fixer_common::{
    abi::program,
    rule::{Kind, Kinds, Rule},
};
use fixer_user::net::netns::NetNs;
use serde::Serialize;
use zerocopy::IntoBytes as _;

use super::line::Line;
use crate::{bpf::only_value, command::hooks, mounts::PINS};

/// The rule that tells what is ours.
#[derive(Clone, Copy, Debug)]
pub struct Marker {
    from: u16,
    to: u16,
}

/// How many of each there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Loaded {
    /// Programs.
    pub programs: usize,
    /// The maps of these programs.
    pub maps: usize,
    /// The links that hold these programs.
    pub links: usize,
}

impl Marker {
    /// A rule about two ports at random, between those that are given out.
    pub fn at_random() -> Self {
        Self { from: fastrand::u16(1024..), to: fastrand::u16(1024..) }
    }

    /// As `--match` takes it.
    pub fn rule(self) -> String {
        format!("udp:{}:{}", self.from, self.to)
    }

    /// Looks through all that is loaded. What goes away meanwhile is not counted.
    pub fn loaded(self) -> Loaded {
        let rule = Rule::new(Kinds::of(&[Kind::Udp4]), Some(self.from), Some(self.to));
        let names = [program::EGRESS, program::INGRESS];
        let mut programs = BTreeSet::new();
        let mut maps = BTreeSet::new();
        for program in loaded_programs().flatten() {
            if !names.iter().any(|name| name.as_bytes() == program.name()) {
                continue;
            }
            let used = program.map_ids().ok().flatten().unwrap_or_default();
            let has_rule = |map: &u32| {
                only_value(*map).is_ok_and(|value| {
                    let filter = rule.filter.as_bytes();
                    value.windows(filter.len()).any(|window| window == filter)
                })
            };
            if used.iter().any(has_rule) {
                programs.insert(program.id());
                maps.extend(used);
            }
        }
        let links = loaded_links().flatten().filter(|link| programs.contains(&link.program_id()));
        Loaded { programs: programs.len(), maps: maps.len(), links: links.count() }
    }
}

/// What is left at the bridges, in their namespaces, and pinned. One sentence for each.
pub fn behind(lines: &[&Line]) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for Line { host, bridge, .. } in lines {
        for hook in hooks(host, bridge)? {
            left.push(format!("left at {bridge}: {hook}"));
        }
        for socket in claims(host)? {
            left.push(format!("left beside {bridge}: the socket {socket}"));
        }
    }
    if Path::new(PINS).exists() {
        left.push(format!("left below {PINS}: {}", pinned(Path::new(PINS))?.join(", ")));
    }
    Ok(left)
}

/// The sockets by which running fixers know each other.
fn claims(netns: &NetNs) -> Result<Vec<String>> {
    let sockets = netns.run(|| fs::read_to_string("/proc/thread-self/net/unix"))??;
    let names = sockets.lines().filter_map(|line| Some(line.split_once(" @fixer-run-")?.1));
    Ok(names.map(str::to_owned).collect())
}

fn pinned(directory: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        match path.is_dir() {
            true => found.extend(pinned(&path)?),
            false => found.push(path.display().to_string()),
        }
    }
    Ok(found)
}
