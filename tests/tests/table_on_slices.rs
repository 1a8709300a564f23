//! The table of cases on slices.

use anyhow::{Result, ensure};
use fixer_tests::ways::slices::run;

#[test]
fn every_case_has_its_verdict_and_its_bytes() -> Result<()> {
    let mut tried = 0;
    run(&mut |_| tried += 1)?;
    ensure!(tried > 280, "only {tried} cases were tried");
    Ok(())
}
