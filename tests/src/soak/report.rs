//! What came of a soak: as a table, as JSON, and what is wrong with it.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use super::left::Loaded;

/// What became of the replies.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Replies {
    /// Those sent while their bridge was meant to be attached.
    pub sent: u64,
    /// Of these, those that arrived complete.
    pub fixed: u64,
    /// Of these, those that arrived otherwise.
    pub unfixed: u64,
    /// Of these, those that did not arrive.
    pub lost: u64,
    /// Those sent while fixer was being put there, taken off, or killed.
    pub beside: u64,
}

/// What fixer holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Held {
    /// Memory of the run that lasts, in KiB.
    pub rss_kib: u64,
    /// Its open descriptors.
    pub descriptors: usize,
    /// What is in the kernel.
    pub loaded: Loaded,
}

/// All that came of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The seed of what was done.
    pub seed: u64,
    /// How long it took, in seconds.
    pub seconds: u64,
    /// The replies.
    pub replies: Replies,
    /// What was done, how often.
    pub done: BTreeMap<&'static str, u64>,
    /// Before anything was attached; the process as soon as it had read its configuration a few times.
    pub start: Held,
    /// After everything was detached; the process just before it ended.
    pub end: Held,
    /// What was left behind, and what did not go as it should.
    pub faults: Vec<String>,
}

/// How much the run that lasts may grow, in KiB: by the events that may wait for its writer, 64 batches
/// of 256 samples of about 700 bytes, and half as much again for how the allocator keeps them. An object
/// and what it is parsed into take more than 100 KiB: were one kept at each reading of the configuration,
/// a soak of a few minutes would be over it.
const GROWTH: u64 = 64 * 256 * 700 / 1024 * 3 / 2;

impl Report {
    /// Everything that is wrong, a sentence each.
    pub fn problems(&self) -> Vec<String> {
        let Self { replies, start, end, faults, .. } = self;
        let mut problems = faults.clone();
        let mut wrong = |is_wrong: bool, told: String| {
            if is_wrong {
                problems.push(told);
            }
        };
        wrong(replies.sent == 0, "no reply was sent while fixer was attached".to_owned());
        wrong(replies.unfixed > 0, format!("{} replies arrived unfixed", replies.unfixed));
        // At full speed a receiver falls behind now and then; what fixer drops it counts itself.
        let many = replies.lost * 1000 > replies.sent;
        wrong(many, format!("{} replies did not arrive", replies.lost));
        wrong(
            end.rss_kib > start.rss_kib + GROWTH,
            format!("the run grew from {} KiB to {} KiB", start.rss_kib, end.rss_kib),
        );
        wrong(
            end.descriptors > start.descriptors,
            format!("the run held {} descriptors, then {}", start.descriptors, end.descriptors),
        );
        wrong(
            end.loaded != start.loaded,
            format!("left in the kernel: {:?}, and not {:?}", end.loaded, start.loaded),
        );
        problems
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, seconds, replies, done, start, end, .. } = self;
        writeln!(f, "replies while attached")?;
        let Replies { sent, fixed, unfixed, lost, beside } = replies;
        for (name, count) in
            [("sent", sent), ("fixed", fixed), ("unfixed", unfixed), ("lost", lost)]
        {
            writeln!(f, "  {name:<38} {count:>10}")?;
        }
        writeln!(f, "replies while attaching or detaching     {beside:>10}")?;
        writeln!(f, "what was done, with seed {seed}, in {seconds} s")?;
        for (name, count) in done {
            writeln!(f, "  {name:<38} {count:>10}")?;
        }
        writeln!(f, "what fixer holds                              start        end")?;
        let rows = [
            ("KiB of memory, by the run that lasts", start.rss_kib, end.rss_kib),
            ("descriptors, by the same", start.descriptors as u64, end.descriptors as u64),
            ("programs", start.loaded.programs as u64, end.loaded.programs as u64),
            ("maps", start.loaded.maps as u64, end.loaded.maps as u64),
            ("links", start.loaded.links as u64, end.loaded.links as u64),
        ];
        for (name, start, end) in rows {
            writeln!(f, "  {name:<38} {start:>10} {end:>10}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Report {
        Report {
            replies: Replies { sent: 9, fixed: 9, ..Replies::default() },
            start: Held { rss_kib: 20_000, descriptors: 30, ..Held::default() },
            end: Held { rss_kib: 20_000 + GROWTH, descriptors: 30, ..Held::default() },
            ..Report::default()
        }
    }

    #[test]
    fn each_fault_is_told() {
        assert_eq!(good().problems(), [""; 0]);
        type Fault = (fn(&mut Report), &'static str);
        let faults: [Fault; 7] = [
            (|report| report.replies.sent = 0, "no reply was sent"),
            (|report| report.replies.unfixed = 1, "1 replies arrived unfixed"),
            (|report| report.replies.lost = 2, "2 replies did not arrive"),
            (|report| report.end.rss_kib += 1, "the run grew"),
            (|report| report.end.descriptors = 31, "the run held 30 descriptors, then 31"),
            (|report| report.end.loaded.links = 1, "left in the kernel"),
            (|report| report.faults.push("a pin is left".to_owned()), "a pin is left"),
        ];
        for (spoil, told) in faults {
            let mut report = good();
            spoil(&mut report);
            let problems = report.problems();
            assert!(problems.len() == 1 && problems[0].contains(told), "{problems:?}, not {told}");
        }
    }
}
