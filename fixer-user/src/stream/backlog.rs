//! What waits for the writer, and what is dropped because too much does.

use std::{
    collections::BTreeMap,
    mem,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::Sender,
    },
};

use jiff::Timestamp;

use super::Unshown;
use crate::{
    event::{Event, Lost},
    exchange::Ending,
    sink::SinkError,
};

/// How many bytes may wait: several thousand events.
const ROOM: usize = 8 << 20;

/// Something to write.
pub(super) enum Line {
    Event(Event, Arc<Unshown>),
    Exchange(Ending),
    Lost(Lost),
    /// Nothing more can be told, and this is why.
    Failure(SinkError),
}

impl Line {
    fn size(&self) -> usize {
        let more = match self {
            Self::Event(event, _) => event.capture.bytes.len(),
            _ => 0,
        };
        size_of::<Self>() + more
    }
}

/// How many bytes the writer is behind. Shared by all clones.
#[derive(Clone, Debug, Default)]
pub(super) struct Behind(Arc<AtomicUsize>);

impl Behind {
    /// This is written.
    pub(super) fn less(&self, size: usize) {
        self.0.fetch_sub(size, Ordering::Relaxed);
    }

    fn more(&self, size: usize) {
        self.0.fetch_add(size, Ordering::Relaxed);
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Lines that are written together, and their size.
pub(super) struct Batch {
    pub(super) lines: Vec<Line>,
    pub(super) size: usize,
}

/// The way to the writer. It never waits.
pub(super) struct Backlog {
    writer: Sender<Batch>,
    behind: Behind,
    /// Whether lines are dropped at the moment. They are until half of the room is free, so that there are
    /// a few large gaps and not many small ones.
    is_full: bool,
    /// What is missing in each namespace, and was not told yet.
    missing: BTreeMap<Arc<str>, Missing>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Missing {
    events: u64,
    exchanges: u64,
}

impl Backlog {
    pub(super) fn new(writer: Sender<Batch>) -> Self {
        let (behind, missing) = Default::default();
        Self { writer, behind, is_full: false, missing }
    }

    pub(super) fn behind(&self) -> Behind {
        self.behind.clone()
    }

    /// Events that nobody has read are missing here.
    pub(super) fn lose(&mut self, netns: &Arc<str>, events: u64) {
        self.missing(netns).events += events;
    }

    /// Hands lines to the writer, or drops them all. Says whether the writer is there.
    pub(super) fn push(&mut self, lines: Vec<Line>) -> bool {
        let limit = if self.is_full { ROOM / 2 } else { ROOM };
        self.is_full = self.behind.get() >= limit;
        if self.is_full {
            lines.into_iter().for_each(|line| self.drop(line));
            return true;
        }
        self.tell_missing() && self.send(lines)
    }

    /// Says what is left to say.
    pub(super) fn finish(mut self) {
        self.tell_missing();
    }

    fn tell_missing(&mut self) -> bool {
        let time = Timestamp::now();
        let missing = mem::take(&mut self.missing).into_iter();
        let lost = missing.map(|(netns, Missing { events, exchanges })| {
            Line::Lost(Lost { time, netns, lost: events, exchanges })
        });
        let lost = lost.collect();
        self.send(lost)
    }

    fn send(&self, lines: Vec<Line>) -> bool {
        if lines.is_empty() {
            return true;
        }
        for line in &lines {
            if let Line::Event(_, unshown) = line {
                unshown.waiting.fetch_add(1, Ordering::Relaxed);
            }
        }
        let size = lines.iter().map(Line::size).sum();
        self.behind.more(size);
        self.writer.send(Batch { lines, size }).is_ok()
    }

    fn drop(&mut self, line: Line) {
        match line {
            Line::Event(event, unshown) => {
                unshown.dropped.fetch_add(1, Ordering::Relaxed);
                self.missing(&event.netns).events += 1;
            }
            Line::Exchange(ending) => self.missing(&ending.netns).exchanges += 1,
            // Losses are told by what is missing, and a failure is told by the end.
            Line::Lost(_) | Line::Failure(_) => {}
        }
    }

    fn missing(&mut self, netns: &Arc<str>) -> &mut Missing {
        self.missing.entry(Arc::clone(netns)).or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use fixer_common::verdict::Verdict;

    use super::*;
    use crate::event::fixture;

    fn start() -> (Backlog, Behind, Receiver<Batch>) {
        let (writer, lines) = channel();
        let backlog = Backlog::new(writer);
        let behind = backlog.behind();
        (backlog, behind, lines)
    }

    fn lines(count: usize, unshown: &Arc<Unshown>) -> Vec<Line> {
        let event = fixture::event(Verdict::Fixed, |_| ());
        vec![event; count]
            .into_iter()
            .map(|event| Line::Event(event, Arc::clone(unshown)))
            .collect()
    }

    /// How many events there are in all, and what was lost before each of them.
    fn told(batches: impl Iterator<Item = Batch>) -> (u64, Vec<(u64, u64)>) {
        let (mut events, mut losses) = (0, Vec::new());
        for line in batches.flat_map(|batch| batch.lines) {
            match line {
                Line::Event(..) => events += 1,
                Line::Lost(lost) => losses.push((events, lost.lost)),
                Line::Exchange(_) | Line::Failure(_) => {}
            }
        }
        (events, losses)
    }

    #[test]
    fn what_is_too_much_is_dropped_and_told_where_it_is_missing() {
        const BATCH: usize = 100;
        let (mut backlog, behind, written) = start();
        let unshown = Arc::default();
        let mut pushed = 0;
        while unshown_of(&unshown) == (0, pushed) {
            assert!(backlog.push(lines(BATCH, &unshown)));
            pushed += BATCH as u64;
        }
        let (dropped, waiting) = unshown_of(&unshown);
        assert_eq!((dropped, waiting), (BATCH as u64, pushed - BATCH as u64));
        assert!(waiting > 5_000, "{waiting}");
        // A little room is none yet.
        let mut batches: Vec<_> = vec![written.recv().unwrap()];
        behind.less(batches[0].size);
        backlog.lose(&"host".into(), 7);
        assert!(backlog.push(lines(1, &unshown)));
        assert_eq!(unshown_of(&unshown), (dropped + 1, waiting));
        batches.extend(written.try_iter().inspect(|batch| behind.less(batch.size)));
        assert_eq!(behind.get(), 0);
        assert!(backlog.push(lines(1, &unshown)));
        backlog.lose(&"host".into(), 2);
        backlog.finish();
        batches.extend(written.try_iter());
        let losses = vec![(waiting, dropped + 1 + 7), (waiting + 1, 2)];
        assert_eq!(told(batches.into_iter()), (waiting + 1, losses));
        unshown.give_up();
        assert_eq!(unshown.dropped(), dropped + 1 + waiting + 1);
    }

    fn unshown_of(unshown: &Arc<Unshown>) -> (u64, u64) {
        (unshown.dropped(), unshown.waiting.load(Ordering::Relaxed))
    }

    #[test]
    fn that_the_writer_is_gone_is_noticed() {
        let (mut backlog, _, written) = start();
        drop(written);
        assert!(!backlog.push(lines(1, &Arc::default())));
    }
}
