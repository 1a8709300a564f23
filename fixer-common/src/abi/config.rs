//! The configuration that is baked into a program when it is loaded.
//!
//! Each item is a read-only global of the object. The verifier knows its value and removes the
//! code that the configuration does not use, so what is off costs nothing.

use crate::rule::{self, Kinds, Rule, Rules as _};

/// The names of the globals.
pub mod global {
    /// `u8`: 1 to count and report and change nothing.
    pub const OBSERVE_ONLY: &str = "OBSERVE_ONLY";
    /// `u8`: the union of all rules' [`Kinds`](crate::rule::Kinds).
    pub const KINDS: &str = "KINDS";
    /// `u32`: how many rules there are.
    pub const RULE_COUNT: &str = "RULE_COUNT";
    /// `[u8; MOST]`: the rules' kinds.
    pub const RULE_KINDS: &str = "RULE_KINDS";
    /// `[u32; MOST]`: the rules' port masks.
    pub const RULE_MASKS: &str = "RULE_MASKS";
    /// `[u32; MOST]`: the rules' wanted ports.
    pub const RULE_WANTED: &str = "RULE_WANTED";
}

/// The values of the globals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Globals {
    /// See [`global::OBSERVE_ONLY`].
    pub observe_only: u8,
    /// See [`global::KINDS`].
    pub kinds: u8,
    /// See [`global::RULE_COUNT`].
    pub rule_count: u32,
    /// See [`global::RULE_KINDS`].
    pub rule_kinds: [u8; rule::MOST],
    /// See [`global::RULE_MASKS`].
    pub rule_masks: [u32; rule::MOST],
    /// See [`global::RULE_WANTED`].
    pub rule_wanted: [u32; rule::MOST],
}

impl Globals {
    /// The globals for these rules, or `None` if there are more than [`rule::MOST`].
    pub fn new(rules: &[Rule], observe_only: bool) -> Option<Self> {
        if rules.len() > rule::MOST {
            return None;
        }
        let mut globals = Self {
            observe_only: observe_only.into(),
            kinds: rules.kinds().bits(),
            rule_count: rules.len() as u32,
            rule_kinds: [Kinds::default().bits(); rule::MOST],
            rule_masks: [0; rule::MOST],
            rule_wanted: [0; rule::MOST],
        };
        for (place, rule) in rules.iter().enumerate() {
            globals.rule_kinds[place] = rule.kinds.bits();
            globals.rule_masks[place] = rule.mask;
            globals.rule_wanted[place] = rule.wanted;
        }
        Some(globals)
    }
}
