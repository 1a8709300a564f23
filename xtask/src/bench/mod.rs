//! `cargo xtask bench`: what fixer costs, beside everything that an operator would use instead.
//!
//! Instructions are counted in an emulated machine, so that the figures are the same wherever and
//! whenever they are taken; they say what a packet pays. What is felt of it is measured on the machine
//! itself, in turn, and given as ratios.

mod exact;
mod figures;
mod tables;
mod targets;

use anyhow::{Result, ensure};
use xshell::Shell;

use figures::Figures;

use crate::{
    machine,
    packages::{self, Need},
};

pub(crate) const EXAMPLES: &str = "Examples:
  cargo xtask bench             everything, as tables in Markdown
  cargo xtask bench --exact     only the instructions that a packet pays";

/// What to measure; everything, if nothing is named.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Count the instructions that a packet pays, in an emulated machine
    #[arg(long)]
    exact: bool,
    /// How often everything is measured
    #[arg(long, default_value_t = 5)]
    runs: usize,
}

/// Measures, and prints the tables.
pub(crate) fn run(sh: &Shell, args: &Args) -> Result<()> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "`cargo xtask bench` knows kernels for x86_64 only; run it on such a machine"
    );
    machine::require_root(sh, "bench", "it makes network namespaces, and loads programs")?;
    packages::ensure(sh, Need::Bench)?;
    let mut figures = Figures::default();
    exact::measure(sh, args.runs, &mut figures)?;
    println!("{}", tables::exact(&figures));
    println!("{}", targets::table(&figures));
    Ok(())
}
