//! Frames for the cases, built by etherparse, whose checksums are not ours.

use etherparse::{
    IpHeaders, Ipv4Header, Ipv4Options, Ipv6FlowLabel, Ipv6Header, PacketBuilder, ip_number,
};

/// Where the IP header starts.
pub const IP: usize = 14;
/// Where an IPv4 header holds its total length.
pub const TOTAL_LENGTH: usize = IP + 2;
/// Where an IPv4 header holds flags and fragment offset.
pub const FRAGMENT: usize = IP + 6;
/// Where an IPv6 header holds the length of its payload.
pub const PAYLOAD_LENGTH: usize = IP + 4;
/// Where an IPv6 header holds the kind of the next header.
pub const NEXT_HEADER: usize = IP + 6;

/// How a packet is carried.
#[derive(Clone, Debug)]
pub enum Network {
    /// IPv4 with options, a multiple of 4 bytes.
    V4(Vec<u8>),
    /// IPv6 with extension headers: the kind of each, and its bytes, of which the first is filled in.
    V6(Vec<(u8, Vec<u8>)>),
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A UDP datagram.
    Udp,
    /// A TCP segment without options.
    Tcp,
}

/// A datagram or segment over IP over Ethernet.
#[derive(Clone, Debug)]
pub struct Packet {
    /// How it is carried.
    pub network: Network,
    /// What it is.
    pub transport: Transport,
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Packet {
    /// A DHCP reply with a payload of this length.
    pub fn reply(payload_len: usize) -> Self {
        Self {
            network: Network::V4(Vec::new()),
            transport: Transport::Udp,
            source: 67,
            destination: 68,
            payload: (0..payload_len).map(|at| (at * 13 + at / 251 + 2) as u8).collect(),
        }
    }

    /// A DHCPv6 reply with a payload of this length.
    pub fn reply6(payload_len: usize) -> Self {
        Self {
            network: Network::V6(Vec::new()),
            source: 547,
            destination: 546,
            ..Self::reply(payload_len)
        }
    }

    /// A TCP segment with a payload of this length.
    pub fn segment(network: Network, payload_len: usize) -> Self {
        Self { network, transport: Transport::Tcp, ..Self::reply(payload_len) }
    }

    /// The same with IP options of this length: no-operation options.
    #[must_use]
    pub fn with_options(self, len: usize) -> Self {
        Self { network: Network::V4(vec![1; len]), ..self }
    }

    /// The same with these extension headers.
    #[must_use]
    pub fn with_extensions(self, extensions: &[(u8, Vec<u8>)]) -> Self {
        Self { network: Network::V6(extensions.to_vec()), ..self }
    }

    /// Where the transport header starts.
    pub fn start(&self) -> usize {
        IP + match &self.network {
            Network::V4(options) => 20 + options.len(),
            Network::V6(extensions) => {
                40 + extensions.iter().map(|(_, bytes)| bytes.len()).sum::<usize>()
            }
        }
    }

    /// Where the checksum lies behind the start of the transport header.
    pub fn checksum_offset(&self) -> usize {
        match self.transport {
            Transport::Udp => 6,
            Transport::Tcp => 16,
        }
    }

    /// Where the checksum lies.
    pub fn checksum_at(&self) -> usize {
        self.start() + self.checksum_offset()
    }

    /// The frame, its checksum right.
    pub fn right(&self) -> Vec<u8> {
        let ip = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [0xff; 6]).ip(self.headers());
        let mut frame = Vec::new();
        match self.transport {
            Transport::Udp => {
                ip.udp(self.source, self.destination).write(&mut frame, &self.payload)
            }
            Transport::Tcp => {
                ip.tcp(self.source, self.destination, 7, 1024).write(&mut frame, &self.payload)
            }
        }
        .expect("a vector takes every byte");
        if let Network::V6(extensions) = &self.network {
            extend(&mut frame, extensions);
        }
        frame
    }

    fn headers(&self) -> IpHeaders {
        let protocol = ip_number::UDP;
        match &self.network {
            Network::V4(options) => {
                let addresses = ([10, 0, 3, 1], [10, 0, 3, 129]);
                let mut ip = Ipv4Header::new(0, 64, protocol, addresses.0, addresses.1)
                    .expect("an empty payload fits");
                ip.options = Ipv4Options::try_from(&options[..]).expect("options fit");
                IpHeaders::Ipv4(ip, Default::default())
            }
            Network::V6(_) => {
                let mut source = [0; 16];
                (source[0], source[1], source[15]) = (0xfe, 0x80, 1);
                let destination = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0x91, 2, 3, 4, 5, 6, 7, 8];
                let ip = Ipv6Header {
                    traffic_class: 0,
                    flow_label: Ipv6FlowLabel::ZERO,
                    payload_length: 0,
                    next_header: protocol,
                    hop_limit: 64,
                    source,
                    destination,
                };
                IpHeaders::Ipv6(ip, Default::default())
            }
        }
    }

    /// The frame with this stored in its checksum field.
    pub fn with_checksum(&self, checksum: u16) -> Vec<u8> {
        let mut frame = self.right();
        put(&mut frame, self.checksum_at(), checksum);
        frame
    }

    /// The frame as the kernel leaves it for the hardware to finish.
    pub fn partial(&self) -> Vec<u8> {
        self.with_checksum(self.pseudo_header())
    }

    /// What `CHECKSUM_PARTIAL` leaves in the field: the folded sum of the pseudo-header, word by
    /// word as RFC 768, RFC 9293 and RFC 8200 define it.
    pub fn pseudo_header(&self) -> u16 {
        let frame = self.right();
        let (addresses, protocol) = match (&self.network, self.transport) {
            (Network::V4(_), Transport::Udp) => (IP + 12..IP + 20, 17),
            (Network::V4(_), Transport::Tcp) => (IP + 12..IP + 20, 6),
            (Network::V6(_), Transport::Udp) => (IP + 8..IP + 40, 17),
            (Network::V6(_), Transport::Tcp) => (IP + 8..IP + 40, 6),
        };
        let words = addresses.step_by(2).map(|at| u32::from(get(&frame, at)));
        let mut sum = words.sum::<u32>() + protocol + (frame.len() - self.start()) as u32;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    /// The right checksum.
    pub fn checksum(&self) -> u16 {
        get(&self.right(), self.checksum_at())
    }

    /// Changes the last two bytes of the payload so that the right checksum becomes `wanted`, which
    /// must not be 0 (that is sent as 0xffff). The payload is of even length.
    #[must_use]
    pub fn aim_at(mut self, wanted: u16) -> Self {
        let last = self.payload.len() - 2;
        self.payload[last..].fill(0);
        // In ones' complement: with nothing there the sum is !checksum; the word makes up the rest.
        let there = u32::from(!self.checksum());
        let rest = (u32::from(!wanted) + 0xffff - there) % 0xffff;
        self.payload[last..].copy_from_slice(&(rest as u16).to_be_bytes());
        assert_eq!(self.checksum(), wanted, "etherparse does not agree");
        self
    }
}

impl Packet {
    /// The frame with a right checksum of 0, which over TCP is a number like any other. What
    /// etherparse and others send in its place, 0xffff, is the same number.
    pub fn aim_at_zero(self) -> Vec<u8> {
        let mut packet = self;
        let last = packet.payload.len() - 2;
        packet.payload[last..].fill(0);
        let there = !packet.checksum();
        packet.payload[last..].copy_from_slice(&(!there).to_be_bytes());
        packet.with_checksum(0)
    }
}

/// Puts extension headers between the IPv6 header and what it carries. The checksum does not cover
/// them.
fn extend(frame: &mut Vec<u8>, extensions: &[(u8, Vec<u8>)]) {
    let mut last_kind = NEXT_HEADER;
    let mut at = IP + 40;
    for (kind, bytes) in extensions {
        let next = frame[last_kind];
        frame[last_kind] = *kind;
        frame.splice(at..at, bytes.iter().copied());
        frame[at] = next;
        last_kind = at;
        at += bytes.len();
    }
    let len = get(frame, PAYLOAD_LENGTH) + (at - IP - 40) as u16;
    put(frame, PAYLOAD_LENGTH, len);
}

/// The frame with VLAN tags in it, the outermost first.
#[must_use]
pub fn tagged(mut frame: Vec<u8>, tags: &[[u8; 4]]) -> Vec<u8> {
    frame.splice(12..12, tags.concat());
    frame
}

/// Stores a 16-bit field.
pub fn put(frame: &mut [u8], at: usize, value: u16) {
    frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Reads a 16-bit field.
pub fn get(frame: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([frame[at], frame[at + 1]])
}
