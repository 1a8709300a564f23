//! DHCP replies as bytes, with whatever checksum a trial needs.

use fixer_common::{
    checksum::{self, Sum},
    wire::{ethernet, ipv4, udp},
};

use super::packet::Partial;

/// Where the UDP header lies in a frame without IP options.
pub const UDP_AT: usize = ethernet::LEN + ipv4::LEN;

/// Where the checksum lies in a frame without IP options.
pub const CHECKSUM_AT: usize = UDP_AT + udp::CHECKSUM;

/// What tells the kernel that the checksum of such a frame is partial.
pub const PARTIAL: Partial =
    Partial { csum_start: UDP_AT as u16, csum_offset: udp::CHECKSUM as u16 };

/// A reply from 10.0.3.1 port 67 to broadcast port 68 that carries this payload, its checksum right.
pub fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(UDP_AT + udp::LEN + payload.len());
    etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [0xff; 6])
        .ipv4([10, 0, 3, 1], [255; 4], 64)
        .udp(67, 68)
        .write(&mut frame, payload)
        .unwrap_or_default();
    frame
}

/// Puts the pseudo-header sum where the checksum was: what a partial packet carries.
pub fn make_partial(frame: &mut [u8]) {
    let pseudo_header = pseudo_header(frame);
    frame[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&pseudo_header.fold().to_be_bytes());
}

/// Whether the frame's datagram verifies.
pub fn verifies(frame: &[u8]) -> bool {
    let len = frame.len() - UDP_AT;
    checksum::range(frame, UDP_AT, len, pseudo_header(frame)).is_some_and(Sum::verifies)
}

fn pseudo_header(frame: &[u8]) -> Sum {
    let len = (frame.len() - UDP_AT) as u16;
    let addresses = ethernet::LEN + ipv4::ADDRESSES;
    let words = frame[addresses..addresses + ipv4::ADDRESSES_LEN].as_chunks::<2>().0;
    let sum = words.iter().fold(Sum::default(), |sum, word| sum.word(u16::from_be_bytes(*word)));
    sum.word(u16::from(udp::PROTOCOL)).word(len)
}
