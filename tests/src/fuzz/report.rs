//! The event that the program sends about a packet.

use anyhow::{Result, ensure};
use fixer_common::abi::{
    Hook,
    event::{LONG_SAMPLE, room},
};
use fixer_user::{
    bpf::ring::Ring,
    event::{Sample, Stored, Tag},
};

use super::reference::Checksum;

/// What an event says. When the packet was seen, and on which interface, is another test's matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The verdict's name.
    pub verdict: &'static str,
    /// Where the packet passed.
    pub hook: Hook,
    /// Length of the packet, as it goes on.
    pub frame_len: usize,
    /// The packet as it goes on, or as much of it as an event holds.
    pub frame: Vec<u8>,
    /// Its checksum field, if it was looked at.
    pub checksum: Option<Checksum>,
    /// The VLAN tag beside the frame, as it is on a wire.
    pub tag: Option<[u8; 4]>,
}

/// The most bytes of a packet that an event holds.
pub const MOST_CAPTURED: usize = room(LONG_SAMPLE);

/// Takes the report out of the ring buffer, if there is one.
pub fn take(ring: &mut Ring) -> Result<Option<Report>> {
    let mut samples = ring.drain(usize::MAX).into_iter();
    let Some(sample) = samples.next() else { return Ok(None) };
    ensure!(samples.next().is_none(), "more than one event about one packet");
    let Sample { hook, verdict, expected, capture, .. } = Sample::parse(sample)?;
    let checksum =
        |Stored { at, value }| Checksum { at: at as usize, stored: value, right: expected };
    Ok(Some(Report {
        verdict: verdict.name(),
        hook,
        frame_len: capture.frame_len as usize,
        frame: capture.bytes.to_vec(),
        checksum: capture.checksum.map(checksum),
        tag: capture.tag.map(on_wire),
    }))
}

fn on_wire(Tag { protocol, tci }: Tag) -> [u8; 4] {
    let ([a, b], [c, d]) = (protocol.to_be_bytes(), tci.to_be_bytes());
    [a, b, c, d]
}
