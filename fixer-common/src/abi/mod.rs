//! What the eBPF programs and userspace say to each other: names, numbers and layouts.
//!
//! Whoever changes one of them raises [`VERSION`]; it is part of every pin's path, so that a program
//! and a loader that do not understand each other never meet.

pub mod config;
pub mod counter;
pub mod event;

/// The version of everything in this module.
pub const VERSION: u32 = 2;

/// The names of the programs, one for each hook.
pub mod program {
    /// The classifier for packets that leave through an interface.
    pub const EGRESS: &str = "fixer_egress";
    /// The classifier for packets that come in through an interface.
    pub const INGRESS: &str = "fixer_ingress";
}

/// The names of the maps.
pub mod map {
    /// Counters for each interface, hook and verdict: per-CPU hash of [`Key`](super::counter::Key).
    pub const COUNTERS: &str = "COUNTERS";
    /// Events for the reader: ring buffer of [`Header`](super::event::Header) and frame.
    pub const EVENTS: &str = "EVENTS";
    /// Events that found the ring buffer full: per-CPU array of one `u64`.
    pub const LOST: &str = "LOST";
    /// Which verdicts make an event: array of one `u32`, a set of
    /// [`Verdict::bit`](crate::verdict::Verdict::bit)s.
    pub const WANTED: &str = "WANTED";
    /// All of them.
    pub const ALL: [&str; 4] = [COUNTERS, EVENTS, LOST, WANTED];
}

/// Where a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Hook {
    /// Packets that come in through the interface.
    Ingress = 0,
    /// Packets that leave through the interface.
    Egress = 1,
}

impl Hook {
    /// The hook with this number, if there is one.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Ingress),
            1 => Some(Self::Egress),
            _ => None,
        }
    }

    /// Its name in events, metrics and options.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}
