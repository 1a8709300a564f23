//! The signals that end a process of ours, in order or at once.

use std::io;

use nix::sys::signal::{SigHandler, Signal as Number};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGINT, SIGTERM, and SIGHUP of a terminal that closes.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    /// Takes over the signals. From now on they do not end the process by themselves.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for any of them.
    pub async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => (),
            _ = self.terminate.recv() => (),
            _ = self.hangup.recv() => (),
        }
    }
}

/// Lets a reader that goes away end the process, as it ends other programs that only print: the
/// Rust runtime ignores SIGPIPE, and then `println!` panics.
pub fn end_with_the_reader() -> io::Result<()> {
    // SAFETY: this installs no handler, so none can run at a bad moment.
    unsafe { nix::sys::signal::signal(Number::SIGPIPE, SigHandler::SigDfl) }?;
    Ok(())
}
