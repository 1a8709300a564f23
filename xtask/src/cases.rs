//! `cargo xtask cases`: the table of cases, run every way there is.

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use crate::{cargo, machine};

/// Runs every case, and prints what the README shows.
pub(crate) fn run(sh: &Shell) -> Result<()> {
    machine::require_root(
        sh,
        "cases",
        "it makes network namespaces, and loads programs into the kernel",
    )?;
    let cargo = cargo();
    cmd!(sh, "{cargo} run --quiet --package fixer-tests --bin cases")
        .quiet()
        .run()
        .context("the cases above did not come out as they must")
}
