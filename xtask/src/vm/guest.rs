//! A machine that QEMU emulates, and what it says on its console.

use std::{
    collections::VecDeque,
    fs::File,
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

/// Emulated throughout: slow, and the same everywhere.
const MACHINE: &[&str] = &["-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "1024"];

/// Nothing but a serial line, which is our standard input and output.
const DEVICES: &[&str] = &["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"];

/// A kernel that panics reboots at once, which ends QEMU.
const COMMAND_LINE: &str = "console=ttyS0 quiet loglevel=4 panic=-1";

/// How many lines are kept to tell what a machine said last.
const LAST_LINES: usize = 25;

/// How a machine came to its end.
pub(crate) struct End {
    /// Whether it was still running when its time was up.
    pub(crate) hung: bool,
    /// What it said last.
    pub(crate) last_lines: Vec<String>,
}

/// Ends the process, whatever happens.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended by itself, which is what we want.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Makes a machine's clocks go up by a nanosecond with each instruction, and by nothing else. QEMU counts
/// a repeated string instruction once for each byte, so the kernel is made to copy without them.
pub(crate) const COUNTING: &[&str] =
    &["-icount", "shift=0,sleep=off", "-cpu", "max,erms=off,fsrm=off"];

/// Runs a machine with these options besides its own until it is switched off or `patience` is over.
/// Each line of its console goes to `hear`, and to the file `log`.
pub(crate) fn boot(
    (kernel, image): (&Path, &Path),
    options: &[&str],
    log: &Path,
    patience: Duration,
    mut hear: impl FnMut(&str),
) -> Result<End> {
    let deadline = Instant::now() + patience;
    let mut log = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(MACHINE).args(options).args(DEVICES);
    qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(image).args(["-append", COMMAND_LINE]);
    let qemu = qemu.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut qemu = Killed(qemu.spawn().context("qemu-system-x86_64 cannot be started")?);
    let console = qemu.0.stdout.take().context("QEMU has no standard output")?;

    // Reading cannot be given up after a time, waiting for a reader can.
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        let mut console = BufReader::new(console);
        let mut line = Vec::new();
        while console.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if sender.send(text).is_err() {
                break;
            }
        }
    });

    let mut last = VecDeque::new();
    let hung = loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                writeln!(log, "{line}")?;
                hear(&line);
                if last.len() == LAST_LINES {
                    last.pop_front();
                }
                last.push_back(line);
            }
            Err(RecvTimeoutError::Disconnected) => break false,
            Err(RecvTimeoutError::Timeout) => break true,
        }
    };
    Ok(End { hung, last_lines: last.into() })
}
