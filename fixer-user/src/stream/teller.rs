//! Makes events of samples, counts them, and follows the conversation in them, at its own pace.

use std::{io, sync::Arc, time::Duration};

use tokio::sync::mpsc::Receiver;

use super::{
    Message,
    backlog::{Backlog, Line},
    event,
};
use crate::{
    event::{Clock, Event},
    exchange::{Ending, Ledger, Now, Told, Tracker},
    sink::SinkError,
};

/// Follows the conversation in the events.
#[derive(Debug)]
pub struct Follower {
    tracker: Tracker,
    ledger: Ledger,
}

impl Follower {
    /// Counts into this ledger. An exchange that is silent for `patience` is over.
    pub fn new(ledger: Ledger, patience: Duration) -> Self {
        Self { tracker: Tracker::new(patience), ledger }
    }

    /// Follows nothing.
    pub fn none() -> Self {
        Self::new(Ledger::default(), Duration::MAX)
    }

    /// What an event ends.
    fn see(&mut self, event: &Event) -> Vec<Ending> {
        self.ledger.message(event);
        self.step(|tracker| tracker.see(event))
    }

    /// What the passing of time ends.
    fn tick(&mut self, monotonic: Duration) -> io::Result<Vec<Ending>> {
        let time = Clock::read()?.at(monotonic.as_nanos().try_into().unwrap_or(u64::MAX));
        Ok(self.step(|tracker| tracker.tick(Now { monotonic, time })))
    }

    fn step(&mut self, act: impl FnOnce(&mut Tracker) -> Told) -> Vec<Ending> {
        if !self.ledger.is_followed() {
            // Half a conversation would be told as one that nobody answers.
            self.tracker.clear();
            return Vec::new();
        }
        let Told { over, forgotten } = act(&mut self.tracker);
        over.iter().for_each(|ending| self.ledger.ending(ending));
        forgotten.iter().for_each(|netns| self.ledger.forgotten(netns));
        over
    }
}

/// Tells the writer of everything that comes, as long as either is there.
pub(super) fn tell(mut messages: Receiver<Message>, mut follower: Follower, mut backlog: Backlog) {
    while let Some(message) = messages.blocking_recv() {
        let lines = lines(message, &mut follower, &mut backlog);
        let is_there = match lines {
            Ok(lines) => backlog.push(lines),
            Err(error) => {
                backlog.push(vec![Line::Failure(SinkError::Io(error))]);
                false
            }
        };
        if !is_there {
            return;
        }
    }
    backlog.finish();
}

/// The lines that a message makes.
fn lines(
    message: Message,
    follower: &mut Follower,
    backlog: &mut Backlog,
) -> io::Result<Vec<Line>> {
    let mut lines = Vec::new();
    match message {
        Message::Samples(source, samples) => {
            let clock = Clock::read()?;
            lines.reserve(samples.len());
            for sample in samples {
                let Some(event) = event(&source, sample, &clock) else { continue };
                let over = follower.see(&event);
                lines.push(Line::Event(event, Arc::clone(&source.unshown)));
                lines.extend(over.into_iter().map(Line::Exchange));
            }
        }
        Message::Doubt(netns, until) => follower.tracker.doubt(&netns, until),
        Message::Lost(source, lost) => backlog.lose(&source.netns, lost),
        Message::Tick(until) => {
            lines.extend(follower.tick(until)?.into_iter().map(Line::Exchange));
        }
    }
    Ok(lines)
}
