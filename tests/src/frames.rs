//! Frames for the cases, built by etherparse, whose checksums are not ours.

use etherparse::{Ipv4Options, PacketBuilder, ip_number};

/// Where an IPv4 header starts.
pub const IP: usize = 14;
/// Where an IPv4 header holds its total length.
pub const TOTAL_LENGTH: usize = IP + 2;
/// Where an IPv4 header holds flags and fragment offset.
pub const FRAGMENT: usize = IP + 6;

/// A UDP datagram over IPv4 over Ethernet.
#[derive(Clone, Debug)]
pub struct Udp {
    /// IP options, a multiple of 4 bytes.
    pub options: Vec<u8>,
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Udp {
    /// A DHCP reply with a payload of this length.
    pub fn reply(payload_len: usize) -> Self {
        Self {
            options: Vec::new(),
            source: 67,
            destination: 68,
            payload: (0..payload_len).map(|at| (at * 13 + at / 251 + 2) as u8).collect(),
        }
    }

    /// The same with IP options of this length: no-operation options, then their end.
    #[must_use]
    pub fn with_options(mut self, len: usize) -> Self {
        self.options = vec![1; len];
        self
    }

    /// Where the UDP header starts.
    pub fn start(&self) -> usize {
        IP + 20 + self.options.len()
    }

    /// Where the checksum lies.
    pub fn checksum_at(&self) -> usize {
        self.start() + 6
    }

    /// The frame, its checksum right.
    pub fn right(&self) -> Vec<u8> {
        let mut ip =
            etherparse::Ipv4Header::new(0, 64, ip_number::UDP, [10, 0, 3, 1], [10, 0, 3, 129])
                .expect("an empty payload fits");
        ip.options = Ipv4Options::try_from(&self.options[..]).expect("options fit");
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [0xff; 6])
            .ip(etherparse::IpHeaders::Ipv4(ip, Default::default()))
            .udp(self.source, self.destination)
            .write(&mut frame, &self.payload)
            .expect("a vector takes every byte");
        frame
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
    /// word as RFC 768 defines it.
    pub fn pseudo_header(&self) -> u16 {
        let len = 8 + self.payload.len() as u32;
        let words = [0x0a00, 0x0301, 0x0a00, 0x0381, 17, len];
        let sum: u32 = words.iter().sum();
        ((sum & 0xffff) + (sum >> 16)) as u16
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

/// Stores a 16-bit field.
pub fn put(frame: &mut [u8], at: usize, value: u16) {
    frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Reads a 16-bit field.
pub fn get(frame: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([frame[at], frame[at + 1]])
}
