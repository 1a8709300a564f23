//! The configuration, as a constant of the loaded program.
//!
//! `fixer_common::abi::config` describes it; the loader overrides the values before the verifier
//! sees them, and the verifier removes the code that they make unreachable. Only the loads stay, so
//! each field is read where it is needed and nowhere else.

use core::ptr;

use fixer_common::{
    abi::config::Config,
    rule::{Family, Filter, Kinds, Rules},
};

#[unsafe(no_mangle)]
static CONFIG: Config = Config::NONE;

/// Reads a field of the configuration: what the loader wrote, not what the compiler saw.
macro_rules! field {
    ($($path:tt)+) => {{
        // SAFETY: a live and aligned constant.
        unsafe { ptr::read_volatile(&raw const CONFIG.$($path)+) }
    }};
}

/// Whether to count and report and change nothing.
#[inline(always)]
pub fn observe_only() -> bool {
    field!(observe_only) != 0
}

/// Whether this kernel clears the mark a step late.
#[inline(always)]
pub fn shrink_twice() -> bool {
    field!(shrink_twice) != 0
}

/// Whether [`OnlyDhcp`](fixer_common::rule::OnlyDhcp) are the rules.
#[inline(always)]
pub fn only_dhcp() -> bool {
    field!(only_dhcp) != 0
}

/// The rules that the loader wrote into this program.
pub struct Loaded;

impl Rules for Loaded {
    #[inline(always)]
    fn count(&self, family: Family) -> usize {
        field!(families[family as usize].count) as usize
    }

    #[inline(always)]
    fn filter(&self, family: Family, place: usize) -> Filter {
        Filter {
            mask: field!(families[family as usize].rules[place].filter.mask),
            wanted: field!(families[family as usize].rules[place].filter.wanted),
        }
    }

    #[inline(always)]
    fn kinds(&self, family: Family, place: usize) -> Kinds {
        field!(families[family as usize].rules[place].kinds)
    }
}
