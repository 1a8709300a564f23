//! The first look: throws out almost every packet in a few header tests.
//!
//! This is all that a packet pays that is none of ours, so it reads one fixed stretch of the frame
//! and compares constants. It may let a stranger through, never turn one of ours away:
//! [`parse`](crate::parse) looks again, exactly.

use crate::{
    frame::Frame,
    rule::{Kinds, Ports, Rules},
    wire::{
        ethernet, ipv4,
        ipv6::{self, extension},
        transport, vlan,
    },
};

/// Where the network header starts.
const IP: usize = ethernet::LEN;

/// Where the ports lie behind an IPv4 header without options.
const PORTS4: usize = IP + ipv4::LEN + transport::PORTS;

/// Where the ports lie behind an IPv6 header without extensions.
const PORTS6: usize = IP + ipv6::LEN + transport::PORTS;

/// What is read of every packet: up to the ports of a plain IPv4 packet.
const HEAD: usize = PORTS4 + 4;

/// Whether the frame may match a rule. A frame whose head is out of reach may.
#[inline(always)]
pub fn may_match(frame: &(impl Frame + ?Sized), rules: &(impl Rules + ?Sized)) -> bool {
    let Some(head) = frame.load::<HEAD>(0) else {
        return true;
    };
    let ether_type = [head[ethernet::ETHER_TYPE], head[ethernet::ETHER_TYPE + 1]];
    match u16::from_be_bytes(ether_type) {
        ethernet::IPV4 => {
            let kind = Kinds::over_ipv4(head[IP + ipv4::PROTOCOL]);
            if !rules.kinds().meets(kind) {
                return false;
            }
            let ports = [head[PORTS4], head[PORTS4 + 1], head[PORTS4 + 2], head[PORTS4 + 3]];
            head[IP + ipv4::VERSION_IHL] != ipv4::PLAIN
                || rules.match_any(kind, Some(Ports::from_wire(ports)))
        }
        ethernet::IPV6 if rules.kinds().meets(Kinds::IPV6) => {
            let next_header = head[IP + ipv6::NEXT_HEADER];
            let kind = Kinds::over_ipv6(next_header);
            if kind == Kinds::NONE {
                return is_extension(next_header);
            }
            rules.kinds().meets(kind)
                && frame
                    .load(PORTS6)
                    .is_none_or(|ports| rules.match_any(kind, Some(Ports::from_wire(ports))))
        }
        // What is behind a tag inside the frame is for a closer look; such frames are rare, for the
        // kernel keeps a frame's outer tag beside it.
        ether_type => vlan::is_tag(ether_type) && rules.count() > 0,
    }
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
