//! `cargo xtask pictures`: what fixer shows, drawn while real clients ask real servers.

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use crate::{
    cargo, machine,
    packages::{self, Need},
    progress, unpacked,
};

/// Where they are.
const DIRECTORY: &str = "docs/pictures";

/// Builds `fixer`, and draws `fixer top` and the dashboard.
pub(crate) fn run(sh: &Shell) -> Result<()> {
    machine::require_root(
        sh,
        "pictures",
        "it makes network namespaces, and loads programs into the kernel",
    )?;
    packages::ensure(sh, Need::Tests)?;
    unpacked::prometheus(sh)?;
    let cargo = cargo();
    cmd!(sh, "{cargo} build --package fixer-user --bin fixer")
        .run()
        .context("fixer could not be built")?;
    progress("draw what fixer shows in two minutes of traffic");
    sh.create_dir(DIRECTORY)?;
    let directory = sh.current_dir().join(DIRECTORY);
    cmd!(sh, "{cargo} run --quiet --package fixer-tests --bin pictures -- {directory}")
        .run()
        .context("the pictures could not be drawn; those that were there may be old now")
}
