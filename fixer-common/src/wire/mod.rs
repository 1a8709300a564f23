//! Where the fields of the headers lie, under the names that the RFCs and the kernel give them.
//!
//! Offsets come from the layouts of the `network-types` crate. A field is always read by name:
//! `frame.load(at + udp::LEN_FIELD)`, never by a number.

/// Ethernet II (IEEE 802.3 clause 3).
pub mod ethernet {
    use core::mem::offset_of;
    use network_types::eth::EthHdr;

    /// Length of the header in bytes.
    pub const LEN: usize = EthHdr::LEN;
    /// The type of the payload, 2 bytes.
    pub const ETHER_TYPE: usize = offset_of!(EthHdr, ether_type);
    /// EtherType of IPv4 (RFC 894).
    pub const IPV4: u16 = 0x0800;
    /// EtherType of IPv6 (RFC 2464).
    pub const IPV6: u16 = 0x86dd;
}

/// VLAN tags inside a frame (IEEE 802.1Q). A tag stands where the EtherType would be; the EtherType
/// of what it tags follows it.
pub mod vlan {
    /// Length of a tag in bytes.
    pub const LEN: usize = 4;
    /// EtherType of a customer's tag.
    pub const CUSTOMER: u16 = 0x8100;
    /// EtherType of a provider's tag, the outer one of two (IEEE 802.1ad).
    pub const PROVIDER: u16 = 0x88a8;

    /// Whether a tag stands where this EtherType was found.
    #[inline(always)]
    pub const fn is_tag(ether_type: u16) -> bool {
        matches!(ether_type, CUSTOMER | PROVIDER)
    }
}

/// IPv4 (RFC 791).
pub mod ipv4 {
    use core::mem::offset_of;
    use network_types::ip::Ipv4Hdr;

    /// Length of the header without options in bytes.
    pub const LEN: usize = Ipv4Hdr::LEN;
    /// Version in the upper four bits, header length in 32-bit words in the lower, 1 byte.
    pub const VERSION_IHL: usize = offset_of!(Ipv4Hdr, vihl);
    /// Length of header and payload in bytes, 2 bytes.
    pub const TOTAL_LENGTH: usize = offset_of!(Ipv4Hdr, tot_len);
    /// Three flags and the fragment offset in units of 8 bytes, 2 bytes.
    pub const FRAGMENT: usize = offset_of!(Ipv4Hdr, frags);
    /// The protocol of the payload, 1 byte.
    pub const PROTOCOL: usize = offset_of!(Ipv4Hdr, proto);
    /// Source address, 4 bytes; the destination address follows.
    pub const ADDRESSES: usize = offset_of!(Ipv4Hdr, src_addr);
    /// Length of both addresses in bytes.
    pub const ADDRESSES_LEN: usize = 8;
    /// Version and header length of a header without options.
    pub const PLAIN: u8 = 0x45;
    /// In [`FRAGMENT`]: more fragments follow.
    pub const MORE_FRAGMENTS: u16 = 0x2000;
    /// In [`FRAGMENT`]: the bits of the offset.
    pub const FRAGMENT_OFFSET: u16 = 0x1fff;
}

/// IPv6 (RFC 8200).
pub mod ipv6 {
    use core::mem::offset_of;
    use network_types::ip::Ipv6Hdr;

    /// Length of the fixed header in bytes.
    pub const LEN: usize = Ipv6Hdr::LEN;
    /// Version in the upper four bits, 1 byte.
    pub const VERSION: usize = offset_of!(Ipv6Hdr, vcf);
    /// Length of what follows the fixed header in bytes, 2 bytes.
    pub const PAYLOAD_LENGTH: usize = offset_of!(Ipv6Hdr, payload_len);
    /// The kind of the next header, 1 byte.
    pub const NEXT_HEADER: usize = offset_of!(Ipv6Hdr, next_hdr);
    /// Source address, 16 bytes; the destination address follows.
    pub const ADDRESSES: usize = offset_of!(Ipv6Hdr, src_addr);
    /// Length of both addresses in bytes.
    pub const ADDRESSES_LEN: usize = 32;

    /// The headers that may stand between the fixed header and the transport's.
    pub mod extension {
        /// Hop-by-hop options (RFC 8200, section 4.3).
        pub const HOP_BY_HOP: u8 = 0;
        /// Routing (RFC 8200, section 4.4).
        pub const ROUTING: u8 = 43;
        /// Fragment (RFC 8200, section 4.5).
        pub const FRAGMENT: u8 = 44;
        /// Authentication (RFC 4302).
        pub const AUTHENTICATION: u8 = 51;
        /// Destination options (RFC 8200, section 4.6).
        pub const DESTINATION: u8 = 60;
        /// Every kind in one word: kind, length, and two bytes more, at the start of the header.
        pub const START: usize = 0;
        /// Length of the fragment header in bytes.
        pub const FRAGMENT_LEN: usize = 8;
        /// In the third and fourth byte of a fragment header: the bits of the offset.
        pub const FRAGMENT_OFFSET: u16 = 0xfff8;
        /// In the third and fourth byte of a fragment header: more fragments follow.
        pub const MORE_FRAGMENTS: u16 = 1;
    }
}

/// What UDP and TCP have in common.
pub mod transport {
    /// Source port and destination port, 4 bytes at the start of the header.
    pub const PORTS: usize = 0;
}

/// UDP (RFC 768).
pub mod udp {
    use core::mem::offset_of;
    use network_types::udp::UdpHdr;

    /// IP protocol number.
    pub const PROTOCOL: u8 = 17;
    /// Length of the header in bytes.
    pub const LEN: usize = UdpHdr::LEN;
    /// Length of header and payload in bytes, 2 bytes.
    pub const LENGTH: usize = offset_of!(UdpHdr, len);
    /// The checksum, 2 bytes.
    pub const CHECKSUM: usize = offset_of!(UdpHdr, check);
}

/// TCP (RFC 9293).
pub mod tcp {
    use core::mem::offset_of;
    use network_types::tcp::TcpHdr;

    /// IP protocol number.
    pub const PROTOCOL: u8 = 6;
    /// Length of the header without options in bytes.
    pub const LEN: usize = TcpHdr::LEN;
    /// Header length in 32-bit words in the upper four bits, 1 byte.
    pub const DATA_OFFSET: usize = 12;
    /// The checksum, 2 bytes.
    pub const CHECKSUM: usize = offset_of!(TcpHdr, check);
}
