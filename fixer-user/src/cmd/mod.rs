//! The verbs, one file each.

pub mod attach;
pub mod checks;
pub mod demo;
pub mod detach;
pub mod doctor;
pub mod run;
pub mod selftest;
pub mod serve_events;
pub mod sinks;
pub mod status;
pub mod top;
pub mod watch;

use std::process::ExitCode;

/// What a verb that found a problem exits with.
pub const FOUND_A_PROBLEM: u8 = 3;

/// How a verb ended, if nothing failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did what it was asked to do.
    Done,
    /// It looked, and found a problem.
    Problem,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::SUCCESS,
            Outcome::Problem => Self::from(FOUND_A_PROBLEM),
        }
    }
}
