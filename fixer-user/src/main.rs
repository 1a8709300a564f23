//! `fixer`: see `fixer --help`.

use std::process::ExitCode;

use fixer_user::{
    cli::{Cli, Verb},
    cmd::{attach, demo, detach, doctor, run, selftest, serve_events, status, top, watch},
    net::netlink,
    say::say,
};

fn main() -> ExitCode {
    let cli = Cli::of_this_process();
    log_to_stderr(cli.verbose);
    let outcome = match &cli.verb {
        Verb::Run(args) => run::run(args, cli.verbose),
        Verb::Attach(args) => attach::run(args),
        Verb::Detach(args) => detach::run(args),
        Verb::Status(args) => status::run(args),
        Verb::Watch(args) => watch::run(args),
        Verb::ServeEvents(args) => serve_events::run(args),
        Verb::Doctor(args) => doctor::run(args),
        Verb::Top(args) => top::run(args),
        Verb::Selftest(args) => selftest::run(args),
        Verb::Demo(args) => demo::run(args),
    };
    outcome.map_or_else(
        |error| {
            say(one_line(&error));
            ExitCode::FAILURE
        },
        ExitCode::from,
    )
}

/// An error and its causes. A cause that was told already, in the words above it, is not told again.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !line.contains(&cause) {
            line.push_str(if line.is_empty() { "" } else { ": " });
            line.push_str(&cause);
        }
    }
    line
}

fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => log::LevelFilter::Warn,
        1 => log::LevelFilter::Info,
        _ => log::LevelFilter::Debug,
    };
    let library = if verbose == 0 { log::LevelFilter::Off } else { log::LevelFilter::Error };
    env_logger::Builder::new()
        .filter_level(log::LevelFilter::Warn)
        .filter_module("fixer", level)
        // It warns of news that were not heard; whoever follows them makes up for it. Of a message that
        // it cannot read, as of an interface whose name is no text, it shows every byte.
        .filter_module(netlink::LIBRARY, library)
        .format_timestamp(None)
        .init();
}
