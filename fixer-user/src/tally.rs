//! What was counted, by the names of the interfaces.
//!
//! The programs count by index. Whoever reads the metrics knows names, and an interface that is made
//! again, renamed, or given back and taken again must not make the counter of a name fall.

use std::{collections::BTreeMap, sync::Arc};

use fixer_common::abi::Hook;

use crate::{
    bpf::counters::{Generation, Row},
    names::Names,
};

/// How many names of interfaces that are gone keep their counters, for each hook. On a host whose
/// guests get a new name with every start they would else become more for ever.
const REMEMBERED: usize = 4096;

/// The part of the counters that is not, or no longer, in the programs' maps.
#[derive(Debug, Default)]
pub struct Tally {
    /// What was counted under a name by interfaces that are gone or have another name now.
    past: BTreeMap<(Arc<str>, Hook), Past>,
    /// What a map says of an interface and was counted under a name that it had before.
    before: BTreeMap<(Generation, u32, Hook), Row>,
    turn: u64,
}

#[derive(Debug)]
struct Past {
    row: Row,
    /// When it was added to for the last time.
    turn: u64,
}

impl Tally {
    /// An interface loses its name, and counts on: `row` is what a map says at this moment.
    pub fn rename(&mut self, name: Arc<str>, generation: Generation, row: Row) {
        let before = self.before.insert((generation, row.ifindex, row.hook), row);
        self.add(name, before.map_or(row, |before| row.since(&before)));
    }

    /// An interface counts no more: `row` was taken out of a map, or the map goes.
    pub fn end(&mut self, name: Arc<str>, generation: Generation, row: Row) {
        let before = self.before.remove(&(generation, row.ifindex, row.hook));
        self.add(name, before.map_or(row, |before| row.since(&before)));
    }

    /// What was counted under a name before all this.
    pub fn recall(&mut self, name: Arc<str>, row: Row) {
        self.add(name, row);
    }

    /// The counters by name and hook, together with what the maps say now.
    pub fn with(
        &self,
        rows: impl IntoIterator<Item = (Generation, Row)>,
        names: &Names,
    ) -> Vec<(Arc<str>, Row)> {
        let past = self.past.iter().map(|(key, past)| (key.clone(), past.row));
        let mut sums: BTreeMap<(Arc<str>, Hook), Row> = past.collect();
        for (generation, row) in rows {
            let before = self.before.get(&(generation, row.ifindex, row.hook));
            let new = before.map_or(row, |before| row.since(before));
            // Under a name that it got just now an interface has counted nothing yet.
            if before.is_none() || !new.is_empty() {
                let key = (names.get(row.ifindex), row.hook);
                sums.entry(key).and_modify(|sum| sum.add(&new)).or_insert(new);
            }
        }
        sums.into_iter().map(|((name, _), row)| (name, row)).collect()
    }

    fn add(&mut self, name: Arc<str>, row: Row) {
        if row.is_empty() {
            return;
        }
        self.turn += 1;
        let turn = self.turn;
        let entry = self.past.entry((name, row.hook));
        entry
            .and_modify(|past| {
                past.row.add(&row);
                past.turn = turn;
            })
            .or_insert(Past { row, turn });
        if self.past.len() > REMEMBERED {
            let oldest = self.past.iter().min_by_key(|(_, past)| past.turn);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.past.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use fixer_common::verdict::Verdict;

    use super::*;

    const FIRST: Generation = Generation::FIRST;

    fn row(ifindex: u32, fixed: u64) -> Row {
        Row::of(ifindex, Hook::Egress, &[(Verdict::Fixed, fixed)])
    }

    fn shown(tally: &Tally, rows: Vec<Row>, names: &Names) -> Vec<(String, u64)> {
        let shown = tally.with(rows.into_iter().map(|row| (FIRST, row)), names);
        shown.iter().map(|(name, row)| (name.to_string(), row.count(Verdict::Fixed))).collect()
    }

    #[test]
    fn a_name_keeps_what_was_counted_under_it() {
        let (mut tally, names) = (Tally::default(), Names::default());
        names.set(4, "tap0");
        assert_eq!(shown(&tally, vec![row(4, 3)], &names), [("tap0".to_owned(), 3)]);
        tally.rename("tap0".into(), FIRST, row(4, 3));
        names.set(4, "tap1");
        assert_eq!(shown(&tally, vec![row(4, 3)], &names), [("tap0".to_owned(), 3)]);
        let both = [("tap0".to_owned(), 3), ("tap1".to_owned(), 2)];
        assert_eq!(shown(&tally, vec![row(4, 5)], &names), both);
        // It gets its first name again, and then another with the second one comes.
        tally.rename("tap1".into(), FIRST, row(4, 5));
        names.set(4, "tap0");
        names.set(5, "tap1");
        let both = [("tap0".to_owned(), 4), ("tap1".to_owned(), 9)];
        assert_eq!(shown(&tally, vec![row(4, 6), row(5, 7)], &names), both);
        tally.end("tap0".into(), FIRST, row(4, 6));
        assert_eq!(shown(&tally, vec![row(5, 7)], &names), both);
        tally.end("tap1".into(), FIRST, row(5, 7));
        assert_eq!(shown(&tally, Vec::new(), &names), both);
        assert!(tally.before.is_empty());
    }

    #[test]
    fn names_without_end_are_forgotten_at_some_time() {
        let mut tally = Tally::default();
        for ifindex in 0..=REMEMBERED as u32 {
            tally.end(format!("veth{ifindex}").into(), FIRST, row(ifindex, 1));
            // This one is there again and again.
            tally.end("br0".into(), FIRST, row(ifindex, 1));
        }
        let shown = shown(&tally, Vec::new(), &Names::default());
        assert_eq!(shown.len(), REMEMBERED);
        assert!(shown.contains(&("br0".to_owned(), REMEMBERED as u64 + 1)), "{shown:?}");
        assert!(!shown.iter().any(|(name, _)| name == "veth0"));
    }
}
