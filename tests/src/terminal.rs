//! A terminal with nobody before it: what a program draws on it can be read, and keys pressed.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    time::Instant,
};

use anyhow::{Result, bail, ensure};
use nix::{
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    pty::{Winsize, openpty},
    sys::termios::{Termios, tcgetattr},
};
use vt100::{Parser, Screen};

use crate::command::PATIENCE;

/// A pseudo terminal, and the screen of whoever looks at it.
pub struct Terminal {
    /// The side of who looks.
    master: File,
    /// The side of the program. That this one is open keeps the terminal.
    slave: OwnedFd,
    parser: Parser,
    /// How the terminal was set at first.
    settings: Termios,
}

impl Terminal {
    /// A terminal of this size.
    pub fn open(columns: u16, lines: u16) -> Result<Self> {
        let pty = openpty(&size(columns, lines), None)?;
        let settings = tcgetattr(&pty.slave)?;
        let parser = Parser::new(lines.try_into()?, columns.try_into()?, 0);
        Ok(Self { master: pty.master.into(), slave: pty.slave, parser, settings })
    }

    /// The program's side of it.
    pub fn side(&self) -> Result<OwnedFd> {
        Ok(self.slave.try_clone()?)
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        Ok(self.master.write_all(keys.as_bytes())?)
    }

    /// Gives it another size, of which the kernel tells the program.
    pub fn resize(&mut self, columns: u16, lines: u16) -> Result<()> {
        // SAFETY: the kernel reads a size from where there is one.
        let set = unsafe {
            libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &size(columns, lines))
        };
        ensure!(set == 0, "the terminal takes no other size");
        self.parser.screen_mut().set_size(lines.try_into()?, columns.try_into()?);
        Ok(())
    }

    /// What is on it now.
    pub fn screen(&self) -> &Screen {
        self.parser.screen()
    }

    /// Waits until the screen looks so.
    pub fn wait(&mut self, what: &str, is_so: impl Fn(&Screen) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self.parser.screen()) {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut more = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
            if poll(&mut more, PollTimeout::try_from(left)?)? == 0 {
                bail!("not seen: {what}; on the screen is\n{}", self.parser.screen().contents());
            }
            let mut bytes = [0; 4096];
            let read = self.master.read(&mut bytes)?;
            self.parser.process(&bytes[..read]);
        }
        Ok(())
    }

    /// Waits for words on the screen.
    pub fn shows(&mut self, words: &str) -> Result<()> {
        self.wait(words, |screen| screen.contents().contains(words))
    }

    /// Fails unless it is left as it was found: the picture is gone, the cursor is there, and keys are
    /// shown as they are typed.
    pub fn is_restored(&mut self) -> Result<()> {
        self.wait("no picture, and a cursor", |screen| {
            !screen.alternate_screen() && !screen.hide_cursor()
        })?;
        ensure!(tcgetattr(&self.slave)? == self.settings, "the terminal is set otherwise");
        Ok(())
    }
}

fn size(columns: u16, lines: u16) -> Winsize {
    Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}
