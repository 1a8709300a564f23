//! Events on their way from the ring buffers to the sinks.
//!
//! Reading must never wait for writing: a terminal that is stopped, or a pipe that nobody empties, must
//! neither keep `fixer` from detaching nor change what it counts. So there are three who work:
//!
//! 1. A [`reading`] task for each ring buffer takes samples out, and notices what the kernel has lost.
//! 2. A [`teller`] thread makes events of them, counts, and follows the conversation. It waits for nobody.
//! 3. A [`writer`] thread does nothing but write. What it is too far behind for is dropped before it, and
//!    the stream says so where it is missing.

mod backlog;
mod reading;
mod teller;
mod writer;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{mpsc as channel, oneshot};

use self::backlog::Backlog;
pub use self::{
    reading::{Horizon, Read, Reading},
    teller::Follower,
    writer::Sinks,
};
use crate::{
    bpf::ring::Ring,
    event::{Clock, Event, Origin, Sample},
    names::Names,
    share::Share,
    sink::SinkError,
};

/// Batches that may wait for the teller.
const WAITING: usize = 64;

/// Where a ring buffer's events come from.
#[derive(Clone, Debug)]
pub struct Source {
    /// The namespace's label.
    pub netns: Arc<str>,
    /// The names of its interfaces.
    pub names: Names,
    /// What was read from it and not shown.
    pub unshown: Arc<Unshown>,
}

impl Source {
    /// A namespace's ring buffers, of which everything was shown so far.
    pub fn new(netns: Arc<str>, names: Names) -> Self {
        Self { netns, names, unshown: Arc::default() }
    }
}

/// Events that were read and not shown.
#[derive(Debug, Default)]
pub struct Unshown {
    /// For good: the writer was too far behind.
    dropped: AtomicU64,
    /// They wait for the writer.
    waiting: AtomicU64,
}

impl Unshown {
    /// How many will never be shown. This does not fall.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// One that waited is shown.
    fn show(&self) {
        let less = |waiting: u64| waiting.checked_sub(1);
        // Given up, it is none of those that wait any more.
        let _ = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// The writer is stuck: what waits for it is not shown any more.
    pub fn give_up(&self) {
        self.dropped.fetch_add(self.waiting.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }
}

enum Message {
    Samples(Source, Vec<Bytes>),
    /// Events of this namespace were lost before this moment on `CLOCK_MONOTONIC`.
    Doubt(Arc<str>, Duration),
    /// So many are missing here.
    Lost(Source, u64),
    /// Everything was read until this moment on `CLOCK_MONOTONIC`.
    Tick(Duration),
}

/// The way to the sinks.
#[derive(Clone, Debug)]
pub struct Writer(channel::Sender<Message>);

impl Writer {
    /// Starts the threads. The receiver hears how the writing ended: in order when every clone of
    /// this is gone, or with an error of a sink.
    pub fn start(
        sinks: Sinks,
        follower: Follower,
    ) -> io::Result<(Self, oneshot::Receiver<Result<(), SinkError>>)> {
        let (sender, messages) = channel::channel(WAITING);
        let (lines, to_write) = mpsc::channel();
        let backlog = Backlog::new(lines);
        let behind = backlog.behind();
        let (tell, end) = oneshot::channel();
        let thread = |name: &str| thread::Builder::new().name(name.to_owned());
        thread("writer").spawn(move || {
            // Nobody may be left to hear it; then it does not matter any more.
            let _ = tell.send(writer::write(&to_write, &behind, sinks));
        })?;
        thread("events").spawn(move || teller::tell(messages, follower, backlog))?;
        Ok((Self(sender), end))
    }

    /// Hands over the events of a ring buffer for ever, to watchers too.
    pub async fn follow(
        self,
        ring: Ring,
        source: Source,
        share: Share,
        horizon: Horizon,
        mut stop: oneshot::Receiver<()>,
    ) {
        let mut reading = Reading::new(ring, horizon);
        let mut is_there = true;
        while is_there {
            let read = tokio::select! {
                read = reading.next() => read,
                _ = &mut stop => break,
            };
            let Ok(read) = read else { break };
            is_there = self.pass(&source, &share, &mut reading, read).await;
        }
        // What came in before the programs were detached still belongs to the stream.
        while is_there && let Some(read) = reading.rest() {
            is_there = self.pass(&source, &share, &mut reading, read).await;
        }
    }

    /// Hands over what was read. Says whether there is still somebody to take it.
    async fn pass(
        &self,
        source: &Source,
        share: &Share,
        reading: &mut Reading,
        read: Vec<Read>,
    ) -> bool {
        for read in read {
            let message = match read {
                Read::Samples(samples) => Message::Samples(source.clone(), share.hand_out(samples)),
                Read::Doubt(until) => Message::Doubt(Arc::clone(&source.netns), until),
                Read::Gap(lost) => {
                    share.lose(lost);
                    Message::Lost(source.clone(), lost)
                }
                Read::Everything(until) => {
                    reading.horizon.set(until);
                    continue;
                }
            };
            let is_empty = matches!(&message, Message::Samples(_, samples) if samples.is_empty());
            if !is_empty && self.0.send(message).await.is_err() {
                return false;
            }
        }
        !self.0.is_closed()
    }

    /// Hands over samples that somebody else has read. Says whether there is still somebody to take them.
    pub async fn show(&self, source: &Source, samples: Vec<Bytes>) -> bool {
        samples.is_empty() || self.0.send(Message::Samples(source.clone(), samples)).await.is_ok()
    }

    /// Tells the stream that events were lost behind those that were shown. Says whether there is still
    /// somebody to tell it.
    pub async fn miss(&self, source: &Source, lost: u64) -> bool {
        lost == 0 || self.0.send(Message::Lost(source.clone(), lost)).await.is_ok()
    }

    /// Tells that everything was read until this moment on `CLOCK_MONOTONIC`, for exchanges that nothing
    /// else ends and for losses that no event follows. It waits for no one: a time that finds no room is
    /// followed by a later one.
    pub fn tick(&self, until: Duration) {
        let _ = self.0.try_send(Message::Tick(until));
    }
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
