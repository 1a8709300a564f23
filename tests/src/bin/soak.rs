//! Soaks fixer, and prints what came of it; `cargo xtask soak` starts it.

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use clap::Parser;
use fixer_tests::{
    command,
    soak::{self, Plan},
};

/// Replies at full speed while everything around fixer changes, and fixer is killed
#[derive(Parser)]
struct Args {
    /// For how long
    #[arg(long)]
    minutes: u64,
    /// The same seed does the same things in the same order; without one it is another each time
    #[arg(long)]
    seed: Option<u64>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    command::exit_status(run(&Args::parse()))
}

/// Soaks, prints, and says whether all is as it must be.
fn run(args: &Args) -> Result<bool> {
    let plan = Plan {
        length: Duration::from_secs(60 * args.minutes),
        seed: args.seed.unwrap_or_else(|| fastrand::u64(..)),
        fault: None,
    };
    let report = soak::run(plan, |news| eprintln!("{news}"))?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    let problems = report.problems();
    for problem in &problems {
        eprintln!("error: {problem}");
    }
    Ok(problems.is_empty())
}
