//! Tries many frames on the program in the kernel: `cargo xtask fuzz` starts it.

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::Parser;
use fixer_tests::fuzz::{
    bench::Bench,
    hunt::{Disagreement, Tally, hunt, keep, replay},
    inputs,
};

/// Compare the program in the kernel with the reference, frame by frame
#[derive(Parser)]
struct Cli {
    /// How many frames to try
    #[arg(long, default_value_t = 1_000_000)]
    frames: u64,
    /// The same seed makes the same frames; without one it is another each time
    #[arg(long)]
    seed: Option<u64>,
    /// Where to write the frame that the two disagree about
    #[arg(long, default_value = "target/fuzz")]
    keep: PathBuf,
    /// Only write inputs for libFuzzer to start from
    #[arg(long, num_args = 2, value_names = ["TARGET", "DIRECTORY"])]
    write_seeds: Option<Vec<String>>,
}

/// How often progress is told.
const TELL: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    let cli = Cli::parse();
    let Err(error) = run(&cli) else { return ExitCode::SUCCESS };
    eprintln!("error: {error:#}");
    if let Some(disagreement) = error.downcast_ref::<Disagreement>() {
        match keep(disagreement, &cli.keep) {
            Ok(file) => eprintln!(
                "it is in {}: add its line to tests/fixtures/fuzz/frames.txt",
                file.display()
            ),
            Err(error) => eprintln!("error: {error:#}"),
        }
    }
    ExitCode::FAILURE
}

fn run(cli: &Cli) -> Result<()> {
    if let Some([target, directory]) = cli.write_seeds.as_deref() {
        return inputs::seed(target, directory.as_ref());
    }
    let seed = cli.seed.unwrap_or_else(|| fastrand::u64(..));
    let mut bench = Bench::new().context("the program cannot be tried")?;
    let replayed = replay(&mut bench)?;
    eprintln!(
        "seed {seed}; {replayed} fixtures replayed; frames of up to {} bytes",
        bench.longest()
    );
    let start = Instant::now();
    let mut told = start;
    let tally = hunt(&mut bench, cli.frames, seed, |tally| {
        if told.elapsed() >= TELL {
            told = Instant::now();
            eprintln!("{} of {} frames", tally.frames, cli.frames);
        }
    })
    .with_context(|| format!("cargo xtask fuzz --seed {seed} --frames {}", cli.frames))?;
    report(&tally, seed, start.elapsed());
    Ok(())
}

fn report(tally: &Tally, seed: u64, took: Duration) {
    for (verdict, count) in &tally.verdicts {
        println!("{:>10} {}", count, verdict.unwrap_or("(no rule asked for it)"));
    }
    let rate = tally.frames as f64 / took.as_secs_f64();
    println!(
        "{} frames tried with seed {seed}, 0 disagreements, {:.0} s, {rate:.0} frames per second",
        tally.frames,
        took.as_secs_f64()
    );
}
