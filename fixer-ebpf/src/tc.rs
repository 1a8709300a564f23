//! The classifiers: what happens to every packet that passes an interface.

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use fixer_common::{
    abi::Hook,
    decide::{Decision, decide},
    rule::OnlyDhcp,
    triage::{may_match, still_may_match},
    verdict::Verdict,
};

use crate::{
    config::{Loaded, observe_only, only_dhcp},
    frame::Skb,
    record::record,
    tags,
};

/// Sees the packets that leave through an interface.
#[classifier]
pub fn fixer_egress(context: TcContext) -> i32 {
    classify(Skb::new(&context), Hook::Egress)
}

/// Sees the packets that come in through an interface.
#[classifier]
pub fn fixer_ingress(context: TcContext) -> i32 {
    classify(Skb::new(&context), Hook::Ingress)
}

/// `TC_ACT_UNSPEC` lets the other programs and filters of the interface go on.
#[inline(always)]
fn classify(skb: Skb, hook: Hook) -> i32 {
    let may_match = if only_dhcp() { may_match(&skb, &OnlyDhcp) } else { may_match(&skb, &Loaded) };
    if may_match { treat(skb, hook) } else { TC_ACT_UNSPEC }
}

/// Kept apart so that the packets that never come here do not pay for its registers and stack.
#[inline(never)]
fn treat(skb: Skb, hook: Hook) -> i32 {
    if !only_dhcp() && !still_may_match(&skb, &Loaded) {
        return TC_ACT_UNSPEC;
    }
    let Some(decision) = decide(&skb, &Loaded) else {
        return TC_ACT_UNSPEC;
    };
    let (verdict, field) = match decision {
        Decision::Fix(_, field) if observe_only() => (Verdict::Partial, field),
        Decision::Fix(datagram, field) => tags::fix(skb, &datagram, field),
        Decision::Leave(verdict, field) => (verdict, field),
    };
    record(skb, hook, verdict, field);
    match verdict {
        Verdict::Dropped => TC_ACT_SHOT,
        _ => TC_ACT_UNSPEC,
    }
}
