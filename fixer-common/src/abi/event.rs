//! Events: a fixed header, then as much of the frame as fits.
//!
//! The frame is taken after the program acted on it, so a fixed packet shows its new checksum.
//! Nothing else was changed: with [`Header::stored`] put back at the checksum field, these are the
//! bytes as they were seen.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What the kernel says about one packet. All numbers in the machine's byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// When the program saw the packet: nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// The interface's index in its network namespace.
    pub ifindex: u32,
    /// Length of the whole frame in bytes.
    pub frame_len: u32,
    /// How many bytes of the frame follow this header.
    pub captured: u32,
    /// Where the checksum field lies, in bytes from the start of the frame; 0 if it was not looked at.
    pub checksum_at: u32,
    /// What the checksum field held; 0 if it was not looked at.
    pub stored: u16,
    /// What it should hold; 0 if it was not computed.
    pub expected: u16,
    /// The VLAN tag that the kernel keeps beside the frame (`vlan_tci`), if there is one.
    pub vlan_tci: u16,
    /// That tag's EtherType (`vlan_proto`); 0 if there is none.
    pub vlan_protocol: u16,
    /// The [`Verdict`](crate::verdict::Verdict)'s number.
    pub verdict: u8,
    /// The [`Hook`](super::Hook)'s number.
    pub hook: u8,
    /// Always 0: fills the header up to a multiple of 8 bytes.
    pub padding: [u8; 6],
}

/// Length of [`Header`] in bytes.
pub const HEADER_LEN: usize = size_of::<Header>();

/// Length of a short sample in bytes: header, a usual DHCP reply, and what is left unused.
pub const SHORT_SAMPLE: usize = 640;

/// Length of a long sample in bytes: header, a full Ethernet frame, and what is left unused.
pub const LONG_SAMPLE: usize = 1600;

/// The most bytes of a frame that a sample of this length can hold.
pub const fn room(sample: usize) -> usize {
    sample - HEADER_LEN
}

const _: () = assert!(HEADER_LEN == 40);
const _: () = assert!(SHORT_SAMPLE.is_multiple_of(8) && LONG_SAMPLE.is_multiple_of(8));
const _: () = assert!(room(LONG_SAMPLE) >= 1518);
