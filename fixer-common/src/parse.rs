//! From a frame to the datagram whose checksum is in question, or to the reason why there is none.

use crate::{
    checksum::{self, Sum},
    frame::Frame,
    rule::{Kinds, Ports, Rules},
    verdict::Verdict,
    wire::{ethernet, ipv4, transport, udp},
};

/// A datagram that a rule matched and whose lengths agree: all its `len` bytes belong to the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Where the UDP header starts, in bytes from the start of the frame. This is `csum_start`.
    pub start: usize,
    /// Length of header and payload in bytes.
    pub len: usize,
    /// Where the checksum field lies, in bytes from the start of the frame.
    pub checksum_at: usize,
    /// The sum of the pseudo-header.
    pub pseudo_header: Sum,
    /// Whether a stored 0 says that the sender chose no checksum.
    pub zero_is_none: bool,
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
    let network = network(frame)?;
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

/// What the network header says about the packet.
struct Network {
    kind: Kinds,
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
fn network(frame: &(impl Frame + ?Sized)) -> Result<Network, NoDatagram> {
    let ether_type = u16::from_be_bytes(identify(frame, ethernet::ETHER_TYPE)?);
    match ether_type {
        ethernet::IPV4 => ipv4(frame, ethernet::LEN),
        _ => Err(NoDatagram::NotOurs),
    }
}

#[inline(always)]
fn ipv4(frame: &(impl Frame + ?Sized), at: usize) -> Result<Network, NoDatagram> {
    let [version_ihl] = identify(frame, at + ipv4::VERSION_IHL)?;
    let header_len = usize::from(version_ihl & 0xf) * 4;
    if version_ihl >> 4 != 4 || header_len < ipv4::LEN {
        return Err(NoDatagram::NotOurs);
    }
    let [protocol] = identify(frame, at + ipv4::PROTOCOL)?;
    let kind = match protocol {
        udp::PROTOCOL => Kinds::UDP4,
        _ => return Err(NoDatagram::NotOurs),
    };
    let total_length = u16::from_be_bytes(identify(frame, at + ipv4::TOTAL_LENGTH)?);
    let fragment = u16::from_be_bytes(identify(frame, at + ipv4::FRAGMENT)?);
    Ok(Network {
        kind,
        addresses_at: at + ipv4::ADDRESSES,
        payload_at: at + header_len,
        end: at + usize::from(total_length),
        is_fragment: fragment & (ipv4::MORE_FRAGMENTS | ipv4::FRAGMENT_OFFSET) != 0,
        is_later_fragment: fragment & ipv4::FRAGMENT_OFFSET != 0,
    })
}

#[inline(always)]
fn datagram(frame: &(impl Frame + ?Sized), network: &Network) -> Result<Datagram, Verdict> {
    let start = network.payload_at;
    if network.end > frame.len() || start + udp::LEN > network.end {
        return Err(Verdict::Malformed);
    }
    let length = read(frame, start + udp::LENGTH)?;
    let len = usize::from(u16::from_be_bytes(length));
    if len != network.end - start {
        return Err(Verdict::Malformed);
    }
    if len > checksum::LONGEST {
        return Err(Verdict::Oversize);
    }
    let pseudo_header = Sum::default()
        .bytes::<{ ipv4::ADDRESSES_LEN }>(frame, network.addresses_at)
        .ok_or(Verdict::Failed)?
        .word(u16::from(udp::PROTOCOL))
        .word(len as u16);
    Ok(Datagram {
        start,
        len,
        checksum_at: start + udp::CHECKSUM,
        pseudo_header,
        zero_is_none: true,
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
