//! The signals that end a process of ours, in order or at once, and the one that has it read again.

use std::io;

use nix::sys::signal::{SigHandler, Signal as Number};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGINT, SIGTERM and SIGHUP.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    /// What SIGHUP means: of a terminal that closes, the end; for who has a configuration, to read it.
    on_hangup: Request,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// To end.
    End,
    /// To read the configuration again.
    Reload,
}

impl Signals {
    /// Takes over the signals. From now on they do not end the process by themselves.
    pub fn new(on_hangup: Request) -> io::Result<Self> {
        Self::with(hangup()?, on_hangup)
    }

    /// The same, with SIGHUP taken over before: one that came meanwhile is heard.
    pub fn with(hangup: Signal, on_hangup: Request) -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup,
            on_hangup,
        })
    }

    /// Waits for any of them.
    pub async fn any(&mut self) -> Request {
        tokio::select! {
            _ = self.interrupt.recv() => Request::End,
            _ = self.terminate.recv() => Request::End,
            _ = self.hangup.recv() => self.on_hangup,
        }
    }
}

/// Takes over SIGHUP alone. Must be called on a tokio runtime, or where one was entered.
pub fn hangup() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}

/// Lets a reader that goes away end the process, as it ends other programs that only print: the
/// Rust runtime ignores SIGPIPE, and then `println!` panics.
pub fn end_with_the_reader() -> io::Result<()> {
    // SAFETY: this installs no handler, so none can run at a bad moment.
    unsafe { nix::sys::signal::signal(Number::SIGPIPE, SigHandler::SigDfl) }?;
    Ok(())
}
