//! Events on their way from the ring buffers to the sinks.
//!
//! Reading must never wait for writing: a terminal that is stopped, or a pipe that nobody empties,
//! must not keep `fixer` from detaching. So samples go through a bounded channel to a thread that
//! does nothing but write. When the channel is full the samples wait in the ring buffer, and when
//! that is full too the kernel counts what is lost.

use std::{io, sync::Arc, thread, time::Duration};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::{
    bpf::ring::Ring,
    event::{Clock, Event, Lost, Origin, Sample},
    exchange::{Ending, Ledger, Now, Told, Tracker},
    names::Names,
    say::say,
    share::Share,
    sink::{Sink, SinkError},
};

/// Batches that may wait for the writer.
const WAITING: usize = 64;

/// Samples that are taken from a ring buffer at once.
const BATCH: usize = 256;

/// How long watchers may wait for a writer that has no room.
const BRIEFLY: Duration = Duration::from_millis(100);

/// Where a ring buffer's events come from.
#[derive(Clone, Debug)]
pub struct Source {
    /// The namespace's label.
    pub netns: Arc<str>,
    /// The names of its interfaces.
    pub names: Names,
}

/// Where events go.
#[derive(Default)]
pub struct Sinks {
    /// The stream on standard output. When it ends, so does the run: its reader has seen enough.
    pub stream: Option<Box<dyn Sink + Send>>,
    /// The capture file. When it cannot be written any more (a full disk), the fix goes on without.
    pub capture: Option<Box<dyn Sink + Send>>,
}

impl Sinks {
    fn each(
        &mut self,
        mut act: impl FnMut(&mut dyn Sink) -> Result<(), SinkError>,
    ) -> Result<(), SinkError> {
        if let Some(capture) = &mut self.capture
            && let Err(error) = act(capture.as_mut())
        {
            self.capture = None;
            say(format_args!("cannot write the capture file any more, and go on without: {error}"));
        }
        self.stream.as_mut().map_or(Ok(()), |stream| act(stream.as_mut()))
    }
}

enum Message {
    Samples(Source, Vec<Bytes>),
    Lost(Source, u64),
    /// It is this time, on `CLOCK_MONOTONIC`.
    Tick(Duration),
}

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

/// The writing end: a thread of its own behind a channel.
#[derive(Clone, Debug)]
pub struct Writer(mpsc::Sender<Message>);

impl Writer {
    /// Starts the thread. The receiver hears how the writing ended: in order when every clone of
    /// the writer is gone, or with an error of a sink.
    pub fn start(
        sinks: Sinks,
        follower: Follower,
    ) -> io::Result<(Self, oneshot::Receiver<Result<(), SinkError>>)> {
        let (sender, receiver) = mpsc::channel(WAITING);
        let (tell, end) = oneshot::channel();
        thread::Builder::new().name("events".to_owned()).spawn(move || {
            // Nobody may be left to hear it; then it does not matter any more.
            let _ = tell.send(write(receiver, sinks, follower));
        })?;
        Ok((Self(sender), end))
    }

    /// Hands over the events of a ring buffer for ever, to watchers too.
    pub async fn follow(
        self,
        mut ring: Ring,
        source: Source,
        share: Share,
        mut stop: oneshot::Receiver<()>,
    ) {
        loop {
            let samples = tokio::select! {
                samples = ring.read(BATCH) => samples,
                _ = &mut stop => break,
            };
            let Ok(samples) = samples else { break };
            if !self.pass(&source, &share, share.hand_out(samples)).await {
                return;
            }
        }
        // What came in before the programs were detached still belongs to the stream.
        loop {
            let samples = ring.drain(BATCH);
            let is_last = samples.len() < BATCH;
            if !self.pass(&source, &share, share.hand_out(samples)).await || is_last {
                return;
            }
        }
    }

    /// Hands over samples, and waits for room as long as nobody else waits for the next ones. Says
    /// whether the writer is there to take them.
    async fn pass(&self, source: &Source, share: &Share, samples: Vec<Bytes>) -> bool {
        if samples.is_empty() {
            return !self.0.is_closed();
        }
        loop {
            match timeout(BRIEFLY, self.0.reserve()).await {
                Ok(Ok(room)) => {
                    room.send(Message::Samples(source.clone(), samples));
                    return true;
                }
                Ok(Err(_)) => return false,
                Err(_) if share.is_watched() => {
                    share.miss(samples.len());
                    return true;
                }
                Err(_) => {}
            }
        }
    }

    /// Hands over samples that somebody else has read. Says whether the writer is there to take them.
    pub async fn show(&self, source: &Source, samples: Vec<Bytes>) -> bool {
        samples.is_empty() || self.0.send(Message::Samples(source.clone(), samples)).await.is_ok()
    }

    /// Tells the stream that events were lost behind those that were shown. Says whether the writer
    /// is there to tell it.
    pub async fn miss(&self, source: &Source, lost: u64) -> bool {
        lost == 0 || self.0.send(Message::Lost(source.clone(), lost)).await.is_ok()
    }

    /// Tells the stream that events were lost. It waits for no one: a loss that finds no room
    /// is told the next time. Says whether it was told.
    pub fn lose(&self, source: &Source, lost: u64) -> bool {
        self.0.try_send(Message::Lost(source.clone(), lost)).is_ok()
    }

    /// Tells what time it is, for exchanges that nothing else ends. It waits for no one: a time that
    /// finds no room is followed by a later one.
    pub fn tick(&self) {
        if let Ok(now) = Clock::monotonic() {
            let _ = self.0.try_send(Message::Tick(now));
        }
    }
}

fn write(
    mut messages: mpsc::Receiver<Message>,
    mut sinks: Sinks,
    mut follower: Follower,
) -> Result<(), SinkError> {
    while let Some(message) = messages.blocking_recv() {
        match message {
            Message::Samples(source, samples) => {
                let clock = Clock::read()?;
                for sample in samples {
                    let Some(event) = event(&source, sample, &clock) else { continue };
                    sinks.each(|sink| sink.event(&event))?;
                    tell(&follower.see(&event), &mut sinks)?;
                }
            }
            Message::Lost(source, lost) => {
                let lost = Lost { time: Timestamp::now(), netns: source.netns, lost };
                sinks.each(|sink| sink.lost(&lost))?;
            }
            Message::Tick(now) => tell(&follower.tick(now)?, &mut sinks)?,
        }
        if messages.is_empty() {
            sinks.each(|sink| sink.flush())?;
        }
    }
    sinks.each(|sink| sink.finish())
}

fn tell(endings: &[Ending], sinks: &mut Sinks) -> Result<(), SinkError> {
    endings.iter().try_for_each(|ending| sinks.each(|sink| sink.exchange(ending)))
}

/// The event that a sample tells of; `None`: it cannot be read.
pub(crate) fn event(source: &Source, sample: Bytes, clock: &Clock) -> Option<Event> {
    let sample = match Sample::parse(sample) {
        Ok(sample) => sample,
        Err(error) => {
            log::warn!("an event of the kernel's cannot be read: {error}");
            return None;
        }
    };
    let interface = source.names.get(sample.ifindex);
    let origin = Origin::new(Arc::clone(&source.netns), &interface);
    Some(Event::new(sample, &origin, clock))
}

/// How long a stream may take to end once nothing comes in any more.
pub const PATIENCE: Duration = Duration::from_secs(2);
