//! `cargo xtask`: what a developer of fixer does, each as one command.
//!
//! It starts other programs and says what it is about to do; all that fixer does itself is in the
//! other crates. A step that needs a program the machine does not have installs it if it can, and
//! otherwise says what to install.

mod bench;
mod cases;
mod demo;
mod document;
mod ebpf;
mod emulated;
mod fuzz;
mod leases;
mod lint;
mod machine;
mod object;
mod packages;
mod pictures;
mod pxe;
mod record;
mod scenario;
mod soak;
mod test;
mod tidy;
mod toolchain;
mod unpacked;
mod version;
mod vm;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use xshell::Shell;

/// What a developer of fixer does, each as one command
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Show fixer at work in network namespaces of its own (needs root)
    #[command(after_help = demo::EXAMPLES)]
    Demo {
        /// What to hand to `fixer demo`
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Run every check and every test there is (needs root)
    #[command(after_help = test::EXAMPLES)]
    Test {
        /// Run only the tests whose name contains this
        filter: Option<String>,
    },
    /// Run the table of cases every way there is, and print what came out (needs root)
    Cases,
    /// Play real DHCP clients against real servers, without fixer and with it (needs root)
    #[command(after_help = leases::EXAMPLES)]
    Leases(leases::Args),
    /// Check the format, the lints and the invariants of ARCHITECTURE.md
    Lint,
    /// Build the eBPF object that `fixer` embeds
    #[command(after_help = ebpf::EXAMPLES)]
    Ebpf {
        /// Compare with the committed object instead of replacing it
        #[arg(long)]
        check: bool,
    },
    /// Try frames without end on the program in the kernel (needs root), or let libFuzzer look
    #[command(after_help = fuzz::EXAMPLES)]
    Fuzz(fuzz::Args),
    /// Try the object and the fix on real kernels, in emulated machines
    #[command(after_help = vm::EXAMPLES)]
    Vm(vm::Args),
    /// Boot guests over the network that verify every checksum (needs root)
    #[command(after_help = pxe::EXAMPLES)]
    Pxe {
        /// Print JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Build the systems that fixer is for from their real software, without fixer and with it
    /// (needs root)
    #[command(after_help = scenario::EXAMPLES)]
    Scenario(scenario::Args),
    /// Send replies at full speed while everything changes and fixer is killed (needs root)
    #[command(after_help = soak::EXAMPLES)]
    Soak(soak::Args),
    /// Draw the pictures in docs/pictures anew, of what fixer shows in real traffic (needs root)
    Pictures,
    /// Measure what fixer costs, beside everything that does as well (needs root)
    #[command(after_help = bench::EXAMPLES)]
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Printed here, because whoever started xtask asked for no backtrace of it.
    let Err(error) = run(cli.verb) else { return ExitCode::SUCCESS };
    eprintln!("error: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("because: {cause}");
    }
    ExitCode::FAILURE
}

fn run(verb: Verb) -> Result<()> {
    let sh = Shell::new().context("the current directory cannot be read; change to another one")?;
    sh.change_dir(root()?);
    match verb {
        Verb::Demo { args } => demo::run(&sh, &args),
        Verb::Test { filter } => test::run(&sh, filter.as_deref()),
        Verb::Cases => cases::run(&sh),
        Verb::Leases(args) => leases::run(&sh, &args),
        Verb::Lint => lint::run(&sh),
        Verb::Ebpf { check: false } => ebpf::build(&sh),
        Verb::Ebpf { check: true } => ebpf::check(&sh).map(drop),
        Verb::Fuzz(args) => fuzz::run(&sh, &args),
        Verb::Vm(args) => vm::run(&sh, &args),
        Verb::Pxe { json } => pxe::run(&sh, json),
        Verb::Scenario(args) => scenario::run(&sh, &args),
        Verb::Soak(args) => soak::run(&sh, &args),
        Verb::Pictures => pictures::run(&sh),
        Verb::Bench(args) => bench::run(&sh, &args),
    }
}

/// The root of the repository. Asked of cargo at run time: a clone may have been moved since
/// xtask was compiled.
fn root() -> Result<PathBuf> {
    let here = std::env::var_os("CARGO_MANIFEST_DIR")
        .context("the repository is not known; start xtask as `cargo xtask`")?;
    let here = PathBuf::from(here).join("..");
    here.canonicalize().with_context(|| format!("{} cannot be read", here.display()))
}

/// Says on stderr which long step begins.
fn progress(step: &str) {
    eprintln!("==> {step}");
}

/// The cargo that started xtask, so that its toolchain does all the work that is not for BPF.
fn cargo() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}
