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
    parse::{Datagram, MOST_TAGS},
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
    let tags = match Tags::of(skb, datagram.tags) {
        Ok(tags) if hook == Hook::Egress || tags.inside == 0 || tags.count() == 1 => tags,
        _ => return (Verdict::Failed, field),
    };
    match tags.pop(skb) {
        Ok(()) => (),
        Err(Stuck::Intact) => return (Verdict::Failed, field),
        Err(Stuck::HalfWay) => return (Verdict::Dropped, field),
    }
    let shift = tags.inside * vlan::LEN;
    let bare = Field { at: field.at - shift as u32, ..field };
    let verdict = apply::fix(skb, datagram.start - shift, bare);
    if tags.push_back(skb).is_err() {
        return (Verdict::Dropped, field);
    }
    // All tags but the outermost are inside the frame now.
    let moved = if tags.beside.is_none() && tags.inside > 0 { vlan::LEN } else { 0 };
    (verdict, Field { at: field.at - moved as u32, ..field })
}

/// Where popping ended when a helper refused.
enum Stuck {
    /// Before anything happened.
    Intact,
    /// With some of the tags gone.
    HalfWay,
}

/// The tags of a frame.
struct Tags {
    /// How many stand inside the frame.
    inside: usize,
    /// The first tags inside the frame, the outermost first: what is there, tags or not.
    words: [Tag; MOST_TAGS],
    /// The one that the kernel keeps beside the frame, outside of all others.
    beside: Option<Tag>,
}

impl Tags {
    /// Reads the tags of a frame that has this many inside.
    #[inline(always)]
    fn of(skb: Skb, inside: usize) -> Result<Self, ()> {
        // Where it does not know of a tag the kernel pops none, and says that all is well.
        if inside > 0 && !vlan::is_tag(skb.protocol()) {
            return Err(());
        }
        // Without a look at how many there are: every way to the fix leaves the same behind.
        let bytes = skb.load::<{ MOST_TAGS * vlan::LEN }>(ethernet::ETHER_TYPE).ok_or(())?;
        let [a, b, c, d, e, f, g, h] = bytes;
        Ok(Self {
            inside,
            words: [Tag::from_wire([a, b, c, d]), Tag::from_wire([e, f, g, h])],
            beside: skb.tag(),
        })
    }

    #[inline(always)]
    fn count(&self) -> usize {
        self.inside + usize::from(self.beside.is_some())
    }

    /// Pops every tag, if there is one inside the frame: one beside it alone is not in the way.
    #[inline(always)]
    fn pop(&self, skb: Skb) -> Result<(), Stuck> {
        if self.inside == 0 {
            return Ok(());
        }
        // The first pop tells whether tags can be popped at all; nothing has happened if it fails.
        skb.pop_tag().map_err(|_| Stuck::Intact)?;
        for popped in 1..=MOST_TAGS {
            if popped < self.count() {
                skb.pop_tag().map_err(|_| Stuck::HalfWay)?;
            }
        }
        Ok(())
    }

    /// Pushes what was popped, the innermost first.
    #[inline(always)]
    fn push_back(&self, skb: Skb) -> Result<(), Refusal> {
        for place in (0..MOST_TAGS).rev() {
            if place < self.inside {
                skb.push_tag(self.words[place])?;
            }
        }
        match self.beside {
            Some(tag) if self.inside > 0 => skb.push_tag(tag),
            _ => Ok(()),
        }
    }
}
