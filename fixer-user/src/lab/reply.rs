//! DHCP replies as bytes, with whatever checksum a trial needs.

use fixer_common::{
    checksum::{self, Sum},
    wire::{ethernet, ipv4, ipv6, udp},
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
    sum_pseudo_header(frame, UDP_AT, ipv4::ADDRESSES_LEN)
}

/// The addresses are the last of an IP header without options or extensions.
fn sum_pseudo_header(frame: &[u8], udp_at: usize, addresses_len: usize) -> Sum {
    let words = frame[udp_at - addresses_len..udp_at].as_chunks::<2>().0;
    let sum = words.iter().fold(Sum::default(), |sum, word| sum.word(u16::from_be_bytes(*word)));
    sum.word(u16::from(udp::PROTOCOL)).word((frame.len() - udp_at) as u16)
}

/// How a reply is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// DHCP over IPv4.
    Ipv4,
    /// DHCP over IPv4 behind two VLAN tags.
    Tagged,
    /// DHCPv6 over IPv6.
    Ipv6,
}

/// Two tags: VLAN 7, and in it VLAN 100 with priority 5.
const TAGS: [u8; 8] = [0x81, 0x00, 0, 7, 0x81, 0x00, 0xa0, 100];

impl Carrier {
    /// A reply that carries this payload, its checksum right.
    pub fn frame(self, payload: &[u8]) -> Vec<u8> {
        match self {
            Self::Ipv4 => frame(payload),
            Self::Tagged => {
                let mut frame = frame(payload);
                frame.splice(ethernet::ETHER_TYPE..ethernet::ETHER_TYPE, TAGS);
                frame
            }
            Self::Ipv6 => frame_v6(payload),
        }
    }

    /// What tells the kernel that its checksum is partial.
    pub fn partial(self) -> Partial {
        let before = match self {
            Self::Ipv4 => ipv4::LEN,
            Self::Tagged => TAGS.len() + ipv4::LEN,
            Self::Ipv6 => ipv6::LEN,
        };
        Partial { csum_start: (ethernet::LEN + before) as u16, csum_offset: udp::CHECKSUM as u16 }
    }

    /// Where its checksum lies.
    pub fn checksum_at(self) -> usize {
        let Partial { csum_start, csum_offset } = self.partial();
        usize::from(csum_start + csum_offset)
    }

    /// The folded sum of its pseudo-header: what a partial packet carries.
    pub fn pseudo_header(self, frame: &[u8]) -> u16 {
        let addresses_len =
            if self == Self::Ipv6 { ipv6::ADDRESSES_LEN } else { ipv4::ADDRESSES_LEN };
        sum_pseudo_header(frame, self.partial().csum_start.into(), addresses_len).fold()
    }
}

fn frame_v6(payload: &[u8]) -> Vec<u8> {
    let link_local = |last| [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [0xff; 6])
        .ipv6(link_local(1), link_local(2), 64)
        .udp(547, 546)
        .write(&mut frame, payload)
        .unwrap_or_default();
    frame
}
