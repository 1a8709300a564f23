//! Which toolchain made the committed object: a text file beside it.

use std::{collections::BTreeMap, fmt};

/// The parts of a toolchain by name, each with its version.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record(BTreeMap<String, String>);

impl Record {
    pub(crate) fn new<const N: usize>(parts: [(&str, String); N]) -> Self {
        Self(parts.map(|(name, version)| (name.to_owned(), version)).into())
    }

    /// Reads what [`Display`](fmt::Display) wrote. Another version of xtask may have named other
    /// parts: they are differences like any other.
    pub(crate) fn parse(text: &str) -> Self {
        let parts = text.lines().filter_map(|line| line.split_once(": "));
        Self(parts.map(|(name, version)| (name.to_owned(), version.to_owned())).collect())
    }

    /// What differs, a line each.
    pub(crate) fn differences(&self, here: &Self) -> Vec<String> {
        let version = |record: &Self, name: &String| {
            record.0.get(name).cloned().unwrap_or_else(|| "not recorded".to_owned())
        };
        let mut names: Vec<&String> = self.0.keys().chain(here.0.keys()).collect();
        names.sort();
        names.dedup();
        names
            .into_iter()
            .map(|name| (name, version(self, name), version(here, name)))
            .filter(|(_, committed, here)| committed != here)
            .map(|(name, committed, here)| format!("{name}: committed {committed}, here {here}"))
            .collect()
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# What made fixer.bpf.o. Written by `cargo xtask ebpf`.")?;
        self.0.iter().try_for_each(|(name, version)| writeln!(f, "{name}: {version}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(rustc: &str) -> Record {
        Record::new([("rustc", rustc.to_owned()), ("bpf-linker", "0.13.0".to_owned())])
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let record = record("1.96.0 (ac68faa20 2026-05-25)");
        assert_eq!(Record::parse(&record.to_string()), record);
        assert!(record.differences(&record).is_empty());
    }

    #[test]
    fn another_toolchain_is_told_apart() {
        assert_eq!(
            record("1.96.0").differences(&record("1.97.0")),
            ["rustc: committed 1.96.0, here 1.97.0"]
        );
    }

    #[test]
    fn a_part_that_only_one_record_has_is_a_difference() {
        let whole = record("1.96.0");
        let part = Record::parse("rustc: 1.96.0\n");
        assert_eq!(part.differences(&whole), ["bpf-linker: committed not recorded, here 0.13.0"]);
        assert_eq!(whole.differences(&part), ["bpf-linker: committed 0.13.0, here not recorded"]);
    }
}
