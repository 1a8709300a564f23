//! From a frame to the datagram whose checksum is in question, or to the reason why there is none.

use crate::{
    checksum::{self, Sum},
    frame::Frame,
    rule::{Kinds, Ports, Rules},
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
    /// The sum of the pseudo-header.
    pub pseudo_header: Sum,
    /// What a stored 0 means.
    pub zero: Zero,
}

/// What a checksum field that holds 0 means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zero {
    /// UDP over IPv4: the sender chose no checksum (RFC 768).
    NoChecksum,
    /// UDP over IPv6: there has to be one, and a computed 0 is sent as 0xffff (RFC 8200, section 8.1).
    Illegal,
    /// TCP: a number like any other.
    Number,
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
    let network = network(frame, rules)?;
    let ports = if network.is_later_fragment {
        None
    } else {
        let at = network.payload_at + transport::PORTS;
        Some(Ports::from_wire(identify(frame, at)?))
    };
    if !rules.match_any(network.kind, ports) {
        return Err(NoDatagram::NotOurs);
    }
    if network.is_fragment {
        return Err(NoDatagram::Ours(Verdict::Fragment));
    }
    if frame.is_gso() {
        return Err(NoDatagram::Ours(Verdict::Gso));
    }
    datagram(frame, &network).map_err(NoDatagram::Ours)
}

/// The most VLAN tags inside a frame that are looked behind.
pub const MOST_TAGS: usize = 2;

/// The farthest that a transport header may lie from the start of the frame, in bytes and not
/// counting tags: what the program can take out of a frame and put back is limited by its stack.
pub const FARTHEST_START: usize = 156;

/// What the network header says about the packet.
struct Network {
    /// VLAN tags before the network header.
    tags: usize,
    kind: Kinds,
    protocol: u8,
    /// Where the addresses lie.
    addresses_at: usize,
    /// Where the transport header starts, if this is not a later fragment.
    payload_at: usize,
    /// Where the packet ends by its own account. It may lie before `payload_at`, or behind the frame.
    end: usize,
    is_fragment: bool,
    is_later_fragment: bool,
}

#[inline(always)]
fn network(
    frame: &(impl Frame + ?Sized),
    rules: &(impl Rules + ?Sized),
) -> Result<Network, NoDatagram> {
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
    let at = ethernet::LEN + tags * vlan::LEN;
    match ether_type {
        ethernet::IPV4 => ipv4(frame, tags, at),
        ethernet::IPV6 if rules.kinds().meets(Kinds::IPV6) => ipv6(frame, tags, at),
        _ => Err(NoDatagram::NotOurs),
    }
}

#[inline(always)]
fn ipv4(frame: &(impl Frame + ?Sized), tags: usize, at: usize) -> Result<Network, NoDatagram> {
    let [version_ihl] = identify(frame, at + ipv4::VERSION_IHL)?;
    let header_len = usize::from(version_ihl & 0xf) * 4;
    if version_ihl >> 4 != 4 || header_len < ipv4::LEN {
        return Err(NoDatagram::NotOurs);
    }
    let [protocol] = identify(frame, at + ipv4::PROTOCOL)?;
    let total_length = u16::from_be_bytes(identify(frame, at + ipv4::TOTAL_LENGTH)?);
    let fragment = u16::from_be_bytes(identify(frame, at + ipv4::FRAGMENT)?);
    Ok(Network {
        tags,
        kind: Kinds::over_ipv4(protocol),
        protocol,
        addresses_at: at + ipv4::ADDRESSES,
        payload_at: at + header_len,
        end: at + usize::from(total_length),
        is_fragment: fragment & (ipv4::MORE_FRAGMENTS | ipv4::FRAGMENT_OFFSET) != 0,
        is_later_fragment: fragment & ipv4::FRAGMENT_OFFSET != 0,
    })
}

/// How many extension headers are walked through. RFC 8200 knows six in one packet.
const MOST_EXTENSIONS: usize = 6;

/// Where the walk through extension headers ends in any case: as many bits as an offset may have.
const FARTHEST: usize = (1 << 11) - 1;

#[inline(always)]
fn ipv6(frame: &(impl Frame + ?Sized), tags: usize, at: usize) -> Result<Network, NoDatagram> {
    let [version] = identify(frame, at + ipv6::VERSION)?;
    if version >> 4 != 6 {
        return Err(NoDatagram::NotOurs);
    }
    let payload_length = u16::from_be_bytes(identify(frame, at + ipv6::PAYLOAD_LENGTH)?);
    let [mut protocol] = identify(frame, at + ipv6::NEXT_HEADER)?;
    let mut payload_at = at + ipv6::LEN;
    let (mut is_fragment, mut is_later_fragment) = (false, false);
    for _ in 0..MOST_EXTENSIONS {
        if Kinds::over_ipv6(protocol) != Kinds::NONE || is_later_fragment {
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
    Ok(Network {
        tags,
        kind: Kinds::over_ipv6(protocol),
        protocol,
        addresses_at: at + ipv6::ADDRESSES,
        payload_at,
        end: at + ipv6::LEN + usize::from(payload_length),
        is_fragment,
        is_later_fragment,
    })
}

#[inline(always)]
fn datagram(frame: &(impl Frame + ?Sized), network: &Network) -> Result<Datagram, Verdict> {
    let start = network.payload_at;
    let is_udp = network.protocol == udp::PROTOCOL;
    let (header_len, checksum) =
        if is_udp { (udp::LEN, udp::CHECKSUM) } else { (tcp::LEN, tcp::CHECKSUM) };
    if network.end > frame.len() || start + header_len > network.end {
        return Err(Verdict::Malformed);
    }
    let len = network.end - start;
    let agrees = if is_udp {
        usize::from(u16::from_be_bytes(read(frame, start + udp::LENGTH)?)) == len
    } else {
        let [data_offset] = read(frame, start + tcp::DATA_OFFSET)?;
        (tcp::LEN..=len).contains(&(usize::from(data_offset >> 4) * 4))
    };
    if !agrees {
        return Err(Verdict::Malformed);
    }
    if len > checksum::LONGEST || start - network.tags * vlan::LEN > FARTHEST_START {
        return Err(Verdict::Oversize);
    }
    let sum = Sum::default().word(u16::from(network.protocol)).word(len as u16);
    let is_ipv6 = Kinds::IPV6.meets(network.kind);
    let pseudo_header = if is_ipv6 {
        sum.bytes::<{ ipv6::ADDRESSES_LEN }>(frame, network.addresses_at)
    } else {
        sum.bytes::<{ ipv4::ADDRESSES_LEN }>(frame, network.addresses_at)
    };
    Ok(Datagram {
        tags: network.tags,
        start,
        len,
        checksum_at: start + checksum,
        pseudo_header: pseudo_header.ok_or(Verdict::Failed)?,
        zero: match (is_udp, is_ipv6) {
            (true, false) => Zero::NoChecksum,
            (true, true) => Zero::Illegal,
            (false, _) => Zero::Number,
        },
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

/// Reads what the lengths have proved to be there. If it cannot be read, a helper did not pull it in.
#[inline(always)]
pub(crate) fn read<const N: usize>(
    frame: &(impl Frame + ?Sized),
    at: usize,
) -> Result<[u8; N], Verdict> {
    frame.load(at).ok_or(Verdict::Failed)
}
