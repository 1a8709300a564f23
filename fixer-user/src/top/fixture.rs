//! Samples as a kernel would give them.

use std::time::Duration;

use fixer_common::{abi::Hook, verdict::Verdict};
use jiff::Timestamp;

use super::model::{Counts, Place, Reading, Sample};
use crate::net::netns::HOST;

/// Counts of these verdicts.
pub fn counts(given: &[(Verdict, u64)]) -> Counts {
    let mut counts = Counts::default();
    given.iter().for_each(|(verdict, count)| counts[*verdict as usize] = *count);
    counts
}

/// What `fixer attach` has at the egress of an interface.
pub fn reading(ifindex: u32, interface: &str, given: &[(Verdict, u64)]) -> Reading {
    let (netns, interface, hook) = (HOST.into(), interface.to_owned(), Hook::Egress);
    let place = Place { netns, interface, ifindex, hook };
    Reading { place, mode: "tcx", held_by: "attach".to_owned(), counts: counts(given) }
}

/// So many seconds after ten o'clock.
pub fn time(second: u64) -> Timestamp {
    let ten: Timestamp = "2026-11-21T10:00:00Z".parse().expect("it is a time");
    ten + Duration::from_secs(second)
}

/// What was seen so many seconds after ten o'clock.
pub fn sample(second: u64, readings: Vec<Reading>) -> Sample {
    let at = Duration::from_secs(second);
    Sample { time: time(second), at, readings, speakers: Vec::new() }
}
