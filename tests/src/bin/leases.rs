//! Prints the matrix of real DHCP clients and servers; `cargo xtask leases` starts it.

use std::{collections::BTreeSet, process::ExitCode};

use anyhow::{Result, ensure};
use clap::{Parser, builder::PossibleValuesParser};
use fixer_tests::{
    command,
    kernel::require_root,
    leases::{self, FIXER, clients::CLIENTS, matrix, servers::SERVERS},
};

/// Real DHCP clients against real servers, over the bridge, without fixer and with it
#[derive(Parser)]
struct Args {
    /// Only this client
    #[arg(long, value_parser = names(CLIENTS.iter().map(|row| row.name)))]
    client: Option<String>,
    /// Only this server
    #[arg(long, value_parser = names(SERVERS.iter().map(|row| row.name)))]
    server: Option<String>,
    /// Only print the Debian packages of those that are not here
    #[arg(long, conflicts_with_all = ["client", "server"])]
    lacking: bool,
}

/// A table's names, of which some stand there once for each protocol.
fn names(rows: impl Iterator<Item = &'static str>) -> PossibleValuesParser {
    PossibleValuesParser::new(rows.collect::<BTreeSet<_>>())
}

fn main() -> ExitCode {
    command::exit_status(run(&Args::parse()))
}

/// Plays, prints, and says whether everything is as it must be.
fn run(args: &Args) -> Result<bool> {
    if args.lacking {
        for package in leases::lacking()? {
            println!("{package}");
        }
        return Ok(true);
    }
    require_root()?;
    let pairs = leases::pairs(args.client.as_deref(), args.server.as_deref());
    ensure!(!pairs.is_empty(), "this client and this server speak no protocol together");
    let trials = leases::play(&pairs, FIXER, |trial| {
        let outcome = if trial.faults().is_empty() { "as it must be" } else { "NOT as it must be" };
        eprintln!("    {}: {outcome}", trial.pair);
    })?;
    print!("{}", matrix::print(&trials));
    let faults = matrix::faults(&trials);
    if !faults.is_empty() {
        eprint!("{}", matrix::logs(&trials));
    }
    for fault in &faults {
        eprintln!("error: {fault}");
    }
    Ok(faults.is_empty())
}
