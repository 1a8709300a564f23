//! One at a time: who changes what is attached in a network namespace holds a lock on it.

use std::{
    fs::{File, TryLockError},
    io, thread,
    time::{Duration, Instant},
};

use super::netns::OWN;
use crate::say::say;

/// How long a command waits for another. Attaching to a thousand interfaces may take a quarter of a
/// minute.
pub const LONG: Duration = Duration::from_secs(30);

/// How long a process waits that has other things to do.
pub const SHORT: Duration = Duration::from_secs(1);

/// The right to change what is attached in one namespace, until it is dropped or the process ends.
///
/// It is a lock on the namespace's file, which every process in it opens anew, wherever it finds it. So
/// any user there can hold it, and nobody waits for ever: two at work at once do less harm than none.
#[derive(Debug)]
pub struct Turn(Option<File>);

impl Turn {
    /// Waits for its turn in the calling thread's namespace, and goes on without it if that takes too
    /// long. Fails if the namespace's file cannot be locked.
    pub fn wait(patience: Duration) -> io::Result<Self> {
        let file = File::open(OWN)?;
        let deadline = Instant::now() + patience;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self(Some(file))),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(2));
                }
                Err(TryLockError::WouldBlock) => {
                    say(format_args!(
                        "another process has held the lock of this network namespace for {} s; going \
                         on without it (`lslocks` shows who locks /proc/self/ns/net)",
                        patience.as_secs()
                    ));
                    return Ok(Self(None));
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    /// Takes its turn if nobody has one.
    pub fn take() -> io::Result<Self> {
        let file = File::open(OWN)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(Some(file))),
            Err(TryLockError::WouldBlock) => Ok(Self(None)),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Whether nobody else changes anything meanwhile.
    pub const fn is_ours(&self) -> bool {
        self.0.is_some()
    }
}
