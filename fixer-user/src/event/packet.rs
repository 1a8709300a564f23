//! Who speaks to whom, as far as the captured frame tells.
//!
//! Events are often about packets that are not in order, and a capture may end anywhere. So nothing
//! here fails: what cannot be read is unknown.

use std::{fmt, net::IpAddr};

use etherparse::{
    LaxIpPayloadSlice, LaxLinkExtSlice, LaxNetSlice, LaxSlicedPacket, LinkSlice, UdpSlice,
    ip_number,
};
use fixer_common::wire::ipv6::extension;
use serde::{Serialize, Serializer};

/// What the headers of a packet say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Packet {
    /// Ethernet source address.
    pub src_mac: Option<Mac>,
    /// Ethernet destination address.
    pub dst_mac: Option<Mac>,
    /// Id of the outermost VLAN.
    pub vlan: Option<u16>,
    /// Source address.
    pub src: Option<IpAddr>,
    /// Source port.
    pub sport: Option<u16>,
    /// Destination address.
    pub dst: Option<IpAddr>,
    /// Destination port.
    pub dport: Option<u16>,
    /// The length field of the UDP header: header and payload in bytes.
    pub udp_len: Option<u16>,
    /// What the ports belong to.
    #[serde(skip)]
    pub transport: Option<Transport>,
}

/// A transport protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// UDP (RFC 768).
    Udp,
    /// TCP (RFC 9293).
    Tcp,
}

impl Transport {
    /// Its name as tcpdump writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

/// An Ethernet address, written `0e:eb:4f:74:8d:15`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The bits of a VLAN tag that are the VLAN's id.
const VLAN_ID: u16 = 0x0fff;

impl Packet {
    /// Reads the headers of an Ethernet frame, or of the start of one. `tag` is the VLAN tag that
    /// the kernel keeps beside the frame; it lies outside those within.
    ///
    /// Returns also the payload of the UDP datagram, or the start of it.
    pub fn parse(frame: &[u8], tag: Option<u16>) -> (Self, Option<&[u8]>) {
        let mut packet = Self { vlan: tag.map(|tci| tci & VLAN_ID), ..Self::default() };
        let Ok(slices) = LaxSlicedPacket::from_ethernet(frame) else {
            return (packet, None);
        };
        if let Some(LinkSlice::Ethernet2(ethernet)) = &slices.link {
            packet.src_mac = Some(Mac(ethernet.source()));
            packet.dst_mac = Some(Mac(ethernet.destination()));
        }
        if let Some(LaxLinkExtSlice::Vlan(vlan)) = slices.link_exts.first() {
            packet.vlan.get_or_insert(vlan.vlan_identifier().value());
        }
        let payload = match &slices.net {
            Some(LaxNetSlice::Ipv4(ip)) => {
                let header = ip.header();
                packet.src = Some(header.source_addr().into());
                packet.dst = Some(header.destination_addr().into());
                // A later fragment has no transport header; the first one does.
                (header.fragments_offset().value() == 0).then(|| ip.payload())
            }
            Some(LaxNetSlice::Ipv6(ip)) => {
                packet.src = Some(ip.header().source_addr().into());
                packet.dst = Some(ip.header().destination_addr().into());
                let first = ip.header().next_header().0;
                (!is_later_fragment(first, ip.extensions().slice())).then(|| ip.payload())
            }
            Some(LaxNetSlice::Arp(_)) | None => None,
        };
        let datagram = payload.and_then(|payload| packet.transport(frame, payload));
        (packet, datagram)
    }

    /// Reads the transport header, and returns the payload of a UDP datagram.
    ///
    /// A header that its packet's lengths cut off is read from the frame all the same: by its ports the
    /// packet was found.
    fn transport<'a>(&mut self, frame: &[u8], payload: &LaxIpPayloadSlice<'a>) -> Option<&'a [u8]> {
        let start = payload.payload.as_ptr().addr().checked_sub(frame.as_ptr().addr())?;
        let field = |at: usize| {
            let bytes = frame.get(start + at..)?.first_chunk()?;
            Some(u16::from_be_bytes(*bytes))
        };
        self.transport = match payload.ip_number {
            ip_number::UDP => Some(Transport::Udp),
            ip_number::TCP => Some(Transport::Tcp),
            _ => return None,
        };
        // One without the other says little.
        (self.sport, self.dport) = field(0).zip(field(2)).unzip();
        if self.transport == Some(Transport::Tcp) {
            return None;
        }
        self.udp_len = field(4);
        UdpSlice::from_slice_lax(payload.payload).ok().map(|udp| udp.payload())
    }
}

/// Whether IPv6 extension headers, of which the first is of this kind, are those of a fragment that is not the
/// first one. Walked through here: etherparse's own walk reads beyond a header that is cut.
fn is_later_fragment(mut kind: u8, mut headers: &[u8]) -> bool {
    while let Some([next, length, third, fourth]) = headers.first_chunk() {
        let len = match kind {
            extension::FRAGMENT => {
                let bits = u16::from_be_bytes([*third, *fourth]);
                if bits & extension::FRAGMENT_OFFSET != 0 {
                    return true;
                }
                extension::FRAGMENT_LEN
            }
            extension::AUTHENTICATION => (usize::from(*length) + 2) * 4,
            _ => (usize::from(*length) + 1) * 8,
        };
        kind = *next;
        headers = headers.get(len..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::*;
    use crate::event::fixture;

    #[test]
    fn a_whole_packet() {
        let frame = fixture::offer_frame();
        let (packet, payload) = Packet::parse(&frame, None);
        assert_eq!(
            packet,
            Packet {
                src_mac: Some(fixture::SERVER),
                dst_mac: Some(fixture::CLIENT),
                vlan: None,
                src: Some([10, 0, 3, 1].into()),
                sport: Some(67),
                dst: Some([10, 0, 3, 129].into()),
                dport: Some(68),
                udp_len: Some(308),
                transport: Some(Transport::Udp),
            }
        );
        assert_eq!(payload, Some(&frame[42..]));
    }

    #[test]
    fn a_mac_is_written_as_everybody_does() {
        assert_eq!(Mac([0x0e, 0xeb, 0x4f, 0x74, 0x8d, 5]).to_string(), "0e:eb:4f:74:8d:05");
    }

    #[test]
    fn padding_is_no_payload() {
        let mut frame = fixture::offer_frame();
        frame.extend_from_slice(&[0; 18]);
        assert_eq!(Packet::parse(&frame, None).1, Some(&fixture::offer_frame()[42..]));
    }

    #[test]
    fn a_cut_frame_tells_what_it_still_holds() {
        let frame = fixture::offer_frame();
        let (whole, _) = Packet::parse(&frame, None);
        for len in 0..frame.len() {
            let (packet, payload) = Packet::parse(&frame[..len], None);
            assert_eq!(packet.src_mac, whole.src_mac.filter(|_| len >= 14), "{len} bytes");
            assert_eq!(packet.dst, whole.dst.filter(|_| len >= 34), "{len} bytes");
            assert_eq!(packet.dport, whole.dport.filter(|_| len >= 38), "{len} bytes");
            assert_eq!(packet.udp_len, whole.udp_len.filter(|_| len >= 40), "{len} bytes");
            assert_eq!(payload, frame[..len].get(42..), "{len} bytes");
        }
    }

    #[test]
    fn the_outermost_vlan_counts() {
        let frame = |tags: &[u16]| {
            let whole = fixture::offer_frame();
            let mut frame = whole[..12].to_vec();
            for tag in tags {
                frame.extend_from_slice(&[0x81, 0x00]);
                frame.extend_from_slice(&tag.to_be_bytes());
            }
            frame.extend_from_slice(&whole[12..]);
            frame
        };
        let vlan = |tags: &[u16], tag| {
            let frame = frame(tags);
            let (packet, payload) = Packet::parse(&frame, tag);
            assert_eq!(packet.dport, Some(68));
            assert_eq!(payload.map(<[u8]>::len), Some(300));
            packet.vlan
        };
        assert_eq!(vlan(&[], None), None);
        assert_eq!(vlan(&[0x6005], None), Some(5));
        assert_eq!(vlan(&[0x6005, 6], None), Some(5));
        assert_eq!(vlan(&[6], Some(0xe007)), Some(7));
        assert_eq!(Packet::parse(&[], Some(0xe007)).0.vlan, Some(7));
    }

    #[test]
    fn the_first_fragment_has_ports_and_later_ones_do_not() {
        let mut frame = fixture::offer_frame();
        frame[20] = 0x20;
        assert_eq!(Packet::parse(&frame, None).0.sport, Some(67));
        frame[21] = 0x05;
        let (later, payload) = Packet::parse(&frame, None);
        assert_eq!(later.src, Some([10, 0, 3, 1].into()));
        assert_eq!((later.sport, later.udp_len, payload), (None, None, None));
    }

    #[test]
    fn so_it_is_over_ipv6() {
        let fragment = |bits: u16| {
            let mut frame = Vec::new();
            PacketBuilder::ethernet2([2; 6], [4; 6])
                .ipv6([1; 16], [2; 16], 64)
                .udp(547, 546)
                .write(&mut frame, &[0; 64])
                .unwrap();
            frame[18..20].copy_from_slice(&80u16.to_be_bytes());
            frame[20] = 44;
            let [high, low] = bits.to_be_bytes();
            frame.splice(54..54, [17, 0, high, low, 1, 2, 3, 4]);
            Packet::parse(&frame, None).0
        };
        assert_eq!(fragment(1).sport, Some(547));
        assert_eq!((fragment(8 << 3).sport, fragment(8 << 3).transport), (None, None));
        assert_eq!(fragment(8 << 3).dst, Some([2; 16].into()));
    }

    #[test]
    fn a_header_that_the_lengths_cut_off_is_read_all_the_same() {
        let mut frame = fixture::offer_frame();
        frame[16..18].copy_from_slice(&24u16.to_be_bytes());
        let (packet, payload) = Packet::parse(&frame, None);
        assert_eq!((packet.sport, packet.dport, packet.udp_len), (Some(67), Some(68), Some(308)));
        assert_eq!((packet.transport, payload), (Some(Transport::Udp), None));

        let mut segment = Vec::new();
        let builder =
            PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([1; 4], [2; 4], 64).tcp(80, 4000, 0, 0);
        builder.write(&mut segment, b"data").unwrap();
        for offset in [0x40, 0xf0] {
            segment[46] = offset;
            let (packet, _) = Packet::parse(&segment, None);
            assert_eq!((packet.sport, packet.dport), (Some(80), Some(4000)), "{offset:#x}");
        }
    }

    #[test]
    fn lengths_that_disagree_hide_nothing() {
        let mut frame = fixture::offer_frame();
        frame[16..18].copy_from_slice(&u16::MAX.to_be_bytes());
        frame[38..40].copy_from_slice(&7u16.to_be_bytes());
        let (packet, _) = Packet::parse(&frame, None);
        assert_eq!((packet.sport, packet.udp_len), (Some(67), Some(7)));
    }

    #[test]
    fn ipv6_and_tcp() {
        let addresses = (Ipv6Addr::LOCALHOST, "fe80::1".parse::<Ipv6Addr>().unwrap());
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv6(addresses.0.octets(), addresses.1.octets(), 64)
            .udp(547, 546);
        let mut frame = Vec::new();
        builder.write(&mut frame, b"reply").unwrap();
        let (packet, payload) = Packet::parse(&frame, None);
        assert_eq!(packet.src, Some(addresses.0.into()));
        assert_eq!(packet.dst, Some(addresses.1.into()));
        assert_eq!((packet.sport, packet.dport, packet.udp_len), (Some(547), Some(546), Some(13)));
        assert_eq!(payload, Some(&b"reply"[..]));

        let builder =
            PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([1; 4], [2; 4], 64).tcp(80, 4000, 0, 0);
        let mut frame = Vec::new();
        builder.write(&mut frame, b"data").unwrap();
        let (packet, payload) = Packet::parse(&frame, None);
        assert_eq!(packet.transport, Some(Transport::Tcp));
        assert_eq!((packet.sport, packet.dport), (Some(80), Some(4000)));
        assert_eq!((packet.udp_len, payload), (None, None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_looked_at(frame: Vec<u8>, tag: Option<u16>) {
            Packet::parse(&frame, tag);
        }

        #[test]
        fn any_extension_headers_are_looked_at(
            kind: u8,
            kinds in prop::collection::vec((prop::sample::select(&[0, 17, 43, 44, 51, 60][..]), 0u8..4), 0..6),
            cut in 0usize..120,
        ) {
            let mut frame = vec![2; 12];
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 100, kind, 64]);
            frame.extend([1; 32]);
            for (next, length) in kinds {
                frame.extend([next, length]);
                frame.extend(vec![0; 6 + 8 * usize::from(length)]);
            }
            frame.truncate(cut.max(14));
            Packet::parse(&frame, None);
        }

        #[test]
        fn a_frame_with_any_faults_is_looked_at(
            faults in prop::collection::vec((0usize..70, any::<u8>()), 1..8),
            len in 0usize..342,
        ) {
            let mut frame = fixture::offer_frame();
            for (at, byte) in faults {
                frame[at] = byte;
            }
            Packet::parse(&frame[..len], None);
        }
    }
}
