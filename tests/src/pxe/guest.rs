//! A guest that boots over the network: iPXE on a virtio NIC, in a machine that QEMU emulates.

use std::{
    collections::VecDeque,
    io::{BufRead as _, BufReader, Read},
    net::Ipv4Addr,
    process::{Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use fixer_user::{lab::sandbox::Sandboxed, net::netns::NetNs};

use super::card::Plugged;

/// What the boot file prints when it runs.
pub const GREETING: &str = "fixer-boot-ok";

/// Emulated throughout, so it runs everywhere. With `-nographic` the firmware prints to the serial
/// line; that is a file, because standard input may be the network card's.
const MACHINE: &[&str] = &[
    "-accel",
    "tcg",
    "-m",
    "64",
    "-nodefaults",
    "-nographic",
    "-no-reboot",
    "-boot",
    "n",
    "-chardev",
    "file,id=console,path=/dev/stdout",
    "-serial",
    "chardev:console",
    "-device",
    "virtio-net-pci,netdev=card",
];

/// What is said by an iPXE that gives up, and by a BIOS that finds no iPXE.
const GIVEN_UP: [&str; 2] = ["No more network devices", "No bootable device"];

/// How long a guest may take. One that gets no answer gives up after 18 seconds.
const PATIENCE: Duration = Duration::from_secs(90);

/// How many lines of the console are kept.
const LAST_LINES: usize = 12;

/// How far a guest got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Got {
    /// Not even an address.
    Nothing,
    /// An address, and nothing to boot.
    Address,
    /// Its boot file, which ran.
    BootFile,
}

impl Got {
    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Address => "an address",
            Self::BootFile => "its boot file",
        }
    }
}

/// What came of booting.
#[derive(Clone, Debug)]
pub struct Boot {
    /// How far the guest got.
    pub got: Got,
    /// Its address, if it has one.
    pub address: Option<Ipv4Addr>,
    /// Whether it booted or gave up by itself. If not, QEMU ended, or the time was over.
    pub ended: bool,
    /// From QEMU's start to the guest's end.
    pub took: Duration,
    /// What the guest said last.
    pub last_lines: Vec<String>,
}

/// Boots a guest behind the bridge, until its boot file runs or it gives up.
pub fn boot(host: &NetNs, card: Plugged) -> Result<Boot> {
    let mut command = Command::new("qemu-system-x86_64");
    command.args(MACHINE).arg("-netdev").arg(format!("{},id=card", card.netdev));
    command.stdin(card.stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut qemu = Sandboxed::spawn(host, command)
        .context("cannot start qemu-system-x86_64; `cargo xtask pxe` installs what it needs")?;
    let began = Instant::now();
    let child = qemu.child();
    let console = console(child.stdout.take().context("QEMU has no standard output")?);
    let mut errors = child.stderr.take().context("QEMU has no standard error")?;

    let (mut got, mut address, mut ended) = (Got::Nothing, None, false);
    let mut last_lines = VecDeque::new();
    let left = || (began + PATIENCE).saturating_duration_since(Instant::now());
    while !ended && let Ok(line) = console.recv_timeout(left()) {
        if let Some(given) = address_in(&line) {
            (got, address) = (Got::Address, Some(given));
        }
        if line == GREETING {
            got = Got::BootFile;
        }
        ended = line == GREETING || GIVEN_UP.iter().any(|words| line.contains(words));
        if last_lines.len() == LAST_LINES {
            last_lines.pop_front();
        }
        last_lines.push_back(line);
    }
    let took = began.elapsed();
    drop(qemu);
    let mut said = String::new();
    errors.read_to_string(&mut said)?;
    last_lines.extend(said.lines().map(str::to_owned));
    Ok(Boot { got, address, ended, took, last_lines: last_lines.into() })
}

/// The lines of the console, without what moves the cursor about.
fn console(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
            let text = shown(&String::from_utf8_lossy(&line));
            line.clear();
            if sender.send(text).is_err() {
                break;
            }
        }
    });
    receiver
}

/// What remains of a line on a screen.
pub(crate) fn shown(line: &str) -> String {
    let mut text = String::new();
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            '\x08' => drop(text.pop()),
            // A sequence for the terminal ends with its first letter.
            '\x1b' => drop(characters.find(char::is_ascii_alphabetic)),
            character if !character.is_control() => text.push(character),
            _ => {}
        }
    }
    text.trim().to_owned()
}

/// The address in a line like `net0: 10.0.3.158/255.255.255.0 gw 10.0.3.1`.
pub(crate) fn address_in(line: &str) -> Option<Ipv4Addr> {
    line.strip_prefix("net0: ")?.split('/').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_the_cursor_is_not_read() {
        assert_eq!(shown("\x1b[0;1miPXE 1.0\x1b[0m -- boot\r\n"), "iPXE 1.0 -- boot");
        assert_eq!(
            shown("Press\x08 \x08\x08 \x08\x08 \x08\x08 \x08\x08 \x08net0: up\r\n"),
            "net0: up"
        );
    }

    #[test]
    fn an_address_is_that_of_ipv4() {
        let line = "net0: 10.0.3.158/255.255.255.0 gw 10.0.3.1";
        assert_eq!(address_in(line), Some(Ipv4Addr::new(10, 0, 3, 158)));
        assert_eq!(address_in("net0: fe80::5054:ff:fe12:3456/64"), None);
        assert_eq!(address_in("net0: 52:54:00:12:34:56 using virtio-net (open)"), None);
    }
}
