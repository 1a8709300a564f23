//! How long a network namespace is the one that the user meant.
//!
//! A name is a mount: `ip netns add` mounts the namespace at a file, `ip netns del` unmounts it. The
//! kernel tells of every mount and unmount, so there is nothing to ask for again and again, and no
//! moment at which the file is there and the namespace is not yet. A process can be waited for.

use std::{
    fs::File,
    io,
    os::fd::{FromRawFd as _, OwnedFd},
};

use tokio::io::{Interest, unix::AsyncFd};

/// Everything that is mounted where this process can see it.
pub struct Mounts(AsyncFd<File>);

impl Mounts {
    /// Listens from now on. Must be called on a tokio runtime.
    pub fn listen() -> io::Result<Self> {
        let table = File::open("/proc/thread-self/mountinfo")?;
        // SAFETY: the file keeps its descriptor open, and the same, for as long as it lives.
        Ok(Self(unsafe { AsyncFd::register_with_interest(table, Interest::PRIORITY) }?))
    }

    /// Waits until something was mounted or unmounted. Nothing is lost if the waiting is given up.
    pub async fn change(&self) -> io::Result<()> {
        self.0.ready(Interest::PRIORITY).await?.clear_ready();
        Ok(())
    }
}

/// A process, which no later one is mistaken for.
pub struct Process(AsyncFd<OwnedFd>);

impl Process {
    /// A process by its id. Must be called on a tokio runtime.
    pub fn open(pid: i32) -> io::Result<Self> {
        // SAFETY: takes and returns numbers only.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        // SAFETY: it keeps its descriptor open, and the same, for as long as it lives.
        Ok(Self(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?))
    }

    /// Waits for its end.
    pub async fn end(&self) -> io::Result<()> {
        self.0.readable().await.map(drop)
    }
}
