//! Reads a ring buffer, and notices what the kernel has lost.
//!
//! The kernel says how many events found the ring buffer full, not when. That is looked up with every batch,
//! before anybody hears of it; and as what was there at that moment came before or during the loss, the
//! gap is behind it.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use fixer_common::abi::event::Header;
use tokio::time::{Interval, MissedTickBehavior, interval};
use zerocopy::FromBytes as _;

use crate::{bpf::ring::Ring, event::Clock};

/// Samples that are taken out at once.
const BATCH: usize = 256;

/// How often it is said until when everything was read.
const TICK: Duration = Duration::from_millis(500);

/// Until when everything was read, as `CLOCK_MONOTONIC`. Shared by all clones.
#[derive(Clone, Debug, Default)]
pub struct Horizon(Arc<AtomicU64>);

impl Horizon {
    pub(super) fn set(&self, until: Duration) {
        let nanos = until.as_nanos().try_into().unwrap_or(u64::MAX);
        self.0.store(nanos, Ordering::Relaxed);
    }

    /// The moment.
    pub fn get(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

/// What a reader finds, in this order.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// Samples; maybe none.
    Samples(Vec<Bytes>),
    /// Events were lost at some time before this moment on `CLOCK_MONOTONIC`.
    Doubt(Duration),
    /// So many are missing here.
    Gap(u64),
    /// That is all there was until this moment.
    Everything(Duration),
}

/// A ring buffer that is read.
pub struct Reading {
    ring: Ring,
    /// Until when everything has been passed on.
    pub(super) horizon: Horizon,
    tick: Interval,
    gaps: Gaps,
}

impl Reading {
    /// Reads a ring buffer from now on. Must be called on a tokio runtime.
    pub fn new(ring: Ring, horizon: Horizon) -> Self {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { ring, horizon, tick, gaps: Gaps::default() }
    }

    /// Waits for something to say. Nothing is lost if the waiting is given up.
    pub async fn next(&mut self) -> io::Result<Vec<Read>> {
        tokio::select! {
            samples = self.ring.read(BATCH) => Ok(self.look(samples?)),
            _ = self.tick.tick() => self.everything(),
        }
    }

    /// What is there until this moment.
    fn everything(&mut self) -> io::Result<Vec<Read>> {
        let (now, mut all) = (Clock::monotonic()?, Vec::new());
        loop {
            let samples = self.ring.drain(BATCH);
            let is_later = |sample: &Bytes| time(sample) > now;
            let is_last = samples.len() < BATCH || samples.last().is_some_and(is_later);
            all.extend(self.look(samples));
            if is_last {
                all.push(Read::Everything(now));
                return Ok(all);
            }
        }
    }

    /// What is left at the end, in pieces.
    pub fn rest(&mut self) -> Option<Vec<Read>> {
        let samples = self.ring.drain(BATCH);
        let is_there = !samples.is_empty();
        let read = self.look(samples);
        (is_there || !read.is_empty()).then_some(read)
    }

    fn look(&mut self, samples: Vec<Bytes>) -> Vec<Read> {
        // That it cannot be looked up does not make it more.
        let lost = self.ring.lost().unwrap_or(self.gaps.lost);
        let now = Clock::monotonic().unwrap_or(Duration::MAX);
        self.gaps.look(lost, now, samples)
    }
}

/// What is known of losses.
#[derive(Debug, Default)]
struct Gaps {
    /// How many events had been lost at the last look.
    lost: u64,
    /// A loss of so many events that was noticed at this moment, and that the stream has not come to yet.
    open: Option<(u64, Duration)>,
}

impl Gaps {
    /// Puts these samples, the latest that there are unless it is a whole batch, and what was lost by now
    /// into their order.
    fn look(&mut self, lost: u64, now: Duration, samples: Vec<Bytes>) -> Vec<Read> {
        let mut read = VecDeque::new();
        let new = lost.saturating_sub(self.lost);
        if new > 0 {
            self.lost = lost;
            let (open, _) = self.open.get_or_insert((0, now));
            *open += new;
            read.push_back(Read::Doubt(now));
        }
        let is_all = samples.len() < BATCH;
        let mut before = samples;
        let Some((lost, noticed)) = self.open else {
            read.extend((!before.is_empty()).then_some(Read::Samples(before)));
            return read.into();
        };
        let is_later = |sample: &Bytes| time(sample) > noticed;
        let place = before.iter().position(is_later).unwrap_or(before.len());
        let behind = before.split_off(place);
        read.extend((!before.is_empty()).then_some(Read::Samples(before)));
        if is_all || !behind.is_empty() {
            self.open = None;
            read.push_back(Read::Gap(lost));
        }
        read.extend((!behind.is_empty()).then_some(Read::Samples(behind)));
        read.into()
    }
}

/// When a sample was taken; what cannot be read is old.
fn time(sample: &Bytes) -> Duration {
    let header = Header::read_from_prefix(sample).ok();
    header.map_or(Duration::ZERO, |(header, _)| Duration::from_nanos(header.time))
}

#[cfg(test)]
mod tests {
    use fixer_common::verdict::Verdict;

    use super::*;
    use crate::event::fixture;

    /// A sample that was taken at this second.
    fn at(second: u64) -> Bytes {
        let mut header = fixture::header(Verdict::Valid, &[]);
        header.time = second * 1_000_000_000;
        fixture::sample(header, &[])
    }

    fn samples(seconds: impl IntoIterator<Item = u64>) -> Vec<Bytes> {
        seconds.into_iter().map(at).collect()
    }

    const fn second(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    #[test]
    fn where_nothing_is_lost_there_is_nothing_but_samples() {
        let mut gaps = Gaps { lost: 7, open: None };
        assert_eq!(gaps.look(7, second(9), samples(1..4)), [Read::Samples(samples(1..4))]);
        assert_eq!(gaps.look(7, second(9), Vec::new()), []);
    }

    #[test]
    fn a_loss_is_doubted_at_once_and_told_behind_what_was_there() {
        let mut gaps = Gaps::default();
        let full = |second| vec![at(second); BATCH];
        let first = gaps.look(5, second(9), full(1));
        assert_eq!(first, [Read::Doubt(second(9)), Read::Samples(full(1))]);
        // More is lost meanwhile, and that is all one.
        let more = gaps.look(6, second(10), full(2));
        assert_eq!(more, [Read::Doubt(second(10)), Read::Samples(full(2))]);
        assert_eq!(gaps.look(6, second(11), full(3)), [Read::Samples(full(3))]);
        let last = gaps.look(6, second(12), samples([9, 10, 11]));
        let before_and_behind =
            [Read::Samples(samples([9])), Read::Gap(6), Read::Samples(samples([10, 11]))];
        assert_eq!(last, before_and_behind);
        assert_eq!(gaps.look(6, second(13), samples([13])), [Read::Samples(samples([13]))]);
    }

    #[test]
    fn a_loss_that_nothing_follows_is_told_all_the_same() {
        let mut gaps = Gaps::default();
        let told = gaps.look(1, second(9), samples([1]));
        assert_eq!(told, [Read::Doubt(second(9)), Read::Samples(samples([1])), Read::Gap(1)]);
        let told = gaps.look(3, second(10), Vec::new());
        assert_eq!(told, [Read::Doubt(second(10)), Read::Gap(2)]);
    }
}
