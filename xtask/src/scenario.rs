//! `cargo xtask scenario`: the systems that fixer is for, from their packages to what a client got.
//!
//! The packages are unpacked below `target`, not installed ([`crate::unpacked`]). Which scenarios there
//! are is known to the table in fixer-tests.

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use crate::{
    cargo, machine,
    packages::{self, Need},
    progress, unpacked,
};

pub(crate) const EXAMPLES: &str = "Examples:
  cargo xtask scenario                which there are
  cargo xtask scenario all            every one of them
  cargo xtask scenario qdhcp          only this one
  cargo xtask scenario all --json     the same for programs";

/// Where packages are kept, and where they are unpacked.
const DIRECTORY: &str = "target/scenario";

/// Which systems to build.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Their names, or `all`
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Print JSON instead of a screen for each
    #[arg(long)]
    json: bool,
}

/// Fetches what is missing, builds the systems, and fails if one does not fare as it must.
pub(crate) fn run(sh: &Shell, args: &Args) -> Result<()> {
    if args.names.is_empty() {
        return Ok(scenario(sh).arg("--list").run()?);
    }
    machine::require_root(
        sh,
        "scenario",
        "it makes network namespaces, and loads programs into the kernel",
    )?;
    packages::ensure(sh, Need::Tests)?;
    let names: Vec<_> = args.names.iter().filter(|name| *name != "all").collect();
    fetch(sh, &names)?;
    progress("build fixer");
    let cargo = cargo();
    cmd!(sh, "{cargo} build --package fixer-user --bin fixer")
        .run()
        .context("fixer could not be built")?;
    progress("build the systems and ask for leases");
    let json = args.json.then_some("--json");
    scenario(sh)
        .args(names)
        .args(json)
        .run()
        .context("a system did not fare as it must; which, and why, is above")
}

/// Fetches the packages of these systems, of all if none is named, that this machine does not have.
fn fetch(sh: &Shell, names: &[&String]) -> Result<()> {
    unpacked::fetch(sh, DIRECTORY, "parts of these systems", || {
        let lacking = scenario(sh).args(names).arg("--lacking").quiet().read()?;
        Ok(lacking.lines().map(str::to_owned).collect())
    })
}

/// The program of fixer-tests that knows the systems.
fn scenario(sh: &Shell) -> xshell::Cmd<'_> {
    let cargo = cargo();
    cmd!(sh, "{cargo} run --quiet --package fixer-tests --bin scenario --").quiet()
}
