//! One at a time: who changes what is attached in a network namespace holds a lock on it.

use std::{
    fs::{File, TryLockError},
    io, thread,
    time::{Duration, Instant},
};

use super::netns::OWN;

/// How long another fixer may take. Attaching to a thousand interfaces takes a few seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// The right to change what is attached in one namespace, until it is dropped or the process ends.
///
/// It is a lock on the namespace's file, which every process in it opens anew, wherever it finds it.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "it is held, and never read")] File);

/// It was not our turn.
#[derive(Debug, thiserror::Error)]
pub enum TurnError {
    /// Another process changes attachments, and does not come to an end.
    #[error(
        "another fixer has been changing what is attached in this network namespace for {} seconds; \
         wait for it, or end it (`fuser` or `lslocks` shows who holds /proc/self/ns/net)",
        PATIENCE.as_secs()
    )]
    Taken,
    /// The namespace's file cannot be locked.
    #[error("cannot lock the network namespace: {0}")]
    Lock(#[from] io::Error),
}

impl Turn {
    /// Waits for its turn in the calling thread's namespace.
    pub fn wait() -> Result<Self, TurnError> {
        let file = File::open(OWN)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self(file)),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(2));
                }
                Err(TryLockError::WouldBlock) => return Err(TurnError::Taken),
                Err(TryLockError::Error(error)) => return Err(error.into()),
            }
        }
    }
}
