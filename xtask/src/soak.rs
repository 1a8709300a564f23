//! `cargo xtask soak`: everything at once, for as long as one likes.

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use crate::{
    cargo, machine,
    packages::{self, Need},
    progress,
};

pub(crate) const EXAMPLES: &str = "Examples:
  cargo xtask soak --minutes 3             replies, churn and kills, another time each time
  cargo xtask soak --minutes 60 --seed 7   the same things in the same order
  cargo xtask soak --minutes 3 --json      the same for programs";

/// For how long, and what.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// For how long
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// The same seed does the same things in the same order; without one it is another each time
    #[arg(long)]
    seed: Option<u64>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Builds `fixer`, soaks it, and fails if a reply arrived unfixed or something was left behind.
pub(crate) fn run(sh: &Shell, args: &Args) -> Result<()> {
    machine::require_root(
        sh,
        "soak",
        "it makes network namespaces, and loads programs into the kernel",
    )?;
    packages::ensure(sh, Need::Tests)?;
    let cargo = cargo();
    cmd!(sh, "{cargo} build --package fixer-user --bin fixer")
        .run()
        .context("fixer could not be built")?;
    progress(&format!("soak fixer ({} min)", args.minutes));
    let minutes = args.minutes.to_string();
    let seed = args.seed.map(|seed| ["--seed".to_owned(), seed.to_string()]);
    let json = args.json.then_some("--json");
    cmd!(sh, "{cargo} run --quiet --package fixer-tests --bin soak -- --minutes {minutes}")
        .args(seed.iter().flatten())
        .args(json)
        .run()
        .context("fixer did not stay attached, or got in the way; what was seen is above")
}
