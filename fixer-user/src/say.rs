//! What `fixer` says, without ever waiting long for somebody to hear it.
//!
//! Standard output and standard error may be closed, or pipes that nobody empties. The macros of the
//! standard library panic at the one and wait for ever at the other; neither must keep a program
//! attached that the user asked to detach.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write as _},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use crate::event::printable;

/// How long a reader may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Says a line on standard error. The names in it may be what anybody gave to an interface.
pub fn say(words: impl Display) {
    let words = words.to_string();
    let lines: Vec<_> = words.split('\n').map(|line| printable(line.as_bytes())).collect();
    STDERR.write(format!("fixer: {}\n", lines.join("\n")));
}

/// Prints what a verb has found on standard output, and waits for whoever reads it: there is nothing else
/// that would have to be done. That the reader has read enough is no error.
pub fn print(text: impl Display) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match write!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

/// Whether colours go there: only to a terminal, and never with NO_COLOR.
pub fn wants_colour(stream: &impl IsTerminal) -> bool {
    let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !is_unwanted
}

/// Writes text to standard output.
pub fn to_stdout(text: String) {
    STDOUT.write(text);
}

/// Writes text to standard error.
pub fn to_stderr(text: String) {
    STDERR.write(text);
}

/// How often progress is told.
const PAUSE: Duration = Duration::from_secs(2);

/// Tells how far something is that may take long. What does not is done without a word.
pub struct Progress {
    done: &'static str,
    all: usize,
    steps: usize,
    told: Instant,
}

impl Progress {
    /// Starts something of so many steps; `done` is what has been done with each.
    pub fn start(done: &'static str, all: usize) -> Self {
        Self { done, all, steps: 0, told: Instant::now() }
    }

    /// One more step is done.
    pub fn step(&mut self) {
        self.steps += 1;
        if self.told.elapsed() >= PAUSE {
            self.told = Instant::now();
            crate::service::busy();
            let Self { done, all, steps, .. } = self;
            say(format_args!("{done} {steps} of {all} interfaces so far"));
        }
    }
}

static STDOUT: Stream = Stream {
    is_stuck: AtomicBool::new(false),
    write: |text| {
        let mut stdout = io::stdout();
        stdout.write_all(text)?;
        stdout.flush()
    },
};

static STDERR: Stream =
    Stream { is_stuck: AtomicBool::new(false), write: |text| io::stderr().write_all(text) };

struct Stream {
    /// Whether a text is still on its way. Until it has arrived, later ones are not said.
    is_stuck: AtomicBool,
    write: fn(&[u8]) -> io::Result<()>,
}

impl Stream {
    fn write(&'static self, text: String) {
        if self.is_stuck.swap(true, Ordering::Relaxed) {
            return;
        }
        let (tell, written) = mpsc::channel();
        let started = thread::Builder::new().name("say".to_owned()).spawn(move || {
            // Who has closed the stream does not want to hear it.
            let _ = (self.write)(text.as_bytes());
            self.is_stuck.store(false, Ordering::Relaxed);
            let _ = tell.send(());
        });
        match started {
            Ok(_) => drop(written.recv_timeout(PATIENCE)),
            Err(_) => self.is_stuck.store(false, Ordering::Relaxed),
        }
    }
}
