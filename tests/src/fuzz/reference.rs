//! What must become of a frame, in the plainest words: the reference that the program is held to.
//!
//! Written from the RFCs and from the README's "What becomes of a packet", for the eye and not for the
//! machine. It shares nothing with fixer, not even the number of UDP: what the two have wrong, they
//! have wrong apart. A verdict is its name.

/// EtherTypes (RFC 894, RFC 2464, IEEE 802.1Q and 802.1ad).
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const TAGS: [u16; 2] = [0x8100, 0x88a8];

/// Protocol numbers of the transports (RFC 768, RFC 9293).
pub const UDP: u8 = 17;
/// See [`UDP`].
pub const TCP: u8 = 6;

/// Protocol numbers of the extension headers (RFC 8200, section 4; RFC 4302).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

// What fixer does not do, by its README.

/// The most VLAN tags inside a frame.
const MOST_TAGS: usize = 2;
/// The most extension headers.
const MOST_EXTENSIONS: usize = 6;
/// Extension headers that end behind this byte of the frame are not followed.
const FARTHEST_EXTENSION: usize = 2047;
/// The last byte at which a transport header may start, tags not counted.
const FARTHEST_TRANSPORT: usize = 156;
/// The longest datagram that is summed: what a jumbo frame holds.
const LONGEST_DATAGRAM: usize = 9216;
/// The longest frame that holds such a datagram, behind two tags and all that may come before it.
const LONGEST_FRAME: usize = 2 * 4 + FARTHEST_TRANSPORT + LONGEST_DATAGRAM;

/// A rule of `--match`, spelt out.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// [`UDP`] or [`TCP`].
    pub protocol: u8,
    /// Over IPv4.
    pub ipv4: bool,
    /// Over IPv6.
    pub ipv6: bool,
    /// The source port; `None` is any.
    pub source: Option<u16>,
    /// The destination port; `None` is any.
    pub destination: Option<u16>,
}

/// A frame, and what is asked of it.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// From its destination address on.
    pub frame: &'a [u8],
    /// Whether it is a segmentation-offload packet.
    pub gso: bool,
    /// The rules.
    pub rules: &'a [Wanted],
    /// Whether fixer only observes.
    pub observe_only: bool,
}

/// What must become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The verdict's name; `None`: no rule asks for it, and it is not counted.
    pub verdict: Option<&'static str>,
    /// The frame as it goes on.
    pub frame: Vec<u8>,
    /// VLAN tags in it.
    pub tags: usize,
    /// The checksum field, if it was looked at.
    pub checksum: Option<Checksum>,
}

/// A checksum field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksum {
    /// Where it lies in the frame.
    pub at: usize,
    /// What it held.
    pub stored: u16,
    /// What it must hold, if that was computed.
    pub right: Option<u16>,
}

/// What must become of a frame.
pub fn answer(question: &Question<'_>) -> Answer {
    let frame = question.frame;
    let intact = |verdict| Answer { verdict, frame: frame.to_vec(), tags: 0, checksum: None };
    let Some(packet) = packet(frame) else {
        return intact(None);
    };
    if !question.rules.iter().any(|rule| asks_for(rule, &packet)) {
        return intact(None);
    }
    let intact = |verdict| Answer { tags: packet.tags, ..intact(Some(verdict)) };
    if packet.is_fragment {
        return intact("fragment");
    }
    if question.gso {
        return intact("gso");
    }
    let Some(datagram) = datagram(frame, &packet) else {
        return intact("malformed");
    };
    let is_too_far = packet.transport_at - 4 * packet.tags > FARTHEST_TRANSPORT;
    if is_too_far || datagram.len > LONGEST_DATAGRAM || frame.len() > LONGEST_FRAME {
        return intact("oversize");
    }
    let Datagram { checksum_at: at, stored, right, .. } = datagram;
    let zero_is_special = packet.protocol == UDP && stored == 0;
    if zero_is_special && !packet.is_ipv6 {
        let checksum = Some(Checksum { at, stored, right: None });
        return Answer { checksum, ..intact("unchecked") };
    }
    let checksum = Some(Checksum { at, stored, right: Some(right) });
    let intact = |verdict| Answer { checksum, ..intact(verdict) };
    if zero_is_special {
        return intact("corrupt");
    }
    if datagram.verifies {
        return intact("valid");
    }
    if stored != datagram.pseudo_header {
        return intact("corrupt");
    }
    if question.observe_only {
        return intact("partial");
    }
    let mut fixed = intact("fixed");
    fixed.frame[at..at + 2].copy_from_slice(&right.to_be_bytes());
    fixed
}

/// A datagram or segment whose lengths agree, and what its checksum is about.
#[derive(Clone, Copy, Debug)]
pub struct Datagram {
    /// Length of header and payload.
    pub len: usize,
    /// Where the transport header starts in the frame.
    pub at: usize,
    /// Where the checksum field lies in the frame.
    pub checksum_at: usize,
    /// What it holds.
    pub stored: u16,
    /// What it holds while the sum is partial.
    pub pseudo_header: u16,
    /// What it must hold.
    pub right: u16,
    /// Whether datagram and pseudo-header add up to all ones.
    pub verifies: bool,
}

/// The datagram in a frame, whoever asks for it.
pub fn find(frame: &[u8]) -> Option<Datagram> {
    let packet = packet(frame)?;
    if packet.is_fragment { None } else { datagram(frame, &packet) }
}

/// UDP or TCP over IP.
struct Packet {
    tags: usize,
    is_ipv6: bool,
    addresses_at: usize,
    protocol: u8,
    transport_at: usize,
    /// Where it ends by its own account.
    end: usize,
    is_fragment: bool,
    /// `None` in a fragment that is not the first.
    ports: Option<(u16, u16)>,
}

fn asks_for(rule: &Wanted, packet: &Packet) -> bool {
    let over_it = if packet.is_ipv6 { rule.ipv6 } else { rule.ipv4 };
    let ports_fit = match packet.ports {
        Some((source, destination)) => {
            rule.source.is_none_or(|port| port == source)
                && rule.destination.is_none_or(|port| port == destination)
        }
        None => rule.source.is_none() && rule.destination.is_none(),
    };
    rule.protocol == packet.protocol && over_it && ports_fit
}

/// `None`: this is something else, or cut before that can be told.
fn packet(frame: &[u8]) -> Option<Packet> {
    let mut at = 12;
    let mut tags = 0;
    while TAGS.contains(&word(frame, at)?) {
        at += 4;
        tags += 1;
    }
    if tags > MOST_TAGS {
        return None;
    }
    match word(frame, at)? {
        IPV4 => ipv4(frame, at + 2, tags),
        IPV6 => ipv6(frame, at + 2, tags),
        _ => None,
    }
}

/// RFC 791, section 3.1.
fn ipv4(frame: &[u8], at: usize, tags: usize) -> Option<Packet> {
    // What has no whole header is no packet.
    frame.get(at..at + 20)?;
    let version_ihl = byte(frame, at)?;
    let header_len = usize::from(version_ihl & 0x0f) * 4;
    if version_ihl >> 4 != 4 || header_len < 20 {
        return None;
    }
    let total_length = word(frame, at + 2)?;
    let flags_and_offset = word(frame, at + 6)?;
    let more_fragments = flags_and_offset & 0x2000 != 0;
    let offset = flags_and_offset & 0x1fff;
    let transport_at = at + header_len;
    Some(Packet {
        tags,
        is_ipv6: false,
        addresses_at: at + 12,
        protocol: byte(frame, at + 9)?,
        transport_at,
        end: at + usize::from(total_length),
        is_fragment: more_fragments || offset != 0,
        ports: if offset == 0 { Some(ports(frame, transport_at)?) } else { None },
    })
}

/// RFC 8200, section 3, and the extension headers of section 4.
fn ipv6(frame: &[u8], at: usize, tags: usize) -> Option<Packet> {
    if byte(frame, at)? >> 4 != 6 {
        return None;
    }
    let payload_length = word(frame, at + 4)?;
    let mut packet = Packet {
        tags,
        is_ipv6: true,
        addresses_at: at + 8,
        protocol: byte(frame, at + 6)?,
        transport_at: at + 40,
        end: at + 40 + usize::from(payload_length),
        is_fragment: false,
        ports: None,
    };
    let mut extensions = 0;
    while packet.protocol != UDP && packet.protocol != TCP {
        extensions += 1;
        if extensions > MOST_EXTENSIONS {
            return None;
        }
        let start = packet.transport_at;
        let length = usize::from(byte(frame, start + 1)?);
        let third_and_fourth = word(frame, start + 2)?;
        let mut offset = 0;
        packet.transport_at += match packet.protocol {
            HOP_BY_HOP | DESTINATION => (length + 1) * 8,
            // Segments are left: the sum is about an address that is not in the IPv6 header.
            ROUTING if third_and_fourth & 0xff != 0 => return None,
            ROUTING => (length + 1) * 8,
            AUTHENTICATION => (length + 2) * 4,
            FRAGMENT => {
                offset = third_and_fourth >> 3;
                let more_fragments = third_and_fourth & 1 != 0;
                packet.is_fragment |= more_fragments || offset != 0;
                8
            }
            _ => return None,
        };
        packet.protocol = byte(frame, start)?;
        if packet.transport_at > FARTHEST_EXTENSION {
            return None;
        }
        // What follows in a later fragment is payload, whatever it looks like.
        if offset != 0 {
            return Some(packet);
        }
    }
    packet.ports = Some(ports(frame, packet.transport_at)?);
    Some(packet)
}

/// RFC 768 and RFC 9293, section 3.1: both headers start with the ports.
fn ports(frame: &[u8], at: usize) -> Option<(u16, u16)> {
    Some((word(frame, at)?, word(frame, at + 2)?))
}

/// `None`: lengths disagree, or the header is cut short.
fn datagram(frame: &[u8], packet: &Packet) -> Option<Datagram> {
    let at = packet.transport_at;
    let (shortest, checksum_offset) = if packet.protocol == UDP { (8, 6) } else { (20, 16) };
    if packet.end > frame.len() || packet.end < at + shortest {
        return None;
    }
    let mut datagram = frame[at..packet.end].to_vec();
    let len = datagram.len();
    if packet.protocol == UDP && usize::from(word(&datagram, 4)?) != len {
        return None;
    }
    if packet.protocol == TCP {
        let header_len = usize::from(byte(&datagram, 12)? >> 4) * 4;
        if header_len < shortest || header_len > len {
            return None;
        }
    }
    // RFC 768 and RFC 8200, section 8.1: addresses, protocol, length.
    let addresses_len = if packet.is_ipv6 { 32 } else { 8 };
    let addresses = frame.get(packet.addresses_at..packet.addresses_at + addresses_len)?;
    let pseudo_header = sum(addresses) + u32::from(packet.protocol) + len as u32;
    let verifies = fold(pseudo_header + sum(&datagram)) == 0xffff;
    let stored = word(&datagram, checksum_offset)?;
    // The sum is taken as if the field were 0, and its complement stored; in place of 0, all ones.
    datagram[checksum_offset..checksum_offset + 2].fill(0);
    let right = match !fold(pseudo_header + sum(&datagram)) {
        0 => 0xffff,
        right => right,
    };
    let checksum_at = at + checksum_offset;
    let pseudo_header = fold(pseudo_header);
    Some(Datagram { len, at, checksum_at, stored, pseudo_header, right, verifies })
}

/// RFC 1071: the sum of the 16-bit words, an odd last byte padded with zero.
fn sum(bytes: &[u8]) -> u32 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    bytes.chunks(2).map(word).sum()
}

/// Adds what is above 16 bits to the rest, until nothing is.
fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn byte(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([byte(bytes, at)?, byte(bytes, at + 1)?]))
}
