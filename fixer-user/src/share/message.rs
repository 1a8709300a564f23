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
}

impl<'a> Message<'a> {
    /// Reads one; `None`: it is none.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        match bytes.split_first()? {
            (&READY, []) => Some(Self::Ready),
            (&SAMPLE, sample) => Some(Self::Sample(sample)),
            (&LOST, lost) => Some(Self::Lost(u64::from_ne_bytes(lost.try_into().ok()?))),
            _ => None,
        }
    }
}

/// [`Message::Ready`] as bytes.
pub(super) const fn ready() -> [u8; 1] {
    [READY]
}

/// [`Message::Lost`] as bytes.
pub(super) fn lost(lost: u64) -> [u8; 9] {
    let mut bytes = [LOST; 9];
    bytes[1..].copy_from_slice(&lost.to_ne_bytes());
    bytes
}

/// What a watcher says first and last: the set of verdicts that it wants.
pub(super) fn wish(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.try_into().ok()?) & verdict::ALL)
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
        assert_eq!(wish(&5_u32.to_ne_bytes()), Some(5));
        assert_eq!(wish(&u32::MAX.to_ne_bytes()), Some(verdict::ALL));
    }

    #[test]
    fn what_is_not_one_is_none() {
        for bytes in [&b""[..], b"x", b"ready", b"l1234567", b"l123456789"] {
            assert_eq!(Message::parse(bytes), None, "{bytes:?}");
        }
        assert_eq!((wish(b"123"), wish(b"12345")), (None, None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_none(bytes: Vec<u8>) {
            let _ = Message::parse(&bytes);
            let _ = is_among(&bytes, 1);
        }
    }
}
