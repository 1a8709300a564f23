//! Stores the right sum and clears `CHECKSUM_PARTIAL`.
//!
//! Storing alone would break guests that work: whoever finishes a packet that is still marked
//! partial adds the payload to a field that already holds the whole sum. No helper clears the mark,
//! but the kernel does by itself when a frame loses the bytes around `csum_start`:
//! `bpf_skb_adjust_room` ends in `skb_postpull_rcsum`, which sets `CHECKSUM_NONE` when
//! `csum_start` comes to lie before the packet (kernel commit 54c3f1a81421, in 6.2 and the stable
//! trees). So the frame is shrunk behind the Ethernet header by more than lies before `csum_start`,
//! grown again by the same amount, and the bytes that went are put back.
//!
//! Before that commit the kernel looks for `csum_start` before it takes the bytes out, and not after:
//! there a second shrink, however small, finds it where the first one left it. The loader asks for
//! one where the self-test has shown that one shrink does not do.
//!
//! A refusal before the shrink leaves the packet intact. A refusal after it leaves a frame that
//! nobody must see: it is dropped.

use core::mem::MaybeUninit;

use aya_log_ebpf::debug;
use fixer_common::{
    decide::Field,
    frame::Frame,
    parse,
    verdict::Verdict,
    wire::{ethernet, ipv4, ipv6, tcp, udp},
};

use crate::{
    config::shrink_twice,
    frame::{Refusal, Skb, Summed},
};

/// What is taken out for IPv4 without options, in bytes.
const SHORT: usize = 40;

/// What is taken out for IPv4 with options and for IPv6 without extensions, in bytes.
const MIDDLE: usize = 80;

/// What is taken out for IPv6 with extensions, in bytes. More does not fit on the stack.
const LONG: usize = 160;

const _: () = assert!(parse::FARTHEST_START + MARGIN == LONG);

/// How far a shrink reaches behind `csum_start`: it must pass it, and the lengths stay multiples of 8.
const MARGIN: usize = 4;

/// What a second shrink takes out, in bytes.
const MORE: usize = 8;

/// How far behind the Ethernet header the kernel may believe the network header to be. A raw sender on
/// a VLAN device makes it believe in a place 4 or 8 bytes too far, or at the start of the frame.
const SLACK: usize = 8;

/// What has to be put back where `out` bytes are taken out, from the start of the frame on: wherever
/// the kernel takes them out, all that it can have touched. A multiple of 8.
const fn back(out: usize) -> usize {
    (ethernet::LEN + out + MORE + SLACK).next_multiple_of(8)
}

/// What `bpf_skb_adjust_room` leaves behind the Ethernet header at least: a network header, of which
/// IPv6's is the longer one.
const KEPT: usize = ipv6::LEN;

/// Mends the datagram that starts there, and says what became of the packet.
#[inline(never)]
pub fn fix(skb: Skb, start: usize, field: Field) -> Verdict {
    match start {
        start if start + MARGIN <= SHORT => padded::<SHORT, { back(SHORT) }>(skb, field),
        start if start + MARGIN <= MIDDLE => padded::<MIDDLE, { back(MIDDLE) }>(skb, field),
        _ => padded::<LONG, { back(LONG) }>(skb, field),
    }
}

/// Makes sure that the frame is long enough to lose `OUT` bytes, for as long as that takes.
#[inline(always)]
fn padded<const OUT: usize, const BACK: usize>(skb: Skb, field: Field) -> Verdict {
    let len = skb.len();
    let needed = BACK + KEPT;
    if len < needed
        && let Err(refusal) = skb.set_len(needed)
    {
        refused(Step::Pad, refusal);
        return Verdict::Failed;
    }
    let verdict = complete::<OUT, BACK>(skb, field);
    if len < needed
        && let Err(refusal) = skb.set_len(len)
    {
        refused(Step::Trim, refusal);
        return Verdict::Dropped;
    }
    verdict
}

/// Clears the mark and stores the sum.
#[inline(always)]
fn complete<const OUT: usize, const BACK: usize>(skb: Skb, field: Field) -> Verdict {
    let mut window = MaybeUninit::uninit();
    if skb.read::<BACK>(0, &mut window).is_err() {
        return Verdict::Failed;
    }
    // SAFETY: it was read just now, every byte of it.
    let window = unsafe { window.assume_init_mut() };
    if let Err(refusal) = skb.shrink(OUT as i32) {
        refused(Step::Shrink, refusal);
        return Verdict::Failed;
    }
    match put_back::<OUT, BACK>(skb, window, field) {
        Ok(()) => Verdict::Fixed,
        Err(refusal) => {
            refused(Step::PutBack, refusal);
            Verdict::Dropped
        }
    }
}

/// Grows the frame to its old length, and stores what was there with the right sum in it.
#[inline(always)]
fn put_back<const OUT: usize, const BACK: usize>(
    skb: Skb,
    window: &mut [u8; BACK],
    field: Field,
) -> Result<(), Refusal> {
    if shrink_twice() {
        skb.shrink(MORE as i32)?;
        skb.shrink(-((OUT + MORE) as i32))?;
    } else {
        skb.shrink(-(OUT as i32))?;
    }
    let sum = field.expected.to_be_bytes();
    match field.at as usize {
        UDP => put(window, UDP, sum),
        TCP => put(window, TCP, sum),
        at => {
            skb.store(0, window, Summed::Yes)?;
            return skb.store(at, &sum, Summed::Yes);
        }
    }
    skb.store(0, window, Summed::Yes)
}

/// Where the sum lies behind an IPv4 header without options: it is stored with what was taken out.
const UDP: usize = ethernet::LEN + ipv4::LEN + udp::CHECKSUM;
const TCP: usize = ethernet::LEN + ipv4::LEN + tcp::CHECKSUM;

/// Puts the sum, which lies there in the frame, into the window.
#[inline(always)]
fn put<const BACK: usize>(window: &mut [u8; BACK], at: usize, sum: [u8; 2]) {
    window[at..at + sum.len()].copy_from_slice(&sum);
}

/// What was tried when a helper refused.
#[derive(Clone, Copy)]
#[repr(u64)]
enum Step {
    Pad = 1,
    Shrink = 2,
    PutBack = 3,
    Trim = 4,
}

/// Tells a developer which step of the fix a helper refused. Kept apart for its stack.
#[inline(never)]
fn refused(step: Step, refusal: Refusal) {
    debug!((), "step {} of the fix was refused: {}", step as u64, refusal);
}
