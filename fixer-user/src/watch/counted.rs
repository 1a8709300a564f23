//! What was counted since a watcher began.
//!
//! The maps of counters are kept open, so what they hold can be read for as long as that, also if the
//! programs are replaced. Who detaches takes out what was counted there: then the last look counts, and
//! every event that was seen.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::Result;
use fixer_common::abi::Hook;

use super::Ground;
use crate::{
    bpf::{
        counters::{Counters, Row},
        resident::{Resident, residents},
    },
    event::Sample,
    net::links,
};

/// The events that were seen, counted. Shared by all clones.
#[derive(Clone, Default)]
pub(super) struct Events(Arc<Mutex<Rows>>);

impl Events {
    /// One more was seen.
    pub(super) fn saw(&self, sample: &Sample) {
        let one = Row::of(sample.ifindex, sample.hook, &[(sample.verdict, 1)]);
        let key = (sample.ifindex, sample.hook);
        self.rows().entry(key).and_modify(|row| row.add(&one)).or_insert(one);
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The maps that are read, by their ids.
#[derive(Default)]
pub(super) struct Counted(BTreeMap<u32, Seen>);

struct Seen {
    map: Counters,
    before: Rows,
    now: Rows,
}

type Rows = BTreeMap<(u32, Hook), Row>;

impl Seen {
    fn open(id: u32) -> Option<Self> {
        let map = Counters::open(id).ok()?;
        Some(Self { map, before: Rows::new(), now: Rows::new() })
    }

    fn look(&mut self) {
        let rows = self.map.rows().unwrap_or_default();
        self.now.extend(rows.into_iter().map(|row| ((row.ifindex, row.hook), row)));
    }
}

impl Counted {
    /// Counts from now on what these count.
    pub(super) fn begin(residents: &[Resident]) -> Self {
        let mut counted = Self::default();
        for id in residents.iter().filter_map(|there| there.counters) {
            if let Some(mut seen) = Seen::open(id) {
                seen.look();
                seen.before = seen.now.clone();
                counted.0.insert(id, seen);
            }
        }
        counted
    }

    /// Reads the maps.
    pub(super) fn look(&mut self) {
        self.0.values_mut().for_each(Seen::look);
    }

    /// Counts what programs have counted that have replaced others since.
    pub(super) fn find_new(&mut self, ground: &Ground) -> Result<()> {
        let links = links::list(&ground.netns)?;
        let names = links.iter().map(|link| (link.ifindex, link.name.as_str()));
        let is_watched =
            |there: &&Resident| ground.residents.iter().any(|before| before.holder == there.holder);
        let there = ground.netns.run(|| residents(names))??;
        for id in there.iter().filter(is_watched).filter_map(|there| there.counters) {
            if !self.0.contains_key(&id) {
                self.0.extend(Seen::open(id).map(|seen| (id, seen)));
            }
        }
        Ok(())
    }

    /// What was counted at each hook, if anything was.
    pub(super) fn rows(&self, seen_events: &Events) -> impl Iterator<Item = Row> + use<> {
        let mut sums = Rows::new();
        for seen in self.0.values() {
            for (key, now) in &seen.now {
                let new = seen.before.get(key).map_or(*now, |before| now.since(before));
                if !new.is_empty() {
                    sums.entry(*key).and_modify(|sum| sum.add(&new)).or_insert(new);
                }
            }
        }
        for (key, row) in seen_events.rows().iter() {
            sums.entry(*key).and_modify(|sum| sum.raise(row)).or_insert(*row);
        }
        sums.into_values()
    }
}
