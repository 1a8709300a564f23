//! Counters: one 64-bit number for each verdict, kept for each interface and hook on each CPU.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Which counters: those of one hook of one interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Key {
    /// The interface's index in its network namespace.
    pub ifindex: u32,
    /// The [`Hook`](super::Hook)'s number.
    pub hook: u32,
}

/// Places for verdicts in [`Values`]; more than there are, so that new ones need no new layout.
pub const PLACES: usize = 16;

/// Packets by the number of their verdict.
pub type Values = [u64; PLACES];

const _: () = assert!(size_of::<Key>() == 8);
const _: () = assert!(crate::verdict::TABLE.len() <= PLACES);
