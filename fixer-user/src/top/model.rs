//! What samples add up to: rates, a past for each hook, and lines of what was counted last.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use fixer_common::{abi::Hook, verdict::TABLE};
use jiff::Timestamp;

use super::{
    ears::Speaker,
    heard::{Heard, News, What},
};
use crate::{exchange::Now, net::netns::HOST};

/// Packets by verdict, in the order of the table.
pub type Counts = [u64; TABLE.len()];

/// How many samples a rate is the mean of.
const SMOOTH: usize = 10;

/// How many samples the past of a hook holds: at one a second, three minutes.
pub const PAST: usize = 180;

/// How many lines are kept.
pub(super) const LINES: usize = 100;

/// A hook of an interface of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The namespace's label.
    pub netns: Arc<str>,
    /// The interface's name.
    pub interface: String,
    /// Its index, for names may change hands.
    pub ifindex: u32,
    /// The hook.
    pub hook: Hook,
}

/// What was seen at a hook.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Where.
    pub place: Place,
    /// How the program is attached.
    pub mode: &'static str,
    /// Who holds it.
    pub held_by: String,
    /// What it has counted since it was attached.
    pub counts: Counts,
}

/// What was seen at one moment.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The moment.
    pub time: Timestamp,
    /// The same as `CLOCK_MONOTONIC` has it.
    pub at: Duration,
    /// Every hook where a program is attached.
    pub readings: Vec<Reading>,
    /// Everyone who hands out events of these.
    pub speakers: Vec<Speaker>,
}

/// A line about an interface.
#[derive(Clone, Debug)]
pub struct Told {
    /// Its name; none if it is about all.
    pub interface: String,
    /// The line.
    pub line: String,
}

/// A hook, with its past.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was seen last.
    pub reading: Reading,
    /// What came in each of the last few samples, the latest last.
    steps: VecDeque<(Counts, Duration)>,
    /// Packets a second, in each of the last [`PAST`] samples, the latest last.
    pub past: VecDeque<f64>,
    /// How many samples have ever been part of the past.
    pub samples: usize,
}

impl Row {
    fn new(reading: Reading) -> Self {
        Self { reading, steps: VecDeque::new(), past: VecDeque::new(), samples: 0 }
    }

    /// Takes the next reading. Says what came since the last one.
    fn step(&mut self, reading: Reading, passed: Duration) -> Counts {
        let came = since(&reading.counts, &self.reading.counts);
        self.reading = reading;
        let seconds = passed.as_secs_f64();
        if seconds > 0.0 {
            push(&mut self.steps, (came, passed), SMOOTH);
            self.samples += 1;
            push(&mut self.past, came.iter().sum::<u64>() as f64 / seconds, PAST);
        }
        came
    }

    /// Packets a second with each verdict: the mean of the last samples.
    pub fn rates(&self) -> [f64; TABLE.len()] {
        let seconds: f64 = self.steps.iter().map(|(_, passed)| passed.as_secs_f64()).sum();
        let rate = |verdict: usize| {
            let came: u64 = self.steps.iter().map(|(came, _)| came[verdict]).sum();
            if seconds > 0.0 { came as f64 / seconds } else { 0.0 }
        };
        std::array::from_fn(rate)
    }

    /// Packets a second.
    pub fn rate(&self) -> f64 {
        self.rates().iter().sum()
    }

    /// Packets since it was attached.
    pub fn total(&self) -> u64 {
        self.reading.counts.iter().sum()
    }
}

/// What came between two looks. Counters never fall: those that did began anew, and what they show has
/// come since.
fn since(now: &Counts, before: &Counts) -> Counts {
    let began_anew = now.iter().zip(before).any(|(now, before)| now < before);
    let came = |verdict: usize| now[verdict] - if began_anew { 0 } else { before[verdict] };
    std::array::from_fn(came)
}

pub(super) fn push<T>(queue: &mut VecDeque<T>, item: T, most: usize) {
    if queue.len() == most {
        queue.pop_front();
    }
    queue.push_back(item);
}

/// All that was seen.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// When the last sample was taken; `None` before the first.
    pub time: Option<Timestamp>,
    at: Duration,
    rows: BTreeMap<Place, Row>,
    lines: VecDeque<Told>,
    /// What was heard of events.
    pub heard: Heard,
}

impl Model {
    /// Takes the next sample. What is not in it is gone.
    pub fn sample(&mut self, sample: Sample) {
        let passed = sample.at.saturating_sub(self.at);
        (self.at, self.time) = (sample.at, Some(sample.time));
        self.heard.tick(Now { monotonic: sample.at, time: sample.time });
        let mut before = std::mem::take(&mut self.rows);
        for reading in sample.readings {
            let place = reading.place.clone();
            let row = match before.remove(&place) {
                Some(mut row) => {
                    let came = row.step(reading, passed);
                    self.tell(sample.time, &place, &came);
                    row
                }
                None => Row::new(reading),
            };
            self.rows.insert(place, row);
        }
    }

    fn tell(&mut self, time: Timestamp, place: &Place, came: &Counts) {
        if came.iter().all(|count| *count == 0) {
            return;
        }
        let seen = TABLE.iter().zip(came).filter(|(_, count)| **count > 0);
        let counts: Vec<_> = seen.map(|(row, count)| format!("{count} {}", row.name)).collect();
        let Place { netns, interface, hook, .. } = place;
        let netns = if &**netns == HOST { String::new() } else { format!("{netns}/") };
        let (time, hook, counts) = (time.strftime("%H:%M:%S"), hook.name(), counts.join(", "));
        let line = format!("{time} {netns}{interface} {hook}: {counts}");
        push(&mut self.lines, Told { interface: interface.clone(), line }, LINES);
    }

    /// Takes what was heard, of hooks that are shown.
    pub fn hear(&mut self, mut news: News) {
        if let What::Events(events) = &mut news.what {
            events.retain(|event| {
                let place = Place {
                    netns: Arc::clone(&event.netns),
                    interface: event.interface.to_string(),
                    ifindex: event.ifindex,
                    hook: event.hook,
                };
                self.rows.contains_key(&place)
            });
        }
        self.heard.take(news);
    }

    /// Every hook, by place.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.values()
    }

    /// What was counted, the latest first.
    pub fn lines(&self) -> impl Iterator<Item = &Told> {
        self.lines.iter().rev()
    }
}

#[cfg(test)]
mod tests {
    use fixer_common::verdict::Verdict;

    use super::*;
    use crate::top::fixture::{counts, reading};

    fn sample(second: u64, fixed: &[u64]) -> Sample {
        let reading =
            |(index, fixed)| reading(index, &format!("br{index}"), &[(Verdict::Fixed, fixed)]);
        crate::top::fixture::sample(second, (1..).zip(fixed.iter().copied()).map(reading).collect())
    }

    fn model(samples: &[(u64, &[u64])]) -> Model {
        let mut model = Model::default();
        samples.iter().for_each(|(second, fixed)| model.sample(sample(*second, fixed)));
        model
    }

    fn rates(model: &Model) -> Vec<f64> {
        model.rows().map(Row::rate).collect()
    }

    #[test]
    fn what_was_counted_before_the_first_look_is_no_rate() {
        let model = model(&[(0, &[500])]);
        assert_eq!(rates(&model), [0.0]);
        assert_eq!(model.rows().next().map(Row::total), Some(500));
        assert_eq!(model.lines().count(), 0);
    }

    #[test]
    fn a_rate_is_a_mean_over_the_time_that_passed() {
        let model = model(&[(0, &[500, 0]), (1, &[504, 0]), (4, &[508, 2])]);
        assert_eq!(rates(&model), [2.0, 0.5]);
        let past: Vec<_> = model.rows().next().unwrap().past.iter().copied().collect();
        assert_eq!(past, [4.0, 4.0 / 3.0]);
        let lines: Vec<_> = model.lines().map(|told| &*told.line).collect();
        let last = ["10:00:04 br2 egress: 2 fixed", "10:00:04 br1 egress: 4 fixed"];
        assert_eq!(lines, [last[0], last[1], "10:00:01 br1 egress: 4 fixed"]);
    }

    #[test]
    fn what_happened_long_ago_is_no_rate_any_more() {
        let mut model = model(&[(0, &[0]), (1, &[100])]);
        assert_eq!(rates(&model), [100.0]);
        (2..=SMOOTH as u64).for_each(|second| model.sample(sample(second, &[100])));
        assert_eq!(rates(&model), [10.0]);
        model.sample(sample(SMOOTH as u64 + 1, &[100]));
        assert_eq!(rates(&model), [0.0]);
    }

    #[test]
    fn counters_that_begin_anew_give_no_negative_rate() {
        let model = model(&[(0, &[500]), (1, &[3])]);
        assert_eq!(rates(&model), [3.0]);
        // All begin anew with one: the others may have grown beyond what they were.
        let before = counts(&[(Verdict::Fixed, 9), (Verdict::Valid, 1)]);
        let now = counts(&[(Verdict::Fixed, 2), (Verdict::Valid, 4)]);
        assert_eq!(since(&now, &before), now);
    }

    #[test]
    fn two_looks_at_the_same_moment_are_no_rate() {
        assert_eq!(rates(&model(&[(1, &[1]), (1, &[9])])), [0.0]);
    }

    #[test]
    fn what_is_gone_is_forgotten_and_comes_back_without_a_past() {
        let model = model(&[(0, &[1, 7]), (1, &[2]), (2, &[3, 9])]);
        let rows: Vec<_> = model.rows().map(|row| (row.total(), row.past.len())).collect();
        assert_eq!(rows, [(3, 2), (9, 0)]);
    }

    #[test]
    fn the_past_and_the_lines_are_bounded() {
        let mut model = Model::default();
        (0..1000).for_each(|second| model.sample(sample(second, &[second])));
        assert_eq!(model.rows().next().map(|row| row.past.len()), Some(PAST));
        assert_eq!(model.lines().count(), LINES);
    }
}
