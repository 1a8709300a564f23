//! From a frame to the datagram whose checksum is in question, or to the reason why there is none.

use crate::{
    checksum::{self, Sum},
    frame::Frame,
    rule::{Family, Kind, Ports, Rules},
    verdict::Verdict,
    wire::{
        ethernet, ipv4,
        ipv6::{self, extension},
        tcp, transport, udp, vlan,
    },
};

/// A datagram or segment that a rule matched and whose lengths agree: all its `len` bytes belong to
/// the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// How many VLAN tags stand inside the frame; those that the kernel keeps beside it do not count.
    pub tags: usize,
    /// Where the transport header starts, in bytes from the start of the frame. This is `csum_start`.
    pub start: usize,
    /// Length of header and payload in bytes.
    pub len: usize,
    /// Where the checksum field lies, in bytes from the start of the frame.
    pub checksum_at: usize,
    /// What the checksum field holds.
    pub stored: u16,
    /// The sum of the pseudo-header.
    pub pseudo_header: Sum,
    /// Whether it is UDP, for which a stored 0 is no sum: over IPv4 the sender chose none (RFC 768),
    /// over IPv6 there has to be one (RFC 8200, section 8.1).
    pub is_udp: bool,
    /// Whether it travels over IPv6.
    pub is_ipv6: bool,
}

/// Why a frame holds no datagram to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoDatagram {
    /// No rule asks for this packet, or it cannot be told: it is not counted.
    NotOurs,
    /// A rule matched, and this is the verdict.
    Ours(Verdict),
}

/// Finds the datagram that one of the rules asks for.
///
/// What cannot be identified (a header cut before its ports, say) matches no rule. Once the ports
/// matched, every doubt has a verdict: first the two shapes in which the lengths mean something
/// else (a fragment, a segmentation-offload packet), then lengths that disagree, then a size that
/// fixer does not add up.
#[inline(always)]
pub fn parse(
    frame: &(impl Frame + ?Sized),
    rules: &(impl Rules + ?Sized),
) -> Result<Datagram, NoDatagram> {
    frame.fetch(HEADERS);
    let (tags, ether_type) = ethernet(frame)?;
    let at = ethernet::LEN + tags * vlan::LEN;
    let network = match ether_type {
        ethernet::IPV4 => ipv4(frame, rules, at),
        ethernet::IPV6 if rules.count(Family::Ipv6) > 0 => ipv6(frame, rules, at),
        _ => Err(NoDatagram::NotOurs),
    }?;
    if network.is_fragment {
        return Err(NoDatagram::Ours(Verdict::Fragment));
    }
    if frame.is_gso() {
        return Err(NoDatagram::Ours(Verdict::Gso));
    }
    datagram(frame, tags, at, &network).map_err(NoDatagram::Ours)
}

/// The most VLAN tags inside a frame that are looked behind.
pub const MOST_TAGS: usize = 2;

/// The farthest that a transport header may lie from the start of the frame, in bytes and not
/// counting tags: what the program can take out of a frame and put back is limited by its stack.
pub const FARTHEST_START: usize = 156;

/// The longest frame that is looked into, in bytes: a datagram as long as can be added up, behind
/// headers as long as can be taken out. A longer one may refuse to grow again half-way.
pub const LONGEST_FRAME: usize = MOST_TAGS * vlan::LEN + FARTHEST_START + checksum::LONGEST;

/// What of a frame tells the rules and the shape of a packet, in bytes: every header.
pub const HEADERS: usize = MOST_TAGS * vlan::LEN + FARTHEST_START + tcp::LEN;

/// How many VLAN tags stand inside the frame, and the EtherType behind them.
#[inline(always)]
fn ethernet(frame: &(impl Frame + ?Sized)) -> Result<(usize, u16), NoDatagram> {
    let mut at = ethernet::ETHER_TYPE;
    let mut ether_type = u16::from_be_bytes(identify(frame, at)?);
    let mut tags = 0;
    for _ in 0..MOST_TAGS {
        if !vlan::is_tag(ether_type) {
            break;
        }
        tags += 1;
        at += vlan::LEN;
        ether_type = u16::from_be_bytes(identify(frame, at)?);
    }
    // Every place in the frame is counted from here on: foreseen, all that follows would be walked
    // through once for each number of tags.
    const MOST: usize = (MOST_TAGS + 1).next_power_of_two() - 1;
    Ok((frame.launder::<MOST>(tags), ether_type))
}

/// What the network header says about a packet that a rule matches.
struct Network {
    is_udp: bool,
    is_ipv6: bool,
    /// Where the transport header starts, if this is not a later fragment.
    payload_at: usize,
    /// Where the packet ends by its own account. It may lie before `payload_at`, or behind the frame.
    end: usize,
    is_fragment: bool,
}

impl Network {
    /// The same for packets of every kind, so that all that follows is walked through once.
    #[inline(always)]
    fn new(
        frame: &(impl Frame + ?Sized),
        kind: Kind,
        payload_at: usize,
        end: usize,
        is_fragment: bool,
    ) -> Self {
        Self {
            is_udp: frame.launder::<1>(kind.is_udp().into()) != 0,
            is_ipv6: frame.launder::<1>((kind.family() == Family::Ipv6).into()) != 0,
            payload_at: frame.launder::<FARTHEST>(payload_at),
            end,
            is_fragment,
        }
    }
}

#[inline(always)]
fn ipv4(
    frame: &(impl Frame + ?Sized),
    rules: &(impl Rules + ?Sized),
    at: usize,
) -> Result<Network, NoDatagram> {
    let header = frame.view::<{ ipv4::LEN }>(at).ok_or(NoDatagram::NotOurs)?;
    let version_ihl = header[ipv4::VERSION_IHL];
    let header_len = usize::from(version_ihl & 0xf) * 4;
    if version_ihl >> 4 != 4 || header_len < ipv4::LEN {
        return Err(NoDatagram::NotOurs);
    }
    let protocol = header[ipv4::PROTOCOL];
    let total_length = word(header, ipv4::TOTAL_LENGTH);
    let fragment = word(header, ipv4::FRAGMENT);
    let is_later_fragment = fragment & ipv4::FRAGMENT_OFFSET != 0;
    let kind = Kind::over_ipv4(protocol).ok_or(NoDatagram::NotOurs)?;
    let payload_at = at + header_len;
    matches(frame, rules, kind, (!is_later_fragment).then_some(payload_at))?;
    let is_fragment = is_later_fragment || fragment & ipv4::MORE_FRAGMENTS != 0;
    let end = at + usize::from(total_length);
    Ok(Network::new(frame, kind, payload_at, end, is_fragment))
}

/// Whether a rule asks for packets of this kind, and for the ports of the transport header that
/// starts there, if it is in this packet.
#[inline(always)]
fn matches(
    frame: &(impl Frame + ?Sized),
    rules: &(impl Rules + ?Sized),
    kind: Kind,
    transport_at: Option<usize>,
) -> Result<(), NoDatagram> {
    let ports = match transport_at {
        Some(at) => Some(Ports::from_wire(identify(frame, at + transport::PORTS)?)),
        None => None,
    };
    rules.match_any(kind, ports).then_some(()).ok_or(NoDatagram::NotOurs)
}

/// How many extension headers are walked through. RFC 8200 knows six in one packet.
const MOST_EXTENSIONS: usize = 6;

/// Where the walk through extension headers ends in any case: as many bits as an offset may have.
const FARTHEST: usize = (1 << 11) - 1;

#[inline(always)]
fn ipv6(
    frame: &(impl Frame + ?Sized),
    rules: &(impl Rules + ?Sized),
    at: usize,
) -> Result<Network, NoDatagram> {
    let [version] = identify(frame, at + ipv6::VERSION)?;
    if version >> 4 != 6 {
        return Err(NoDatagram::NotOurs);
    }
    let payload_length = u16::from_be_bytes(identify(frame, at + ipv6::PAYLOAD_LENGTH)?);
    let [mut protocol] = identify(frame, at + ipv6::NEXT_HEADER)?;
    let mut payload_at = at + ipv6::LEN;
    let (mut is_fragment, mut is_later_fragment) = (false, false);
    for _ in 0..MOST_EXTENSIONS {
        if Kind::over_ipv6(protocol).is_some() || is_later_fragment {
            break;
        }
        let start: [u8; 4] = identify(frame, payload_at + extension::START)?;
        let [next_header, length, third, fourth] = start;
        let len = match protocol {
            extension::FRAGMENT => {
                let bits = u16::from_be_bytes([third, fourth]);
                is_later_fragment = bits & extension::FRAGMENT_OFFSET != 0;
                is_fragment |= is_later_fragment || bits & extension::MORE_FRAGMENTS != 0;
                extension::FRAGMENT_LEN
            }
            // On its way to another address first, which the sum does not cover (RFC 8200, 8.1).
            extension::ROUTING if fourth != 0 => return Err(NoDatagram::NotOurs),
            extension::HOP_BY_HOP | extension::ROUTING | extension::DESTINATION => {
                (usize::from(length) + 1) * 8
            }
            extension::AUTHENTICATION => (usize::from(length) + 2) * 4,
            _ => return Err(NoDatagram::NotOurs),
        };
        protocol = next_header;
        if payload_at + len > FARTHEST {
            return Err(NoDatagram::NotOurs);
        }
        payload_at = frame.beyond(payload_at, len) & FARTHEST;
    }
    let kind = Kind::over_ipv6(protocol).ok_or(NoDatagram::NotOurs)?;
    matches(frame, rules, kind, (!is_later_fragment).then_some(payload_at))?;
    let end = at + ipv6::LEN + usize::from(payload_length);
    Ok(Network::new(frame, kind, payload_at, end, is_fragment))
}

#[inline(always)]
fn datagram(
    frame: &(impl Frame + ?Sized),
    tags: usize,
    at: usize,
    network: &Network,
) -> Result<Datagram, Verdict> {
    let &Network { is_udp, is_ipv6, payload_at: start, end, .. } = network;
    let header_len = if is_udp { udp::LEN } else { tcp::LEN };
    if end > frame.len() || start + header_len > end {
        return Err(Verdict::Malformed);
    }
    let len = end - start;
    let (agrees, stored) = if is_udp {
        let header = frame.view::<{ udp::LEN }>(start).ok_or(Verdict::Failed)?;
        (usize::from(word(header, udp::LENGTH)) == len, word(header, udp::CHECKSUM))
    } else {
        let header = frame.view::<{ tcp::LEN }>(start).ok_or(Verdict::Failed)?;
        let header_len = usize::from(header[tcp::DATA_OFFSET] >> 4) * 4;
        ((tcp::LEN..=len).contains(&header_len), word(header, tcp::CHECKSUM))
    };
    if !agrees {
        return Err(Verdict::Malformed);
    }
    if len > checksum::LONGEST
        || start - tags * vlan::LEN > FARTHEST_START
        || frame.len() > LONGEST_FRAME
    {
        return Err(Verdict::Oversize);
    }
    let (protocol, checksum) =
        if is_udp { (udp::PROTOCOL, udp::CHECKSUM) } else { (tcp::PROTOCOL, tcp::CHECKSUM) };
    let sum = Sum::default().word(u16::from(protocol)).word(len as u16);
    let pseudo_header = if is_ipv6 {
        sum.bytes::<{ ipv6::ADDRESSES_LEN }>(frame, at + ipv6::ADDRESSES)
    } else {
        sum.bytes::<{ ipv4::ADDRESSES_LEN }>(frame, at + ipv4::ADDRESSES)
    };
    Ok(Datagram {
        tags,
        start,
        len,
        checksum_at: start + frame.launder::<31>(checksum),
        stored,
        pseudo_header: pseudo_header.ok_or(Verdict::Failed)?,
        is_udp,
        is_ipv6,
    })
}

/// Reads what tells whether the packet is ours. If it cannot be read, it is not.
#[inline(always)]
fn identify<const N: usize>(
    frame: &(impl Frame + ?Sized),
    at: usize,
) -> Result<[u8; N], NoDatagram> {
    frame.load(at).ok_or(NoDatagram::NotOurs)
}

/// The 16-bit field at this place of a header.
#[inline(always)]
fn word<const N: usize>(header: &[u8; N], place: usize) -> u16 {
    u16::from_be_bytes([header[place], header[place + 1]])
}
