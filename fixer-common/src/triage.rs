//! The first look: throws out almost every packet in a few header tests.
//!
//! This is all that a packet pays that is none of ours, so it reads one fixed stretch of the frame
//! and compares constants. It may let a stranger through, never turn one of ours away:
//! [`parse`](crate::parse) looks again, exactly.

use crate::{
    frame::Frame,
    rule::{Kinds, Ports, Rules},
    wire::{ethernet, ipv4, transport, udp},
};

/// Ethernet, an IPv4 header without options, and the ports behind it.
const HEAD: usize = ethernet::LEN + ipv4::LEN + 4;

/// Whether the frame may match a rule. A frame whose head is out of reach may.
#[inline(always)]
pub fn may_match(frame: &(impl Frame + ?Sized), rules: &(impl Rules + ?Sized)) -> bool {
    const IP: usize = ethernet::LEN;
    const PORTS: usize = IP + ipv4::LEN + transport::PORTS;

    let Some(head) = frame.load::<HEAD>(0) else {
        return true;
    };
    let ether_type = [head[ethernet::ETHER_TYPE], head[ethernet::ETHER_TYPE + 1]];
    if u16::from_be_bytes(ether_type) != ethernet::IPV4 {
        return false;
    }
    let kind = match head[IP + ipv4::PROTOCOL] {
        udp::PROTOCOL => Kinds::UDP4,
        _ => return false,
    };
    if !rules.kinds().meets(kind) {
        return false;
    }
    if head[IP + ipv4::VERSION_IHL] != ipv4::PLAIN {
        return true;
    }
    let ports = [head[PORTS], head[PORTS + 1], head[PORTS + 2], head[PORTS + 3]];
    rules.match_any(kind, Some(Ports::from_wire(ports)))
}
