//! The one table of verdicts: counters, events, metrics and help all loop over it.

/// What became of a packet that a rule matched.
///
/// The numbers are part of the ABI and index the counters: new verdicts are added at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Verdict {
    /// The sum was partial; it is now complete and right, and the packet no longer partial.
    Fixed = 0,
    /// The sum is partial, and fixer only observes.
    Partial = 1,
    /// The sum was already right.
    Valid = 2,
    /// UDP over IPv4 with a stored 0: the sender chose no checksum (RFC 768).
    Unchecked = 3,
    /// The sum is wrong, and not because it is partial.
    Corrupt = 4,
    /// A fragment: the datagram is not here as a whole.
    Fragment = 5,
    /// A segmentation-offload packet: each of its segments will get a sum of its own.
    Gso = 6,
    /// Longer than what fixer adds up.
    Oversize = 7,
    /// Lengths disagree, or headers are cut short.
    Malformed = 8,
    /// A kernel helper refused before anything was changed.
    Failed = 9,
    /// A kernel helper refused half-way, and the frame was dropped.
    Dropped = 10,
}

/// A row of the table: what users read about a verdict.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The verdict.
    pub verdict: Verdict,
    /// Its name in events, metrics and help.
    pub name: &'static str,
    /// What it means and what happened to the packet, in one line.
    pub help: &'static str,
    /// Whether an operator wants to see it without asking for every packet.
    pub notable: bool,
}

/// Every verdict, in the order of its number.
pub const TABLE: [Row; 11] = [
    row(
        Verdict::Fixed,
        "fixed",
        "the sum was partial; now complete and right, no longer partial",
        true,
    ),
    row(Verdict::Partial, "partial", "the sum is partial; left unchanged, only observed", true),
    row(Verdict::Valid, "valid", "the sum was already right; unchanged", false),
    row(Verdict::Unchecked, "unchecked", "UDP over IPv4 without a checksum; unchanged", false),
    row(
        Verdict::Corrupt,
        "corrupt",
        "the sum is wrong, and not because it is partial; unchanged",
        true,
    ),
    row(Verdict::Fragment, "fragment", "a fragment cannot be summed here; unchanged", true),
    row(
        Verdict::Gso,
        "gso",
        "a segmentation-offload packet cannot be summed here; unchanged",
        true,
    ),
    row(Verdict::Oversize, "oversize", "too long to be summed here; unchanged", true),
    row(
        Verdict::Malformed,
        "malformed",
        "lengths disagree, or headers are cut short; unchanged",
        true,
    ),
    row(Verdict::Failed, "failed", "a kernel helper refused; the packet is intact", true),
    row(Verdict::Dropped, "dropped", "a kernel helper refused half-way; the frame was lost", true),
];

const fn row(verdict: Verdict, name: &'static str, help: &'static str, notable: bool) -> Row {
    Row { verdict, name, help, notable }
}

impl Verdict {
    /// The verdict with this number, if there is one.
    pub fn from_number(number: u8) -> Option<Self> {
        TABLE.get(usize::from(number)).map(|row| row.verdict)
    }

    /// Its row of the table.
    pub const fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// Its name in events, metrics and help.
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// Its bit in a set of verdicts.
    #[inline(always)]
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// The verdicts that are worth an event by default, as a set of [`Verdict::bit`]s.
pub const NOTABLE: u32 = {
    let (mut set, mut at) = (0, 0);
    while at < TABLE.len() {
        if TABLE[at].notable {
            set |= TABLE[at].verdict.bit();
        }
        at += 1;
    }
    set
};

/// All verdicts, as a set of [`Verdict::bit`]s.
pub const ALL: u32 = (1 << TABLE.len()) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_numbers() {
        for (number, row) in TABLE.iter().enumerate() {
            assert_eq!(row.verdict as usize, number);
            assert_eq!(Verdict::from_number(number as u8), Some(row.verdict));
        }
        assert_eq!(Verdict::from_number(TABLE.len() as u8), None);
    }

    #[test]
    fn a_quiet_stream_leaves_out_what_is_in_order() {
        assert_eq!(NOTABLE & Verdict::Valid.bit(), 0);
        assert_ne!(NOTABLE & Verdict::Corrupt.bit(), 0);
        assert_eq!(ALL & NOTABLE, NOTABLE);
    }
}
