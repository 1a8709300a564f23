//! The first look: throws out almost every packet in a few header tests.
//!
//! This is all that a packet pays that is none of ours, so it reads one fixed stretch of the frame
//! and compares constants. It may let a stranger through, never turn one of ours away:
//! [`parse`](crate::parse) looks again, exactly.

use crate::{
    frame::Frame,
    rule::{Family, Kind, Ports, Rules},
    wire::{
        ethernet, ipv4,
        ipv6::{self, extension},
        transport, vlan,
    },
};

/// EtherTypes as they stand in a frame, to compare without turning them round.
const IPV4: u16 = ethernet::IPV4.to_be();
const IPV6: u16 = ethernet::IPV6.to_be();
const CUSTOMER: u16 = vlan::CUSTOMER.to_be();
const PROVIDER: u16 = vlan::PROVIDER.to_be();

/// Where the network header starts.
const IP: usize = ethernet::LEN;

/// Where the ports lie behind an IPv4 header without options.
const PORTS4: usize = IP + ipv4::LEN + transport::PORTS;

/// Where the ports lie behind an IPv6 header without extensions.
const PORTS6: usize = IP + ipv6::LEN + transport::PORTS;

/// What is read of every packet: up to the ports of a plain IPv4 packet.
const HEAD: usize = PORTS4 + 4;

/// EtherType, and version and header length behind it: which bits of the word that they start count,
/// and what these are for IPv4 without options.
const PLAIN: (u32, u32) = {
    let [a, b] = ethernet::IPV4.to_be_bytes();
    (word([0xff, 0xff, 0xff, 0]), word([a, b, ipv4::PLAIN, 0]))
};

const _: () = assert!(ethernet::ETHER_TYPE + 2 == IP + ipv4::VERSION_IHL);

/// Whether the frame may match a rule, by the bytes where its ports should be. The protocol does not
/// matter yet: hardly a packet of another one has them.
#[inline(always)]
pub fn may_match(frame: &(impl Frame + ?Sized), rules: &(impl Rules + ?Sized)) -> bool {
    let Some(head) = frame.head::<HEAD>() else {
        return may_match_cut(frame);
    };
    if is_plain(head) {
        return rules.want(Family::Ipv4, Ports::from_wire(at(head, PORTS4)));
    }
    match u16::from_ne_bytes(at(head, ethernet::ETHER_TYPE)) {
        IPV6 => rules.count(Family::Ipv6) > 0 && may_match_ipv6(frame, head, rules),
        IPV4 => {
            rules.count(Family::Ipv4) > 0 && Kind::over_ipv4(head[IP + ipv4::PROTOCOL]).is_some()
        }
        // What is behind a tag inside the frame is for a closer look; such frames are rare, for the
        // kernel keeps a frame's outer tag beside it.
        CUSTOMER | PROVIDER => true,
        _ => false,
    }
}

#[inline(always)]
fn may_match_ipv6(
    frame: &(impl Frame + ?Sized),
    head: &[u8; HEAD],
    rules: &(impl Rules + ?Sized),
) -> bool {
    is_extension(head[IP + ipv6::NEXT_HEADER])
        || frame.load(PORTS6).is_none_or(|ports| rules.want(Family::Ipv6, Ports::from_wire(ports)))
}

/// The same for a frame of which less is in reach: some drivers leave all behind the network header
/// elsewhere. What is plainly something else is not fetched.
#[inline(always)]
fn may_match_cut(frame: &(impl Frame + ?Sized)) -> bool {
    let Some([a, b, rest @ ..]) =
        frame.load::<{ IP + ipv4::PROTOCOL + 1 - ethernet::ETHER_TYPE }>(ethernet::ETHER_TYPE)
    else {
        return true;
    };
    match u16::from_be_bytes([a, b]) {
        ethernet::IPV4 => Kind::over_ipv4(rest[ipv4::PROTOCOL]).is_some(),
        ethernet::IPV6 => {
            let next_header = rest[ipv6::NEXT_HEADER];
            Kind::over_ipv6(next_header).is_some() || is_extension(next_header)
        }
        ether_type => vlan::is_tag(ether_type),
    }
}

/// Whether it still may, now that its protocol counts: a rule that wants any port must not have every
/// packet fetched.
#[inline(always)]
pub fn still_may_match(frame: &(impl Frame + ?Sized), rules: &(impl Rules + ?Sized)) -> bool {
    let Some(head) = frame.head::<HEAD>() else {
        return true;
    };
    let (kind, ports) = if is_plain(head) {
        (Kind::over_ipv4(head[IP + ipv4::PROTOCOL]), Some(at(head, PORTS4)))
    } else if at(head, ethernet::ETHER_TYPE) == ethernet::IPV6.to_be_bytes() {
        let next_header = head[IP + ipv6::NEXT_HEADER];
        if is_extension(next_header) {
            return true;
        }
        (Kind::over_ipv6(next_header), frame.load(PORTS6))
    } else {
        return true;
    };
    let matches =
        |kind| ports.is_none_or(|ports| rules.match_any(kind, Some(Ports::from_wire(ports))));
    kind.is_some_and(matches)
}

/// Whether it is IPv4 without options.
#[inline(always)]
fn is_plain(head: &[u8; HEAD]) -> bool {
    let (mask, plain) = PLAIN;
    word(at(head, ethernet::ETHER_TYPE)) & mask == plain
}

/// Whether a transport header may come behind this one.
#[inline(always)]
const fn is_extension(next_header: u8) -> bool {
    matches!(
        next_header,
        extension::HOP_BY_HOP
            | extension::ROUTING
            | extension::FRAGMENT
            | extension::AUTHENTICATION
            | extension::DESTINATION
    )
}

/// Four bytes as one number to compare at once.
#[inline(always)]
const fn word(bytes: [u8; 4]) -> u32 {
    u32::from_ne_bytes(bytes)
}

/// The bytes at this place of the head.
#[inline(always)]
fn at<const N: usize>(head: &[u8; HEAD], place: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&head[place..place + N]);
    bytes
}
