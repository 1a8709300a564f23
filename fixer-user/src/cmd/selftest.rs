//! `fixer selftest`: does the fix work on this kernel?

use anyhow::Result;
use serde::Serialize;

use super::Outcome;
use crate::{
    cli,
    metrics::kernel,
    privileges,
    proof::{Proof, prove},
    say::print,
    signals::end_with_the_reader,
};

/// Proves the fix on this kernel, and prints what was found.
pub fn run(args: &cli::Selftest) -> Result<Outcome> {
    end_with_the_reader()?;
    privileges::require(privileges::TO_PROVE)?;
    let proof = prove(args.attach_mode)?;
    if args.json {
        let report = Report { kernel: &kernel(), holds: proof.holds(), proof: &proof };
        print(format_args!("{}\n", serde_json::to_string(&report)?))?;
    } else {
        print(told(&proof))?;
    }
    Ok(if proof.holds() { Outcome::Done } else { Outcome::Problem })
}

#[derive(Serialize)]
struct Report<'a> {
    kernel: &'a str,
    holds: bool,
    #[serde(flatten)]
    proof: &'a Proof,
}

fn told(proof: &Proof) -> String {
    let mut text = format!("Linux {}, attached by {}\n", kernel(), proof.mode);
    for finding in &proof.findings {
        let mark = if finding.passed { "ok  " } else { "FAIL" };
        text += &format!("  {mark} {}\n", finding.trial);
        text.extend(finding.seen.iter().map(|seen| format!("       but {seen}\n")));
    }
    if proof.holds() {
        let how = if proof.shrink_twice { ", with a second shrink" } else { "" };
        text += &format!("The fix works on this kernel{how}.\n");
    } else {
        text += "The fix does not work on this kernel: do not attach it here. Update the kernel (the \
                 fix rests on commit 54c3f1a81421 of Linux 6.2, which the stable trees have too), or \
                 use `ethtool -K BRIDGE tx off`.\n";
    }
    text
}
