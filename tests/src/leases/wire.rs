//! What lies between the bridge's port and the guest.

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use fixer_user::{lab::packet::PacketSocket, net::netns::NetNs};

/// What lies between the bridge's port and the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// A veth pair, as containers have it: the guest's kernel sees that a sum is partial, and tells
    /// its programs.
    Veth,
    /// A veth pair whose port has no checksum offload: the kernel finishes partial sums on the way.
    /// Who stores a sum and leaves the mark breaks it here, for the sum is finished twice.
    Finished,
    /// A program that copies frames from one socket to another. The mark stays behind: a partial sum
    /// is a wrong one, and every client is a strict one.
    Copied,
}

impl Wire {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Veth, Self::Finished, Self::Copied];
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Veth => "veth",
            Self::Finished => "finished",
            Self::Copied => "copied",
        })
    }
}

/// How soon a copier notices that it is to end.
const TICK: Duration = Duration::from_millis(50);

/// Copies frames between two interfaces of a namespace until it is dropped.
#[derive(Debug)]
pub struct Copier {
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Copier {
    /// Starts to copy, both ways.
    pub fn start(netns: &NetNs, one: &str, other: &str) -> io::Result<Self> {
        let ended = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for (from, to) in [(one, other), (other, one)] {
            let (from, to) = (PacketSocket::open(netns, from)?, PacketSocket::open(netns, to)?);
            let ended = Arc::clone(&ended);
            threads.push(thread::spawn(move || copy(&from, &to, &ended)));
        }
        Ok(Self { ended, threads })
    }
}

impl Drop for Copier {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A copier that failed has copied too little: the trial says so in its own words.
            let _ = thread.join();
        }
    }
}

fn copy(from: &PacketSocket, to: &PacketSocket, ended: &AtomicBool) -> io::Result<()> {
    while !ended.load(Ordering::Relaxed) {
        if let Some(frame) = from.receive(TICK, |_| true)? {
            to.send(&frame.bytes, None)?;
        }
    }
    Ok(())
}
