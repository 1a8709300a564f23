//! Who reads the ring buffer, and hands on what it reads.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::Notify,
    task::{AbortHandle, JoinSet},
    time::sleep,
};

use super::{
    message::{self, SAMPLE, Wish},
    socket::{Accepting, Listener, Socket},
};
use crate::{bpf::ring::Wanted, exchange::Ledger, say::say};

/// How long to wait when the kernel has no descriptor left for one more watcher.
const PAUSE: Duration = Duration::from_millis(100);

/// The events of one namespace's programs, and everyone who wants some of them.
#[derive(Clone)]
pub struct Share {
    inner: Arc<Mutex<Inner>>,
    /// Tells when the first watcher has come, and when the last has gone.
    turn: Arc<Notify>,
}

struct Inner {
    /// The verdicts that make an event, in the kernel.
    wanted: Wanted,
    /// Those that the reader itself wants.
    own: u32,
    /// Knows whether exchanges are followed.
    ledger: Ledger,
    watchers: BTreeMap<u64, Watcher>,
    /// The number of the next watcher.
    next: u64,
}

struct Watcher {
    socket: Arc<Socket>,
    wish: Wish,
    /// Whether it was told that exchanges are followed.
    follows: bool,
    /// Events that it had no room for, and that it was not told of yet.
    lost: u64,
}

impl Share {
    /// Shares the events of these programs. `own` is the set of verdicts that the reader wants itself,
    /// and the ledger is where it follows exchanges, if it does.
    pub fn new(wanted: Wanted, own: u32, ledger: Ledger) -> Self {
        let (watchers, next) = Default::default();
        let inner = Inner { wanted, own, ledger, watchers, next };
        Self { inner: Arc::new(Mutex::new(inner)), turn: Arc::default() }
    }

    /// Goes on with the programs that replaced those before.
    pub fn replace(&self, wanted: Wanted, own: u32) {
        let mut inner = self.inner();
        (inner.wanted, inner.own) = (wanted, own);
        inner.choose();
    }

    /// Lets watchers in, until the door is dropped. Must be called on a tokio runtime.
    pub fn open(&self, listener: Listener) -> io::Result<Door> {
        let accepting = Accepting::new(listener)?;
        let share = self.clone();
        let task = tokio::spawn(async move {
            let mut visits = JoinSet::new();
            loop {
                tokio::select! {
                    socket = accepting.accept() => match socket {
                        Ok(socket) => drop(visits.spawn(share.clone().attend(Arc::new(socket)))),
                        Err(_) => sleep(PAUSE).await,
                    },
                    Some(_) = visits.join_next() => {}
                }
            }
        });
        Ok(Door { share: self.clone(), task: task.abort_handle() })
    }

    /// One watcher, from its wish to its end.
    async fn attend(self, socket: Arc<Socket>) {
        let mut buffer = [0; 8];
        let Ok(len) = socket.receive(&mut buffer).await else { return };
        let Some(wish) = Wish::parse(&buffer[..len]) else { return };
        let number = self.inner().admit(&socket, wish);
        self.turn.notify_one();
        // It has no more to say: whatever comes is its end.
        let _ = socket.receive(&mut buffer).await;
        let mut inner = self.inner();
        inner.watchers.remove(&number);
        inner.choose();
        self.turn.notify_one();
    }

    /// Waits until somebody watches, or nobody. One at a time may wait.
    pub async fn until_watched(&self, watched: bool) {
        while self.is_watched() != watched {
            self.turn.notified().await;
        }
    }

    /// Hands samples to everyone who wants them, without waiting for anyone. What is left are those
    /// that the reader wants itself.
    pub fn hand_out(&self, mut samples: Vec<Bytes>) -> Vec<Bytes> {
        let mut inner = self.inner();
        for watcher in inner.watchers.values_mut() {
            samples.iter().for_each(|sample| watcher.hand(sample));
        }
        samples.retain(|sample| message::is_among(sample, inner.own));
        samples
    }

    /// Tells everyone of events that nobody has seen, behind what was handed out.
    pub fn lose(&self, lost: u64) {
        self.inner().watchers.values_mut().for_each(|watcher| watcher.lost += lost);
    }

    /// Looks after what nothing else leads to: losses that are not told yet, exchanges that are followed
    /// now or not any more, and a set of verdicts that somebody else has changed.
    pub fn tick(&self) {
        let mut inner = self.inner();
        let follows = inner.ledger.is_followed();
        for watcher in inner.watchers.values_mut() {
            watcher.confess();
            watcher.tell(follows);
        }
        inner.choose();
    }

    /// Whether somebody watches.
    pub fn is_watched(&self) -> bool {
        !self.inner().watchers.is_empty()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn admit(&mut self, socket: &Arc<Socket>, wish: Wish) -> u64 {
        let number = self.next;
        self.next += 1;
        let follows = wish.exchanges && self.ledger.is_followed();
        let watcher = Watcher { socket: Arc::clone(socket), wish, follows, lost: 0 };
        self.watchers.insert(number, watcher);
        self.choose();
        // One that does not hear it has gone already.
        let _ = socket.send(&[&message::ready()]);
        if follows {
            let _ = socket.send(&[&message::follows(true)]);
        }
        number
    }

    /// Sets the verdicts that make an event to what everyone wants.
    fn choose(&mut self) {
        let union =
            self.watchers.values().fold(self.own, |union, watcher| union | watcher.wanted());
        if let Err(error) = self.wanted.set(union) {
            say(format_args!("cannot choose which packets are shown: {error}"));
        }
    }
}

impl Watcher {
    fn wanted(&self) -> u32 {
        self.wish.shown(self.follows)
    }

    /// Tells whether exchanges are followed, if it has asked and thinks otherwise.
    fn tell(&mut self, follows: bool) {
        let is_news = self.wish.exchanges && follows != self.follows;
        if is_news && self.socket.send(&[&message::follows(follows)]).is_ok() {
            self.follows = follows;
        }
    }

    fn hand(&mut self, sample: &[u8]) {
        if !message::is_among(sample, self.wanted()) {
            return;
        }
        self.confess();
        if self.lost > 0 || self.socket.send(&[&[SAMPLE], sample]).is_err() {
            self.lost += 1;
        }
    }

    /// Tells what was lost, if there is room for that.
    fn confess(&mut self) {
        if self.lost > 0 && self.socket.send(&[&message::lost(self.lost)]).is_ok() {
            self.lost = 0;
        }
    }
}

/// Where watchers come in. When it is dropped those that are there hear the end, after all that was
/// handed to them.
pub struct Door {
    share: Share,
    task: AbortHandle,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
        let mut inner = self.share.inner();
        inner.watchers.values_mut().for_each(Watcher::confess);
        inner.watchers.clear();
        inner.choose();
    }
}
