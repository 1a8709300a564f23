//! A sample of the ring buffer, taken apart.
//!
//! The bytes come from a program in the kernel that may be of another build than this one. They are
//! parsed field by field, and what makes no sense is an error that says so, never a guess.

use bytes::Bytes;
use fixer_common::{
    abi::{
        Hook,
        event::{HEADER_LEN, Header},
    },
    verdict::Verdict,
    wire::ethernet,
};
use thiserror::Error;
use zerocopy::FromBytes as _;

/// What the kernel says about one packet: [`Header`] and frame, with numbers that are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When the program saw the packet: nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// The interface's index in its network namespace.
    pub ifindex: u32,
    /// Where the program is attached.
    pub hook: Hook,
    /// What became of the packet.
    pub verdict: Verdict,
    /// What the checksum field should have held, if that was computed.
    pub expected: Option<u16>,
    /// The packet itself.
    pub capture: Capture,
}

/// A packet, or the start of one, as it was after the program acted on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// The start of the frame: all of it, a part, or nothing if the kernel could not copy it.
    pub bytes: Bytes,
    /// Length of the whole frame in bytes, without `tag`.
    pub frame_len: u32,
    /// The checksum field, if it was looked at.
    pub checksum: Option<Stored>,
    /// The VLAN tag that the kernel keeps beside the frame.
    pub tag: Option<Tag>,
}

/// A VLAN tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Its EtherType: a customer's (802.1Q) or a provider's (802.1ad).
    pub protocol: u16,
    /// Priority, and the VLAN's id in the lower 12 bits.
    pub tci: u16,
}

/// A checksum field as the program found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Where it lies, in bytes from the start of the frame.
    pub at: u32,
    /// What it held.
    pub value: u16,
}

/// Why a sample is not one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SampleError {
    /// The sample ends before its header does.
    #[error("an event of {len} bytes is too short for its header of {HEADER_LEN}")]
    Short {
        /// Length of the sample in bytes.
        len: usize,
    },
    /// The header claims more bytes of the frame than follow it.
    #[error("an event says that {captured} bytes of the frame follow, but there are only {room}")]
    Cut {
        /// How many bytes of the frame follow, by the header's account.
        captured: u32,
        /// How many bytes do follow.
        room: usize,
    },
    /// The header claims more bytes of the frame than the frame has.
    #[error("an event says that it holds {captured} bytes of a frame of {frame_len}")]
    Overlong {
        /// How many bytes of the frame follow, by the header's account.
        captured: u32,
        /// Length of the whole frame, by the header's account.
        frame_len: u32,
    },
    /// The verdict's number is none that this build knows.
    #[error(
        "an event has the unknown verdict {0}: the program in the kernel is newer than this one; \
         attach again with this build, or watch with the build that attached it"
    )]
    Verdict(u8),
    /// The hook's number is none that this build knows.
    #[error(
        "an event has the unknown hook {0}: the program in the kernel is newer than this one; \
         attach again with this build, or watch with the build that attached it"
    )]
    Hook(u8),
}

impl Sample {
    /// Takes a sample apart. The frame is a part of the same memory; it is not copied.
    pub fn parse(sample: Bytes) -> Result<Self, SampleError> {
        let short = SampleError::Short { len: sample.len() };
        let (header, rest) = Header::read_from_prefix(&sample).map_err(|_| short)?;
        let Header { captured, frame_len, .. } = header;
        let room = rest.len();
        if captured as usize > room {
            return Err(SampleError::Cut { captured, room });
        }
        if captured > frame_len {
            return Err(SampleError::Overlong { captured, frame_len });
        }
        let looked_at = header.checksum_at != 0;
        Ok(Self {
            time: header.time,
            ifindex: header.ifindex,
            hook: Hook::from_number(header.hook).ok_or(SampleError::Hook(header.hook))?,
            verdict: Verdict::from_number(header.verdict)
                .ok_or(SampleError::Verdict(header.verdict))?,
            // A computed sum is never 0: that face of zero is taken by "no checksum".
            expected: (looked_at && header.expected != 0).then_some(header.expected),
            capture: Capture {
                bytes: sample.slice(HEADER_LEN..HEADER_LEN + captured as usize),
                frame_len,
                checksum: looked_at
                    .then_some(Stored { at: header.checksum_at, value: header.stored }),
                tag: (header.vlan_protocol != 0)
                    .then_some(Tag { protocol: header.vlan_protocol, tci: header.vlan_tci }),
            },
        })
    }
}

/// Length of a VLAN tag in a frame in bytes.
const TAG_LEN: u32 = 4;

impl Capture {
    /// The bytes as the program saw them: the checksum that it found is back in its field, and the
    /// tag beside the frame is in the frame, where it will be on the wire.
    pub fn as_seen(&self) -> Vec<u8> {
        let mut frame = Vec::with_capacity(self.bytes.len() + TAG_LEN as usize);
        frame.extend_from_slice(&self.bytes);
        if let Some(Stored { at, value }) = self.checksum {
            for (byte, seen) in frame.iter_mut().skip(at as usize).zip(value.to_be_bytes()) {
                *byte = seen;
            }
        }
        if let Some(Tag { protocol, tci }) = self.tag
            && frame.len() >= ethernet::ETHER_TYPE
        {
            let tag = protocol.to_be_bytes().into_iter().chain(tci.to_be_bytes());
            frame.splice(ethernet::ETHER_TYPE..ethernet::ETHER_TYPE, tag);
        }
        frame
    }

    /// Length in bytes of the whole frame of which [`as_seen`](Self::as_seen) is the start.
    pub fn seen_len(&self) -> u32 {
        self.frame_len.saturating_add(self.tag.map_or(0, |_| TAG_LEN))
    }
}

#[cfg(test)]
mod tests {
    use fixer_common::verdict::TABLE;
    use proptest::prelude::*;
    use zerocopy::IntoBytes as _;

    use super::*;
    use crate::event::fixture;

    fn parse_header(change: impl FnOnce(&mut Header)) -> Result<Sample, SampleError> {
        let mut header = fixture::header(Verdict::Fixed, &fixture::offer_frame());
        change(&mut header);
        Sample::parse(fixture::sample(header, &fixture::offer_frame()))
    }

    #[test]
    fn a_sample_is_taken_apart_without_copying_the_frame() {
        let bytes = fixture::sample(
            fixture::header(Verdict::Fixed, &fixture::offer_frame()),
            &fixture::offer_frame(),
        );
        let sample = Sample::parse(bytes.clone()).unwrap();
        assert_eq!(sample.time, fixture::TIME);
        assert_eq!(sample.ifindex, 4);
        assert_eq!(sample.hook, Hook::Egress);
        assert_eq!(sample.verdict, Verdict::Fixed);
        assert_eq!(sample.expected, Some(0x072b));
        assert_eq!(sample.capture.checksum, Some(Stored { at: 40, value: 0x1bc7 }));
        assert_eq!(sample.capture.tag, None);
        assert_eq!(sample.capture.bytes, fixture::offer_frame());
        assert_eq!(sample.capture.bytes.as_ptr(), bytes[HEADER_LEN..].as_ptr());
    }

    #[test]
    fn every_number_of_the_table_is_known_and_no_other() {
        for row in &TABLE {
            let sample = parse_header(|header| header.verdict = row.verdict as u8).unwrap();
            assert_eq!(sample.verdict, row.verdict);
        }
        let unknown = TABLE.len() as u8;
        let error = parse_header(|header| header.verdict = unknown).unwrap_err();
        assert_eq!(error, SampleError::Verdict(unknown));
        assert_eq!(parse_header(|header| header.hook = 2).unwrap_err(), SampleError::Hook(2));
    }

    #[test]
    fn lengths_must_agree() {
        let header = fixture::header(Verdict::Fixed, &[]);
        let short = Bytes::copy_from_slice(&header.as_bytes()[..HEADER_LEN - 1]);
        assert_eq!(Sample::parse(short), Err(SampleError::Short { len: HEADER_LEN - 1 }));
        assert_eq!(Sample::parse(Bytes::new()), Err(SampleError::Short { len: 0 }));

        let room = fixture::offer_frame().len();
        let captured = room as u32 + 1;
        let cut = parse_header(|header| header.captured = captured).unwrap_err();
        assert_eq!(cut, SampleError::Cut { captured, room });
        let long = parse_header(|header| header.frame_len = 41).unwrap_err();
        assert_eq!(long, SampleError::Overlong { captured: room as u32, frame_len: 41 });
    }

    #[test]
    fn what_was_not_looked_at_or_not_computed_is_unknown() {
        let unseen = parse_header(|header| header.checksum_at = 0).unwrap();
        assert_eq!((unseen.capture.checksum, unseen.expected), (None, None));
        let unchecked = parse_header(|header| (header.stored, header.expected) = (0, 0)).unwrap();
        assert_eq!(unchecked.capture.checksum, Some(Stored { at: 40, value: 0 }));
        assert_eq!(unchecked.expected, None);
    }

    #[test]
    fn the_unused_end_of_a_sample_is_no_part_of_the_frame() {
        let sample = parse_header(|header| header.captured = 100).unwrap();
        assert_eq!(sample.capture.bytes, fixture::offer_frame()[..100]);
        assert_eq!(sample.capture.seen_len(), fixture::offer_frame().len() as u32);
    }

    #[test]
    fn the_packet_is_shown_as_it_was_seen() {
        let after = fixture::offer_frame();
        assert_eq!(after[40..42], [0x07, 0x2b]);
        let seen = parse_header(|_| ()).unwrap().capture.as_seen();
        assert_eq!(seen[40..42], [0x1b, 0xc7]);
        assert_eq!((&seen[..40], &seen[42..]), (&after[..40], &after[42..]));

        let untouched = parse_header(|header| header.checksum_at = 0).unwrap().capture.as_seen();
        assert_eq!(untouched, after);
    }

    #[test]
    fn a_tag_beside_the_frame_is_put_into_it() {
        let provider = |header: &mut Header| {
            (header.vlan_protocol, header.vlan_tci) = (0x88a8, 0x6005);
        };
        let capture = parse_header(provider).unwrap().capture;
        let (seen, after) = (capture.as_seen(), fixture::offer_frame());
        assert_eq!(seen[..12], after[..12]);
        assert_eq!(seen[12..16], [0x88, 0xa8, 0x60, 0x05]);
        assert_eq!(seen[16..44], after[12..40]);
        assert_eq!(seen[44..46], [0x1b, 0xc7]);
        assert_eq!(capture.seen_len() as usize, seen.len());
        let tag = |protocol, tci| {
            parse_header(|header| (header.vlan_protocol, header.vlan_tci) = (protocol, tci))
                .unwrap()
                .capture
                .tag
        };
        assert_eq!(tag(0x8100, 0), Some(Tag { protocol: 0x8100, tci: 0 }));
        assert_eq!(tag(0, 5), None);
    }

    #[test]
    fn a_capture_may_end_anywhere() {
        let whole = parse_header(|_| ()).unwrap().capture.as_seen();
        for captured in 0..whole.len() as u32 {
            let capture = parse_header(|header| header.captured = captured).unwrap().capture;
            assert_eq!(capture.as_seen(), whole[..captured as usize]);
            let capture =
                parse_header(|header| (header.captured, header.vlan_protocol) = (captured, 0x8100));
            let capture = capture.unwrap().capture;
            assert!(capture.as_seen().len() <= capture.seen_len() as usize);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_sample_or_an_error(bytes: Vec<u8>) {
            if let Ok(sample) = Sample::parse(bytes.into()) {
                sample.capture.as_seen();
            }
        }

        #[test]
        fn any_header_is_a_sample_or_an_error(header: [u8; HEADER_LEN], frame: Vec<u8>) {
            let mut header = Header::read_from_bytes(&header).unwrap();
            // Small numbers, so that most of the headers get past the first tests.
            header.frame_len %= 200;
            header.captured %= 100;
            header.checksum_at %= 100;
            header.verdict %= TABLE.len() as u8 + 1;
            header.hook %= 3;
            let bytes = fixture::sample(header, &frame);
            if let Ok(sample) = Sample::parse(bytes) {
                let seen = sample.capture.as_seen();
                prop_assert!(seen.len() <= sample.capture.seen_len() as usize);
            }
        }
    }
}
