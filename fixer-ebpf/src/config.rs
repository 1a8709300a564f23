//! The configuration, as constants of the loaded program.
//!
//! `fixer_common::abi::config` describes each of them; the loader overrides the values before the
//! verifier sees them, and the verifier removes the code that they make unreachable.

use aya_ebpf::Global;
use fixer_common::rule::{Kinds, MOST, Rule, Rules};

#[unsafe(no_mangle)]
static OBSERVE_ONLY: Global<u8> = Global::new(0);

#[unsafe(no_mangle)]
static KINDS: Global<u8> = Global::new(0);

#[unsafe(no_mangle)]
static RULE_COUNT: Global<u32> = Global::new(0);

#[unsafe(no_mangle)]
static RULE_KINDS: [Global<u8>; MOST] = [const { Global::new(0) }; MOST];

#[unsafe(no_mangle)]
static RULE_MASKS: [Global<u32>; MOST] = [const { Global::new(0) }; MOST];

#[unsafe(no_mangle)]
static RULE_WANTED: [Global<u32>; MOST] = [const { Global::new(0) }; MOST];

/// Whether to count and report and change nothing.
#[inline(always)]
pub fn observe_only() -> bool {
    OBSERVE_ONLY.load() != 0
}

/// The rules that the loader wrote into this program.
pub struct Loaded;

impl Rules for Loaded {
    #[inline(always)]
    fn kinds(&self) -> Kinds {
        Kinds::from_bits(KINDS.load())
    }

    #[inline(always)]
    fn count(&self) -> usize {
        RULE_COUNT.load() as usize
    }

    #[inline(always)]
    fn rule(&self, place: usize) -> Rule {
        Rule {
            kinds: Kinds::from_bits(RULE_KINDS[place].load()),
            mask: RULE_MASKS[place].load(),
            wanted: RULE_WANTED[place].load(),
        }
    }
}
