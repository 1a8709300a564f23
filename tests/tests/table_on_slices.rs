//! The table of cases on slices: the packet logic as an ordinary function.

use fixer_common::{
    decide::{Decision, decide},
    frame::Frame,
    verdict::Verdict,
};
use fixer_tests::cases::{Case, cases};

/// A slice that can also be a segmentation-offload packet.
struct Slice<'a>(&'a Case);

impl Frame for Slice<'_> {
    fn len(&self) -> usize {
        self.0.frame.len()
    }

    fn is_gso(&self) -> bool {
        self.0.gso
    }

    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0.frame[..].load(offset)
    }

    fn head<const N: usize>(&self) -> Option<&[u8; N]> {
        self.0.frame[..].head()
    }
}

#[test]
fn every_case_has_its_verdict_and_its_bytes() {
    for case in cases() {
        let mut out = case.frame.clone();
        let verdict = match decide(&Slice(&case), &case.rules[..]) {
            None => None,
            Some(Decision::Leave(verdict, _)) => Some(verdict),
            Some(Decision::Fix(_, field)) => {
                let at = field.at as usize;
                out[at..at + 2].copy_from_slice(&field.expected.to_be_bytes());
                Some(Verdict::Fixed)
            }
        };
        assert_eq!(verdict, case.verdict, "{}", case.name);
        assert!(out == case.out, "{}: other bytes came out", case.name);
    }
}

#[test]
fn triage_turns_none_of_ours_away() {
    for case in cases().into_iter().filter(|case| case.verdict.is_some()) {
        assert!(fixer_common::triage::may_match(&Slice(&case), &case.rules[..]), "{}", case.name);
    }
}
