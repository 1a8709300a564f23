//! `cargo xtask bench`: what fixer costs, beside everything that an operator would use instead.
//!
//! Instructions are counted in an emulated machine, so that the figures are the same wherever and
//! whenever they are taken; they say what a packet pays. What is felt of it, and what `fixer run` needs,
//! is measured on this machine; figures that are compared there come from the same round.

mod exact;
mod figures;
mod host;
mod tables;
mod targets;

use anyhow::{Result, ensure};
use clap::builder::PossibleValuesParser;
use xshell::Shell;

use crate::{
    document::{self, Place},
    machine,
    packages::{self, Need},
    vm::kernel,
};
use figures::Figures;

/// What every packet pays, in short, for whoever meets fixer first.
const COST: Place<'static> = Place { document: "README.md", verb: "bench", name: "cost" };
/// The counted instructions.
const EXACT: Place<'static> = details("exact");
/// What is felt of them.
const FELT: Place<'static> = details("felt");
/// Time and memory of `fixer run`.
const BEYOND: Place<'static> = details("beyond");
/// The limits, and what was measured.
const TARGETS: Place<'static> = details("targets");

const fn details(name: &'static str) -> Place<'static> {
    Place { document: "docs/performance.md", verb: "bench", name }
}

pub(crate) const EXAMPLES: &str = "Examples:
  cargo xtask bench             everything, as tables in Markdown
  cargo xtask bench --exact     only the instructions that a packet pays
  cargo xtask bench --write     put the tables into README.md and docs/performance.md, too";

/// What to measure; everything, if nothing is named.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Count the instructions that a packet pays, in an emulated machine
    #[arg(long)]
    exact: bool,
    /// Which kernel counts
    #[arg(long, default_value = "6.12", value_parser = PossibleValuesParser::new(kernel::names()))]
    kernel: String,
    /// Measure TCP and UDP through the bridge
    #[arg(long)]
    felt: bool,
    /// Measure time and memory of `fixer run`, and how many events it delivers
    #[arg(long)]
    beyond: bool,
    /// How often everything is measured
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// Put the tables into README.md and docs/performance.md
    #[arg(long)]
    write: bool,
}

/// Measures, and prints the tables.
pub(crate) fn run(sh: &Shell, args: &Args) -> Result<()> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "`cargo xtask bench` knows kernels for x86_64 only; run it on such a machine"
    );
    machine::require_root(sh, "bench", "it makes network namespaces, and loads programs")?;
    packages::ensure(sh, Need::Bench)?;

    let all = !(args.exact || args.felt || args.beyond);
    let runs = usize::from(args.runs);
    let (mut figures, mut tables) = (Figures::default(), Vec::new());
    if all || args.exact {
        let kernel = exact::measure(sh, &args.kernel, runs, &mut figures)?;
        tables.push((EXACT, format!("Linux {kernel}.\n\n{}", tables::exact(&figures))));
        tables.push((COST, tables::cost(&figures)));
    }
    if all || args.felt {
        host::felt(sh, runs, &mut figures)?;
        tables.push((FELT, format!("{}.\n\n{}", host::machine(sh)?, tables::felt(&figures))));
    }
    if all || args.beyond {
        host::beyond(sh, runs, &mut figures)?;
        tables.push((BEYOND, format!("{}.\n\n{}", host::machine(sh)?, tables::beyond(&figures))));
    }
    let targets = targets::table(&figures);
    // A part of them would push out the others.
    if all {
        tables.push((TARGETS, targets));
    } else {
        println!("{targets}");
    }
    for (_, table) in &tables {
        println!("{table}");
    }
    if args.write { document::write(sh, &tables) } else { Ok(()) }
}
