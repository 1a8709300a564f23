//! How far a command came that was killed between two hooks.
//!
//! Each hook has a whole program or none at any moment; several hooks are not changed in one step. So while
//! a command is at them, a symbolic link lies beside the pins whose target says what is being done. It
//! is there at once before the first change, and goes after the last. Whoever finds one of a
//! command that is not at work any more can tell how far that came.

use std::{fs, io, os::unix::fs::symlink, str::FromStr};

use super::{
    pin::{PinError, Pins, refused},
    places::remove_file,
    resident::{Holder, Resident},
};

/// The name of the link, and the one under which it is made. A BPF file system has no names with a dot.
const NAME: &str = "halfway";
const NEW: &str = "halfway-new";

/// What a command is at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Halfway {
    /// How many hooks are meant.
    pub meant: usize,
    /// What is done with them.
    pub change: Change,
}

/// What is done with hooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// They get these programs, whether they had others or none.
    Attach(Vec<u32>),
    /// They lose theirs. So many were attached before.
    Detach(usize),
}

impl Halfway {
    /// Says how far it came, given everything that is attached in the namespace by `fixer attach` of one
    /// version. Unless `is_sure`, it may still be at work.
    pub fn told<'a>(&self, there: impl Iterator<Item = &'a Resident>, is_sure: bool) -> String {
        let Self { meant, change } = self;
        let (verb, done, remedy) = match change {
            Change::Attach(programs) => {
                let has_it = |there: &&Resident| programs.contains(&there.program);
                let remedy = "run it again, or take all off: fixer detach --all";
                ("attach", there.filter(has_it).count(), remedy)
            }
            Change::Detach(before) => (
                "detach",
                before.saturating_sub(there.count()),
                "run it again to take off the rest",
            ),
        };
        let was = if is_sure { "was killed" } else { "is at work, or was killed," };
        match done {
            0 => format!("`fixer {verb}` {was} before the first of its {meant} hooks was changed"),
            _ if done >= *meant => {
                format!("`fixer {verb}` {was} after the last of its {meant} hooks")
            }
            _ => format!("`fixer {verb}` {was} after {done} of its {meant} hooks; {remedy}"),
        }
    }

    fn text(&self) -> String {
        let Self { meant, change } = self;
        match change {
            Change::Attach(programs) => {
                let programs: Vec<_> = programs.iter().map(u32::to_string).collect();
                format!("attach {meant} {}", programs.join(","))
            }
            Change::Detach(before) => format!("detach {meant} {before}"),
        }
    }
}

impl FromStr for Halfway {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let number = |text: &str| text.parse().map_err(drop);
        let [verb, meant, rest] = text.split(' ').collect::<Vec<_>>()[..] else { return Err(()) };
        let change = match verb {
            "attach" => {
                let programs = rest.split(',').map(|id| id.parse().map_err(drop));
                Change::Attach(programs.collect::<Result<_, _>>()?)
            }
            "detach" => Change::Detach(number(rest)?),
            _ => return Err(()),
        };
        Ok(Self { meant: number(meant)?, change })
    }
}

impl Pins {
    /// From now on this is being done. Without pins there is no place to say so.
    pub fn mark(&self, halfway: &Halfway) -> Result<(), PinError> {
        let (path, new) = (self.dir.join(NAME), self.dir.join(NEW));
        remove_file(&new)?;
        match symlink(halfway.text(), &new) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            // What an earlier one was at is known until this one is.
            outcome => {
                outcome.and_then(|()| fs::rename(&new, &path)).map_err(refused("make", &path))
            }
        }
    }

    /// It is done.
    pub fn unmark(&self) -> Result<(), PinError> {
        remove_file(&self.dir.join(NEW)).and_then(|()| remove_file(&self.dir.join(NAME)))
    }

    /// What is being done, or was when somebody was killed.
    pub fn halfway(&self) -> Option<Halfway> {
        fs::read_link(self.dir.join(NAME)).ok()?.to_str()?.parse().ok()
    }

    /// Of what is attached, what these pins are about.
    pub fn of_these<'a>(&self, there: &'a [Resident]) -> impl Iterator<Item = &'a Resident> {
        let version = self.version;
        there.iter().filter(move |there| there.holder == Holder::Attach(version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_read_again() {
        for change in [Change::Attach(vec![7]), Change::Attach(vec![12, 13]), Change::Detach(8)] {
            let halfway = Halfway { meant: 6, change };
            assert_eq!(halfway.text().parse(), Ok(halfway));
        }
        for other in
            ["", "attach", "attach 6", "attach x 7", "attach 6 7 8", "run 6 7", "detach 1 -1"]
        {
            assert_eq!(other.parse::<Halfway>(), Err(()), "{other}");
        }
    }
}
