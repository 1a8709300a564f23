//! On slices: the packet logic as an ordinary function.

use anyhow::{Result, ensure};
use fixer_common::{
    decide::{Decision, decide},
    frame::Frame,
    triage::may_match,
    verdict::Verdict,
};

use super::Passed;
use crate::cases::{Case, cases};

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

    fn view<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        self.0.frame[..].view(offset)
    }

    fn head<const N: usize>(&self) -> Option<&[u8; N]> {
        self.0.frame[..].head()
    }
}

/// Runs every case.
pub fn run(passed: Passed<'_>) -> Result<()> {
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
        ensure!(verdict == case.verdict, "{}: {verdict:?}, not {:?}", case.name, case.verdict);
        ensure!(out == case.out, "{}: other bytes came out", case.name);
        // The first look may let a stranger pass, and turn none of ours away.
        let is_let_in = may_match(&Slice(&case), &case.rules[..]);
        ensure!(is_let_in || verdict.is_none(), "{}: triage turns it away", case.name);
        passed(&case);
    }
    Ok(())
}
