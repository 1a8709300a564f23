//! Counts a packet, and tells the reader about it.
//!
//! The counter comes first and always; the event only if somebody wants this verdict and there is
//! room for it. An event that finds no room is counted as lost.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::bpf_ktime_get_ns};
use fixer_common::{
    abi::{
        Hook,
        counter::{Key, PLACES, Values},
        event::{HEADER_LEN, Header, LONG_SAMPLE, SHORT_SAMPLE, room},
    },
    decide::Field,
    frame::Frame,
    verdict::Verdict,
};

use crate::{
    frame::{Skb, add},
    maps::{COUNTERS, EVENTS, LOST, WANTED},
};

/// Records what became of a packet.
#[inline(always)]
pub fn record(skb: Skb, hook: Hook, verdict: Verdict, field: Field) {
    count(Key { ifindex: skb.ifindex(), hook: hook as u32 }, verdict);
    if WANTED.get(0).is_some_and(|wanted| wanted & verdict.bit() != 0) {
        report(skb, hook, verdict, field);
    }
}

/// Where an interface starts to count. In memory that the program shares: on its stack it would have
/// to be cleared byte by byte.
static NOTHING_YET: Values = [0; PLACES];

#[inline(always)]
fn count(key: Key, verdict: Verdict) {
    let mut values = COUNTERS.get_ptr_mut(key);
    if values.is_none() {
        // The first packet here. If another CPU was faster the insertion fails, and that is fine.
        let nothing_yet = &NOTHING_YET;
        let _ = COUNTERS.insert(key, nothing_yet, u64::from(BPF_NOEXIST));
        values = COUNTERS.get_ptr_mut(key);
    }
    if let Some(values) = values {
        // SAFETY: the value has `PLACES` numbers, more than there are verdicts, and belongs to this
        // CPU. Where classifiers can interrupt each other (PREEMPT_RT) a count may be lost.
        unsafe { *values.cast::<u64>().add(verdict as usize % PLACES) += 1 };
    }
}

/// Puts an event into the ring buffer: in a short sample if the frame fits into it.
#[inline(never)]
fn report(skb: Skb, hook: Hook, verdict: Verdict, field: Field) {
    let header = header(skb, hook, verdict, field);
    if header.captured as usize <= room(SHORT_SAMPLE) {
        sample::<SHORT_SAMPLE>(skb, header);
    } else {
        sample::<LONG_SAMPLE>(skb, header);
    }
}

#[inline(always)]
fn header(skb: Skb, hook: Hook, verdict: Verdict, field: Field) -> Header {
    let tag = skb.tag();
    Header {
        // SAFETY: the helper takes nothing and returns a number.
        time: unsafe { bpf_ktime_get_ns() },
        ifindex: skb.ifindex(),
        frame_len: skb.len() as u32,
        captured: match verdict {
            // What is left of a frame that lost bytes half-way would only mislead.
            Verdict::Dropped => 0,
            _ => skb.len().min(room(LONG_SAMPLE)) as u32,
        },
        checksum_at: field.at,
        stored: field.stored,
        expected: field.expected,
        vlan_tci: tag.map_or(0, |tag| tag.tci),
        vlan_protocol: tag.map_or(0, |tag| u16::from_be(tag.protocol)),
        verdict: verdict as u8,
        hook: hook as u8,
        padding: [0; 6],
    }
}

#[inline(always)]
fn sample<const LEN: usize>(skb: Skb, mut header: Header) {
    let Some(mut sample) = EVENTS.reserve::<[u8; LEN]>(0) else {
        lose();
        return;
    };
    let start = sample.as_mut_ptr().cast::<u8>();
    // Counted from 0, so that one comparison gives both bounds, and on a number that LLVM cannot
    // trace back to one that was compared before and since spilled: the verifier of Linux 6.1
    // forgets that, and before 6.8 (d028f87517d6) learns nothing from `captured != 0`.
    let last = add(header.captured as usize, usize::MAX);
    // SAFETY: the sample has room for that many bytes behind the header.
    if last >= room(LEN) || unsafe { skb.copy(0, start.add(HEADER_LEN), last + 1) }.is_err() {
        header.captured = 0;
    }
    // SAFETY: the sample starts at a multiple of 8 bytes and has room for the header.
    unsafe { start.cast::<Header>().write(header) };
    sample.submit(0);
}

#[inline(always)]
fn lose() {
    if let Some(lost) = LOST.get_ptr_mut(0) {
        // SAFETY: as for the counters.
        unsafe { *lost += 1 };
    }
}
