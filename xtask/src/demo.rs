//! `cargo xtask demo`: from a fresh clone to fixer at work, in one command.

use std::{os::unix::process::CommandExt, process::Command};

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use crate::{
    cargo, machine,
    packages::{self, Need},
    progress,
};

pub(crate) const EXAMPLES: &str = "Examples:
  cargo xtask demo              build fixer and show it
  cargo xtask demo -- --help    what the demo can do";

/// Builds `fixer` and becomes `fixer demo`, so that Ctrl-C and the exit status are its own.
pub(crate) fn run(sh: &Shell, args: &[String]) -> Result<()> {
    machine::require_root(
        sh,
        "demo",
        "it makes network namespaces, and loads a program into the kernel",
    )?;
    packages::ensure(sh, Need::Demo)?;
    progress("build fixer");
    let cargo = cargo();
    let target_dir = sh.current_dir().join("target");
    cmd!(sh, "{cargo} build --release --package fixer-user --bin fixer --target-dir {target_dir}")
        .run()
        .context("fixer could not be built")?;
    let fixer = target_dir.join("release/fixer");
    let failure = Command::new(&fixer).arg("demo").args(args).exec();
    Err(failure).with_context(|| format!("{} could not be started", fixer.display()))
}
