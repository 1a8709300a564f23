//! Takes VLAN tags out of the way of a fix, and puts them back.
//!
//! `bpf_skb_adjust_room` wants IP right behind the Ethernet header. A tag that the kernel keeps beside
//! the frame is not in its way; one inside the frame is. Then all tags are popped, the frame is
//! mended, and they are pushed again, the innermost first. The receiver sees the same frame: only the
//! outermost tag may have moved from inside the frame to beside it.
//!
//! At ingress more than one tag is left alone. Before Linux 6.12 pushing a tag into a frame makes the
//! kernel believe that its link-layer header (`mac_len`) has grown; behind the programs at ingress it
//! takes that many bytes away, and the frame would go on cut. At egress nobody looks at it.

use fixer_common::{
    abi::Hook,
    decide::Field,
    frame::Frame,
    parse::Datagram,
    verdict::Verdict,
    wire::{ethernet, vlan},
};

use crate::{
    apply,
    frame::{Refusal, Skb, Tag},
};

/// Mends the datagram whatever tags it has. Gives the verdict, and the field where it lies now.
#[inline(always)]
pub fn fix(skb: Skb, hook: Hook, datagram: &Datagram, field: Field) -> (Verdict, Field) {
    match datagram.tags {
        0 => (apply::fix(skb, datagram.start, field), field),
        1 if hook == Hook::Egress || skb.tag().is_none() => without_tags::<1>(skb, datagram, field),
        2 if hook == Hook::Egress => without_tags::<2>(skb, datagram, field),
        _ => (Verdict::Failed, field),
    }
}

#[inline(always)]
fn without_tags<const INSIDE: usize>(
    skb: Skb,
    datagram: &Datagram,
    field: Field,
) -> (Verdict, Field) {
    // Where it does not know of a tag the kernel pops none, and says that all is well.
    if !vlan::is_tag(skb.protocol()) {
        return (Verdict::Failed, field);
    }
    let beside = skb.tag();
    let Some(inside) = read::<INSIDE>(skb) else {
        return (Verdict::Failed, field);
    };
    // The first pop tells whether tags can be popped at all; nothing has happened if it fails.
    if skb.pop_tag().is_err() {
        return (Verdict::Failed, field);
    }
    let more = INSIDE - 1 + usize::from(beside.is_some());
    let popped = (more < 1 || skb.pop_tag().is_ok()) && (more < 2 || skb.pop_tag().is_ok());
    if !popped {
        return (Verdict::Dropped, field);
    }
    let shift = INSIDE * vlan::LEN;
    let bare = Field { at: field.at - shift as u32, ..field };
    let verdict = apply::fix(skb, datagram.start - shift, bare);
    if push_back(skb, &inside, beside).is_err() {
        return (Verdict::Dropped, field);
    }
    // All tags but the outermost are inside the frame now.
    let moved = if beside.is_some() { 0 } else { vlan::LEN as u32 };
    (verdict, Field { at: field.at - moved, ..field })
}

/// The tags inside the frame, the outermost first.
#[inline(always)]
fn read<const INSIDE: usize>(skb: Skb) -> Option<[Tag; INSIDE]> {
    let mut tags = [Tag { protocol: 0, tci: 0 }; INSIDE];
    let mut at = ethernet::ETHER_TYPE;
    for tag in &mut tags {
        let [a, b, c, d] = skb.load::<{ vlan::LEN }>(at)?;
        *tag = Tag { protocol: u16::from_ne_bytes([a, b]), tci: u16::from_be_bytes([c, d]) };
        at += vlan::LEN;
    }
    Some(tags)
}

#[inline(always)]
fn push_back<const INSIDE: usize>(
    skb: Skb,
    inside: &[Tag; INSIDE],
    beside: Option<Tag>,
) -> Result<(), Refusal> {
    for tag in inside.iter().rev() {
        skb.push_tag(*tag)?;
    }
    match beside {
        Some(tag) => skb.push_tag(tag),
        None => Ok(()),
    }
}
