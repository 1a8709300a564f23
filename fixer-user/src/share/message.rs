//! What goes over the socket: one message a packet, its kind in the first byte.

use fixer_common::{
    abi::event::{Header, LONG_SAMPLE},
    verdict::{self, Verdict},
};
use zerocopy::FromBytes as _;

/// The first byte of a sample.
pub(super) const SAMPLE: u8 = b's';
const LOST: u8 = b'l';
const READY: u8 = b'r';
const FOLLOWS: u8 = b'f';

/// The bit of a wish, beside those of the verdicts, that asks for exchanges. Who does not know it answers
/// as if it were not there.
const EXCHANGES: u32 = 1 << 31;
const _: () = assert!(verdict::ALL & EXCHANGES == 0);

/// The longest message.
pub(super) const LONGEST: usize = 1 + LONG_SAMPLE;

/// What a watcher is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// From now on it sees every event that it wants.
    Ready,
    /// What the kernel said about a packet; as little trusted as if it came from there.
    Sample(&'a [u8]),
    /// So many events are missing here.
    Lost(u64),
    /// Whether exchanges are followed there; from now on it sees every event of them if they are.
    Follows(bool),
}

impl<'a> Message<'a> {
    /// Reads one; `None`: it is none.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        match bytes.split_first()? {
            (&READY, []) => Some(Self::Ready),
            (&SAMPLE, sample) => Some(Self::Sample(sample)),
            (&FOLLOWS, [follows @ 0..=1]) => Some(Self::Follows(*follows == 1)),
            (&LOST, lost) => Some(Self::Lost(u64::from_ne_bytes(lost.try_into().ok()?))),
            _ => None,
        }
    }
}

/// [`Message::Ready`] as bytes.
pub(super) const fn ready() -> [u8; 1] {
    [READY]
}

/// [`Message::Follows`] as bytes.
pub(super) const fn follows(follows: bool) -> [u8; 2] {
    [FOLLOWS, follows as u8]
}

/// [`Message::Lost`] as bytes.
pub(super) fn lost(lost: u64) -> [u8; 9] {
    let mut bytes = [LOST; 9];
    bytes[1..].copy_from_slice(&lost.to_ne_bytes());
    bytes
}

/// What a watcher says first and last: what it wants to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The verdicts whose events it wants, as a set of bits.
    pub verdicts: u32,
    /// Whether it wants every event, if exchanges between clients and servers can be read from them.
    pub exchanges: bool,
}

impl Wish {
    /// The events with these verdicts, and no others.
    pub const fn of(verdicts: u32) -> Self {
        Self { verdicts, exchanges: false }
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let wish = u32::from_ne_bytes(bytes.try_into().ok()?);
        Some(Self { verdicts: wish & verdict::ALL, exchanges: wish & EXCHANGES != 0 })
    }

    pub(super) const fn bytes(self) -> [u8; 4] {
        let exchanges = if self.exchanges { EXCHANGES } else { 0 };
        (self.verdicts | exchanges).to_ne_bytes()
    }

    /// The verdicts whose events it is shown where exchanges are followed, or are not.
    pub(super) const fn shown(self, follows: bool) -> u32 {
        if self.exchanges && follows { verdict::ALL } else { self.verdicts }
    }
}

/// Whether a sample is among these verdicts. What cannot be read is, so that its reader says so.
pub(super) fn is_among(sample: &[u8], verdicts: u32) -> bool {
    let header = Header::read_from_prefix(sample).ok();
    let verdict = header.and_then(|(header, _)| Verdict::from_number(header.verdict));
    verdict.is_none_or(|verdict| verdict.bit() & verdicts != 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        assert_eq!(Message::parse(&ready()), Some(Message::Ready));
        assert_eq!(Message::parse(&lost(7)), Some(Message::Lost(7)));
        assert_eq!(Message::parse(b"sample"), Some(Message::Sample(b"ample")));
        for is_so in [false, true] {
            assert_eq!(Message::parse(&follows(is_so)), Some(Message::Follows(is_so)));
            let wish = Wish { verdicts: 5, exchanges: is_so };
            assert_eq!(Wish::parse(&wish.bytes()), Some(wish));
            assert_eq!(wish.shown(false), 5);
            assert_eq!(wish.shown(true), if is_so { verdict::ALL } else { 5 });
        }
        assert_eq!(Wish::parse(&5_u32.to_ne_bytes()), Some(Wish::of(5)));
        assert_eq!(Wish::parse(&(1_u32 << 30).to_ne_bytes()), Some(Wish::of(0)));
    }

    #[test]
    fn what_is_not_one_is_none() {
        for bytes in
            [&b""[..], b"x", b"ready", b"l1234567", b"l123456789", b"f", b"f\x02", b"f\0\0"]
        {
            assert_eq!(Message::parse(bytes), None, "{bytes:?}");
        }
        assert_eq!((Wish::parse(b"123"), Wish::parse(b"12345")), (None, None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_none(bytes: Vec<u8>) {
            let _ = Message::parse(&bytes);
            let _ = is_among(&bytes, 1);
        }
    }
}
