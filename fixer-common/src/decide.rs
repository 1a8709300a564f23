//! From a datagram to a verdict: is its sum right, partial, or wrong?

use crate::{
    checksum,
    frame::Frame,
    parse::{Datagram, NoDatagram, parse},
    rule::Rules,
    verdict::Verdict,
};

/// What was seen of a checksum field. Eight bytes, so that it travels in a register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Field {
    /// Where it lies, in bytes from the start of the frame; 0 if it was not looked at.
    pub at: u32,
    /// What it holds.
    pub stored: u16,
    /// What it should hold; 0 if that was not computed (a computed sum is never 0).
    pub expected: u16,
}

impl Field {
    /// A field that was not looked at.
    pub const UNSEEN: Self = Self { at: 0, stored: 0, expected: 0 };
}

/// What is to become of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Its sum is partial: store the expected one and clear the mark.
    Fix(Datagram, Field),
    /// Leave it alone.
    Leave(Verdict, Field),
}

/// Looks at a frame through the eyes of the rules. `None`: no rule asks for it.
#[inline(always)]
pub fn decide(frame: &(impl Frame + ?Sized), rules: &(impl Rules + ?Sized)) -> Option<Decision> {
    let datagram = match parse(frame, rules) {
        Ok(datagram) => datagram,
        Err(NoDatagram::NotOurs) => return None,
        Err(NoDatagram::Ours(verdict)) => return Some(Decision::Leave(verdict, Field::UNSEEN)),
    };
    Some(
        compare(frame, &datagram).unwrap_or_else(|verdict| Decision::Leave(verdict, Field::UNSEEN)),
    )
}

/// Compares the stored sum with the right one.
///
/// The order matters. A datagram that verifies is left alone even if its field happens to equal
/// the pseudo-header sum: finishing such a packet would store the value that is already there.
#[inline(always)]
fn compare(frame: &(impl Frame + ?Sized), datagram: &Datagram) -> Result<Decision, Verdict> {
    let at = datagram.checksum_at as u32;
    let stored = datagram.stored;
    let is_none = stored == 0 && datagram.is_udp;
    if is_none && !datagram.is_ipv6 {
        return Ok(Decision::Leave(Verdict::Unchecked, Field { at, stored, expected: 0 }));
    }
    frame.fetch(datagram.start + datagram.len);
    let whole = checksum::range(frame, datagram.start, datagram.len, datagram.pseudo_header)
        .ok_or(Verdict::Failed)?;
    // Taking a word out of a ones' complement sum is adding its complement (RFC 1624, eqn. 3).
    let field = Field { at, stored, expected: whole.word(!stored).complement() };
    Ok(if is_none {
        Decision::Leave(Verdict::Corrupt, field)
    } else if whole.verifies() {
        Decision::Leave(Verdict::Valid, field)
    } else if stored == datagram.pseudo_header.fold() {
        Decision::Fix(*datagram, field)
    } else {
        Decision::Leave(Verdict::Corrupt, field)
    })
}
