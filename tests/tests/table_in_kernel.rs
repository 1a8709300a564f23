//! The table of cases in the running kernel, by `BPF_PROG_TEST_RUN`.

use anyhow::{Result, ensure};
use fixer_tests::ways::test_run::{run, run_observing};

#[test]
fn every_case_has_its_verdict_and_its_bytes_at_both_hooks() -> Result<()> {
    let mut tried = 0;
    run(&mut |_| tried += 1)?;
    ensure!(tried > 250, "only {tried} cases were tried");
    Ok(())
}

#[test]
fn what_is_only_observed_is_not_changed() -> Result<()> {
    run_observing(&mut |_| ())
}
