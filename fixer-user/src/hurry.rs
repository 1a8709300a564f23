//! Lets the kernel hurry while many programs are attached or detached.
//!
//! Whenever a program is put at an interface or taken off, the kernel waits until every processor has
//! let go of what was there before: a grace period of RCU, some 12 ms. It holds the lock of all
//! network configuration meanwhile, so threads do not help, and a thousand interfaces take a quarter
//! of a minute. `/sys/kernel/rcu_expedited` tells it to interrupt the processors instead of waiting
//! for them; then the same takes about a second.
//!
//! The switch is the whole machine's, so it is borrowed: only for a batch, only if nobody else has
//! turned it, and it is put back in any case. A small process of its own sees to that. It turns the
//! switch on, waits until its end of a socket says that this process is done or dead, and turns it
//! off. What it writes is any number but 0 to the kernel, and bears our mark: it is not put back if
//! somebody has written another number in the meantime, and what was left by a machine on which both
//! processes were killed is taken for ours by the next batch.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::{
        fd::{AsRawFd as _, RawFd},
        unix::{fs::FileExt as _, net::UnixStream},
    },
};

use nix::{
    errno::Errno,
    sys::{
        signal::{SigSet, SigmaskHow},
        wait::waitpid,
    },
    unistd::{ForkResult, Pid, fork},
};

/// The switch.
const SWITCH: &str = "/sys/kernel/rcu_expedited";

/// For how many interfaces it is not worth the trouble.
const FEW: usize = 16;

/// Our mark: the upper byte of the number that is written. The process id is below.
const MARK: u32 = 0x46 << 24;

/// The kernel hurries as long as this value lives.
#[derive(Debug)]
pub struct Hurry {
    alive: Option<UnixStream>,
    guard: Pid,
}

impl Hurry {
    /// Lets the kernel hurry for a batch of so many interfaces. `None`: there are few of them, it
    /// hurries already, or the switch cannot be turned, as in a unit whose `/sys` is read-only. Then
    /// it just takes longer.
    pub fn for_many(interfaces: usize) -> Option<Self> {
        if interfaces <= FEW {
            return None;
        }
        let hurry = Self::begin();
        if let Err(error) = &hurry {
            log::info!("cannot let the kernel hurry with {SWITCH}: {error}");
        }
        hurry.ok().flatten()
    }

    fn begin() -> io::Result<Option<Self>> {
        let switch = OpenOptions::new().read(true).write(true).open(SWITCH)?;
        let mut present = [0; 16];
        let length = switch.read_at(&mut present, 0)?;
        let present = String::from_utf8_lossy(&present[..length]);
        let number: u32 = present.lines().next().unwrap_or_default().parse().unwrap_or(u32::MAX);
        if number != 0 && number >> 24 != MARK >> 24 {
            return Ok(None);
        }
        let (alive, other) = UnixStream::pair()?;
        let guard = start_guard(&switch, &other)?;
        drop(other);
        let hurry = Self { alive: Some(alive), guard };
        // It says so when the switch is turned, and ends if that was refused.
        let is_turned = hurry.alive.iter().all(|mut alive| alive.read_exact(&mut [0]).is_ok());
        Ok(is_turned.then_some(hurry))
    }
}

impl Drop for Hurry {
    fn drop(&mut self) {
        // The guard sees the end of the socket.
        self.alive = None;
        while waitpid(self.guard, None) == Err(Errno::EINTR) {}
    }
}

/// Starts the process that turns the switch and puts it back.
///
/// Signals for the whole group, such as the Ctrl-C of a terminal, are none of its business: they are
/// blocked in it from its first moment on.
fn start_guard(switch: &File, socket: &UnixStream) -> io::Result<Pid> {
    let mark = (MARK | (std::process::id() & 0x00ff_ffff)).to_string();
    let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    // SAFETY: the child only makes system calls, on memory that was there before.
    let forked = unsafe { fork() };
    if matches!(forked, Ok(ForkResult::Child)) {
        guard(switch.as_raw_fd(), socket.as_raw_fd(), mark.as_bytes());
    }
    mask.thread_set_mask()?;
    match forked? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => Err(Errno::ECHILD.into()),
    }
}

/// The life of the guard. It makes system calls only: another thread may have held the allocator's
/// lock when this process was made.
fn guard(switch: RawFd, socket: RawFd, mark: &[u8]) -> ! {
    const OFF: &[u8] = b"0\n";
    let mut seen = [0_u8; 16];
    let close = |first: RawFd, last: RawFd| {
        // SAFETY: of the descriptors that are closed nobody in this process makes use any more.
        unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    };
    // It must not hold on to anything else of its parent's: programs that are to be detached, a pipe
    // whose reader waits for its end. The parent does not go on before this is done.
    let (low, high) = (switch.min(socket), switch.max(socket));
    // The standard streams are open from the start, so neither of ours is one.
    close(0, low - 1);
    close(low + 1, high - 1);
    close(high + 1, RawFd::MAX);
    // SAFETY: both descriptors are open, and the buffers are alive and as long as is said.
    unsafe {
        // A signal that nobody can block may still come for the parent's group.
        libc::setsid();
        if libc::pwrite(switch, mark.as_ptr().cast(), mark.len(), 0) < 0 {
            libc::_exit(1);
        }
        libc::write(socket, mark.as_ptr().cast(), 1);
        while libc::read(socket, seen.as_mut_ptr().cast(), 1) > 0 {}
        let length = libc::pread(switch, seen.as_mut_ptr().cast(), seen.len(), 0);
        if length >= mark.len() as isize && seen.starts_with(mark) {
            libc::pwrite(switch, OFF.as_ptr().cast(), OFF.len(), 0);
        }
        libc::_exit(0)
    }
}
