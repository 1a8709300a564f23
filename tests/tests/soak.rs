//! A short soak, and proof that it can fail: `cargo xtask soak` takes longer.

use std::time::Duration;

use anyhow::{Result, ensure};
use fixer_tests::soak::{Fault, Plan, Report, run};

/// Any will do.
const SEED: u64 = 8200;

fn soak(seconds: u64, fault: Option<Fault>) -> Result<Report> {
    run(Plan { length: Duration::from_secs(seconds), seed: SEED, fault }, |_| ())
}

#[test]
fn nothing_gets_past_and_nothing_is_left() -> Result<()> {
    let report = soak(12, None)?;
    println!("{report}");
    ensure!(report.problems().is_empty(), "{:#?}\n{report}", report.problems());
    let often = ["upgrades", "upgrades killed", "attaches", "runs", "namespaces"];
    for what in often {
        ensure!(report.done.contains_key(what), "{what} did not come up:\n{report}");
    }
    Ok(())
}

#[test]
fn a_bridge_that_is_not_attached_is_noticed() -> Result<()> {
    let problems = soak(3, Some(Fault::NeverAttached))?.problems();
    let told = |words: &str| problems.iter().any(|problem| problem.contains(words));
    ensure!(told("replies arrived unfixed"), "{problems:?}");
    Ok(())
}

#[test]
fn what_is_left_behind_is_noticed() -> Result<()> {
    let problems = soak(3, Some(Fault::NotDetached))?.problems();
    let told = |words: &str| problems.iter().any(|problem| problem.contains(words));
    for words in ["left at br0: tcx", "left at br1: ", "left below", "left in the kernel"] {
        ensure!(told(words), "nothing of '{words}' in {problems:#?}");
    }
    Ok(())
}
