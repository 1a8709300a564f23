//! On slices: the packet logic as an ordinary function.

use anyhow::{Result, ensure};
use fixer_common::{
    decide::{Decision, decide},
    triage::{may_match, still_may_match},
    verdict::Verdict,
};

use super::Passed;
use crate::{cases::cases, slice::Slice};

/// Runs every case.
pub fn run(passed: Passed<'_>) -> Result<()> {
    for case in cases() {
        let slice = Slice { bytes: &case.frame, gso: case.gso };
        let mut out = case.frame.clone();
        let verdict = match decide(&slice, &case.rules[..]) {
            None => None,
            Some(Decision::Leave(verdict, _)) => Some(verdict),
            Some(Decision::Fix(_, field)) => {
                let at = field.at as usize;
                out[at..at + 2].copy_from_slice(&field.expected.to_be_bytes());
                Some(Verdict::Fixed)
            }
        };
        ensure!(verdict == case.verdict, "{}: {verdict:?}, not {:?}", case.name, case.verdict);
        ensure!(out == case.out, "{}: other bytes came out", case.name);
        // The first look may let a stranger pass, and turn none of ours away.
        let is_let_in =
            may_match(&slice, &case.rules[..]) && still_may_match(&slice, &case.rules[..]);
        ensure!(is_let_in || verdict.is_none(), "{}: triage turns it away", case.name);
        passed(&case);
    }
    Ok(())
}
