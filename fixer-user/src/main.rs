//! `fixer`: see `fixer --help`.

use std::process::ExitCode;

use clap::Parser as _;
use fixer_user::{
    cli::{Cli, Verb},
    cmd::{demo, run, selftest},
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr(cli.verbose);
    let outcome = match &cli.verb {
        Verb::Run(args) => run::run(args, cli.verbose),
        Verb::Selftest(args) => selftest::run(args),
        Verb::Demo(args) => demo::run(args),
    };
    outcome.map_or_else(
        |error| {
            eprintln!("fixer: {error:#}");
            ExitCode::FAILURE
        },
        ExitCode::from,
    )
}

fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => log::LevelFilter::Warn,
        1 => log::LevelFilter::Info,
        _ => log::LevelFilter::Debug,
    };
    env_logger::Builder::new()
        .filter_level(log::LevelFilter::Warn)
        .filter_module("fixer", level)
        .format_timestamp(None)
        .init();
}
