//! What was seen of the conversation, counted for whoever asks for metrics.
//!
//! The writer of the events adds to it and the server of the metrics reads it, so it is shared.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use super::ending::{Ending, Outcome, TABLE};
use crate::event::Event;

/// How many interfaces keep their counters: those that were heard of last.
const REMEMBERED: usize = 4096;

/// By which lengths of time are counted, in seconds. A server on the same host answers within
/// milliseconds; one that pings first takes three seconds; a client that repeats itself takes tens of
/// them.
pub const BOUNDS: [f64; 13] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// An interface in a network namespace, by label and name.
pub type Place = (Arc<str>, Arc<str>);

/// The counters, shared by all clones.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    is_followed: AtomicBool,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    rows: BTreeMap<Place, Row>,
    forgotten: BTreeMap<Arc<str>, u64>,
    turn: u64,
}

/// The counters of one interface.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// DHCP messages by their types' names, of which there is a fixed list.
    pub messages: BTreeMap<&'static str, u64>,
    /// Exchanges by the numbers of their outcomes.
    pub outcomes: [u64; TABLE.len()],
    /// How long it took from DISCOVER to ACK.
    pub seconds: Seconds,
    /// When it was added to for the last time.
    turn: u64,
}

/// Lengths of time.
#[derive(Clone, Debug, Default)]
pub struct Seconds {
    /// All of them together.
    pub sum: f64,
    /// How many are as long as each of [`BOUNDS`] or shorter, and longer than the one before; those
    /// that are longer than all of them come last.
    pub counts: [u64; BOUNDS.len() + 1],
}

impl Seconds {
    /// How many there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The bounds, of which the last is infinite, and how many there are below each and above the one
    /// before.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        BOUNDS.into_iter().chain([f64::INFINITY]).zip(self.counts)
    }

    fn observe(&mut self, seconds: f64) {
        self.counts[BOUNDS.partition_point(|bound| *bound < seconds)] += 1;
        self.sum += seconds;
    }
}

impl Ledger {
    /// Whether exchanges are to be followed: only who sees requests and replies can.
    pub fn follow(&self, is_followed: bool) {
        self.0.is_followed.store(is_followed, Ordering::Relaxed);
    }

    /// What [`follow`](Self::follow) was told.
    pub fn is_followed(&self) -> bool {
        self.0.is_followed.load(Ordering::Relaxed)
    }

    /// Counts the DHCP message of an event, if it has one.
    pub fn message(&self, event: &Event) {
        if let Some(message) = &event.dhcp {
            let mut counts = self.counts();
            let row = counts.row(&event.netns, &event.interface);
            *row.messages.entry(message.message_type).or_default() += 1;
        }
    }

    /// Counts an exchange that is over.
    pub fn ending(&self, ending: &Ending) {
        let mut counts = self.counts();
        let row = counts.row(&ending.netns, &ending.interface);
        let exchange = &ending.exchange;
        row.outcomes[exchange.outcome as usize] += 1;
        if exchange.outcome == Outcome::Lease && exchange.began_with == "discover" {
            row.seconds.observe(exchange.seconds);
        }
    }

    /// Counts an exchange that was forgotten before its end.
    pub fn forgotten(&self, netns: &Arc<str>) {
        let forgotten = &mut self.counts().forgotten;
        // Namespaces may get new names for ever.
        if forgotten.len() >= REMEMBERED && !forgotten.contains_key(netns) {
            forgotten.pop_first();
        }
        *forgotten.entry(Arc::clone(netns)).or_default() += 1;
    }

    /// The counters by interface.
    pub fn rows(&self) -> Vec<(Place, Row)> {
        let counts = self.counts();
        counts.rows.iter().map(|(place, row)| (place.clone(), row.clone())).collect()
    }

    /// How many exchanges of a namespace were forgotten.
    pub fn forgotten_in(&self, netns: &str) -> u64 {
        self.counts().forgotten.get(netns).copied().unwrap_or_default()
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn row(&mut self, netns: &Arc<str>, interface: &Arc<str>) -> &mut Row {
        let place = (Arc::clone(netns), Arc::clone(interface));
        if self.rows.len() >= REMEMBERED && !self.rows.contains_key(&place) {
            let oldest = self.rows.iter().min_by_key(|(_, row)| row.turn);
            if let Some(oldest) = oldest.map(|(place, _)| place.clone()) {
                self.rows.remove(&oldest);
            }
        }
        self.turn += 1;
        let row = self.rows.entry(place).or_default();
        row.turn = self.turn;
        row
    }
}

#[cfg(test)]
mod tests {
    use fixer_common::verdict::Verdict;

    use super::*;
    use crate::event::fixture;

    #[test]
    fn names_without_end_are_forgotten_at_some_time() {
        let ledger = Ledger::default();
        let mut event = fixture::event(Verdict::Fixed, |_| ());
        for number in 0..=REMEMBERED {
            event.interface = format!("veth{number}").into();
            ledger.message(&event);
            // This one is there again and again.
            event.interface = "br0".into();
            ledger.message(&event);
        }
        let rows = ledger.rows();
        assert_eq!(rows.len(), REMEMBERED);
        let bridge = rows.iter().find(|((_, name), _)| &**name == "br0").unwrap();
        assert_eq!(bridge.1.messages["offer"], REMEMBERED as u64 + 1);
        assert!(!rows.iter().any(|((_, name), _)| &**name == "veth0"));
    }
    #[test]
    fn a_length_of_time_is_counted_by_the_first_bound_that_it_does_not_exceed() {
        let mut seconds = Seconds::default();
        let lengths = [0.0, 0.001, 0.0011, 0.5, 60.0, 60.1];
        for length in lengths {
            seconds.observe(length);
        }
        let found: Vec<_> = seconds.buckets().filter(|(_, count)| *count > 0).collect();
        let expected = [(0.001, 2), (0.0025, 1), (1.0, 1), (60.0, 1), (f64::INFINITY, 1)];
        assert_eq!(found, expected);
        assert_eq!((seconds.count(), seconds.sum), (6, lengths.iter().sum()));
    }
}
