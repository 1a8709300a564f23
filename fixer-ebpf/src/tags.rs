//! Takes VLAN tags out of the way of a fix, and puts them back.
//!
//! `bpf_skb_adjust_room` wants IP right behind the Ethernet header. A tag that the kernel keeps beside
//! the frame is not in its way; one inside the frame is. Then all tags are popped, the frame is
//! mended, and the tags come back. The receiver sees the same frame: only the outermost tag may have
//! moved from inside the frame to beside it.

use fixer_common::{
    decide::Field,
    frame::Frame,
    parse::{Datagram, MOST_TAGS},
    verdict::Verdict,
    wire::{ethernet, vlan},
};

use crate::{
    apply,
    frame::{OUT_OF_REACH, Refusal, Skb, Summed, Tag},
};

/// Mends the datagram whatever tags it has. Gives the verdict, and the field where it lies now.
#[inline(always)]
pub fn fix(skb: Skb, datagram: &Datagram, field: Field) -> (Verdict, Field) {
    if datagram.tags == 0 {
        return (apply::fix(skb, datagram.start, field), field);
    }
    let Ok(tags) = Tags::of(skb, datagram.tags) else {
        return (Verdict::Failed, field);
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
    let moved = if tags.beside.is_none() { vlan::LEN } else { 0 };
    (verdict, Field { at: field.at - moved as u32, ..field })
}

/// Where popping ended when a helper refused.
enum Stuck {
    /// Before anything happened.
    Intact,
    /// With some of the tags gone.
    HalfWay,
}

/// The tags of a frame that has at least one inside: one beside it alone is not in the way.
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
        if !vlan::is_tag(skb.protocol()) {
            return Err(());
        }
        // Without a look at how many there are: both ways to the fix leave the same behind.
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

    /// Pops every tag.
    #[inline(always)]
    fn pop(&self, skb: Skb) -> Result<(), Stuck> {
        // What popping needs memory for is done before: a pop may fail with the tag beside the frame
        // gone already.
        skb.own(ethernet::LEN + MOST_TAGS * vlan::LEN).map_err(|_| Stuck::Intact)?;
        for popped in 0..=MOST_TAGS {
            if popped < self.count() {
                skb.pop_tag().map_err(|_| Stuck::HalfWay)?;
            }
        }
        Ok(())
    }

    /// Puts back what was popped: the outermost tag beside the frame, all others into it.
    #[inline(always)]
    fn push_back(&self, skb: Skb) -> Result<(), Refusal> {
        let [first, second] = self.words;
        let (outer, inner) = match self.beside {
            Some(tag) => (tag, [first, second]),
            None => (first, [second, second]),
        };
        let [[a, b, c, d], [e, f, g, h]] = inner.map(Tag::to_wire);
        let [y, z] = skb.load(ethernet::ETHER_TYPE).ok_or(OUT_OF_REACH)?;
        match self.count() {
            1 => skb.push_tag(outer),
            2 => insert(skb, vlan::LEN, [a, b], &[c, d, y, z], outer),
            _ => insert(skb, 2 * vlan::LEN, [a, b], &[c, d, e, f, g, h, y, z], outer),
        }
    }
}

/// Makes `room` in the frame, writes tags with the EtherType behind them into it, and puts `outer`
/// beside it. `first` is where the EtherType was; the `rest` is behind it.
///
/// The kernel does not know of tags that are written: `skb->protocol` still says IP. Pushing twice and
/// popping once tells it, for the pop takes a tag out of the frame and looks at what follows. It also
/// sets `mac_len`, by which a frame at ingress is pulled afterwards: a tag that is only pushed into
/// the frame leaves that four bytes too long before Linux 6.12 (938863727076).
#[inline(always)]
fn insert<const N: usize>(
    skb: Skb,
    room: usize,
    first: [u8; 2],
    rest: &[u8; N],
    outer: Tag,
) -> Result<(), Refusal> {
    skb.shrink(-(room as i32))?;
    // The sum that a network card took of the packet starts behind the Ethernet header.
    skb.store(ethernet::ETHER_TYPE, &first, Summed::No)?;
    skb.store(ethernet::LEN, rest, Summed::Yes)?;
    skb.push_tag(outer)?;
    skb.push_tag(outer)?;
    skb.pop_tag()
}
