//! `cargo xtask fuzz`: what nobody thought of, tried by the million.
//!
//! Without `--target`, frames go through the program in the kernel and through a plain reference, and
//! must come out alike. With it, libFuzzer makes up inputs, and keeps those that reach new code.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use crate::{
    cargo, machine,
    packages::{self, Need},
    progress,
};

pub(crate) const EXAMPLES: &str = "Examples:
  cargo xtask fuzz                                   a million frames
  cargo xtask fuzz --frames 5000000 --seed 7         these five million
  cargo xtask fuzz --target events --seconds 300     libFuzzer, for five minutes";

/// How many frames `cargo xtask test` tries.
const MANY: u64 = 1_000_000;

/// What libFuzzer builds, finds and learns stays here until this is deleted.
const DIRECTORY: &str = "target/fuzz";

/// What to try.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many frames to try on the program in the kernel
    #[arg(long, default_value_t = MANY, conflicts_with = "target")]
    frames: u64,
    /// The same seed makes the same frames; without one it is another each time
    #[arg(long, conflicts_with = "target")]
    seed: Option<u64>,
    /// Let libFuzzer look for inputs that break this
    #[arg(long, value_enum)]
    target: Option<Target>,
    /// For how long libFuzzer looks
    #[arg(long, default_value_t = 60, requires = "target")]
    seconds: u32,
}

/// What libFuzzer can try.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Target {
    /// The packet logic against the reference
    Parse,
    /// Samples of the kernel, and how they are shown
    Events,
}

pub(crate) fn run(sh: &Shell, args: &Args) -> Result<()> {
    match args.target {
        None => in_kernel(sh, args.frames, args.seed),
        Some(target) => with_libfuzzer(sh, target, args.seconds),
    }
}

/// Tries as many frames as continuous integration does.
pub(crate) fn many(sh: &Shell) -> Result<()> {
    in_kernel(sh, MANY, None)
}

fn in_kernel(sh: &Shell, frames: u64, seed: Option<u64>) -> Result<()> {
    machine::require_root(sh, "fuzz", "it loads programs into the kernel")?;
    progress(&format!("try {frames} frames on the program in the kernel"));
    let cargo = cargo();
    let frames = frames.to_string();
    let seed = seed.map(|seed| ["--seed".to_owned(), seed.to_string()]);
    cmd!(sh, "{cargo} run --quiet --release --package fixer-tests --bin fuzz -- --frames {frames}")
        .args(seed.iter().flatten())
        .run()
        .context("the program and the reference disagree, or could not be tried; see above")
}

/// Makes rustc count which code runs and what is compared in it. Stable compilers take these flags;
/// only for the sanitizers, which safe code does not need, they would have to be nightly.
const COVERAGE: [&str; 5] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

fn with_libfuzzer(sh: &Shell, target: Target, seconds: u32) -> Result<()> {
    packages::ensure(sh, Need::LibFuzzer)?;
    let name = match target {
        Target::Parse => "parse",
        Target::Events => "events",
    };
    let cargo = cargo();
    let corpus = format!("{DIRECTORY}/corpus/{name}");
    progress("write inputs to start from");
    cmd!(
        sh,
        "{cargo} run --quiet --package fixer-tests --bin fuzz -- --write-seeds {name} {corpus}"
    )
    .run()
    .context("the inputs could not be written")?;

    progress(&format!("build libFuzzer and its target {name} (a minute or two, the first time)"));
    let crash = sh.current_dir().join(format!("{DIRECTORY}/{name}.crash"));
    sh.remove_path(&crash)?;
    let seconds = format!("-max_total_time={seconds}");
    let keep = format!("-exact_artifact_path={}", crash.display());
    let options = ["-timeout=10", "-print_final_stats=1", "-verbosity=1"];
    // With `--target`, what runs while compiling is not made to count.
    let outcome = cmd!(sh, "{cargo} run --release --target host-tuple --target-dir {DIRECTORY}")
        .args(["--package", "fixer-fuzz", "--features", "libfuzzer", "--bin", name, "--"])
        .args([corpus, seconds, keep])
        .args(options)
        .env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join("\x1f"))
        .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true")
        .env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true")
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .run();
    outcome.with_context(|| remedy(name, &crash))
}

/// What to do with the input that libFuzzer found.
fn remedy(target: &str, crash: &Path) -> String {
    match fs::read(crash) {
        Ok(input) => {
            let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
            format!(
                "a crash was found; add its line to tests/fixtures/fuzz/inputs.txt:\n{target} {hex}"
            )
        }
        Err(_) => format!("libFuzzer could not try {target}; see above"),
    }
}
