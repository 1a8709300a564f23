//! Plays the systems that fixer is for, built from their real software; `cargo xtask scenario` starts it.

use std::{collections::BTreeSet, process::ExitCode};

use anyhow::Result;
use clap::{Parser, builder::PossibleValuesParser};
use fixer_tests::{
    command,
    kernel::require_root,
    scenario::{EMULATED, SCENARIOS, Scenario, story::Story},
};

/// The systems that fixer is for, built from their real software
#[derive(Parser)]
struct Args {
    /// Which; all that this machine's kernel can play, if none is named
    #[arg(value_parser = PossibleValuesParser::new(every().map(|row| row.name)))]
    names: Vec<String>,
    /// Print JSON instead of a screen for each
    #[arg(long)]
    json: bool,
    /// Only print the names and titles of those there are
    #[arg(long, conflicts_with_all = ["json", "lacking"])]
    list: bool,
    /// Only print the Debian packages that are not here
    #[arg(long, conflicts_with = "json")]
    lacking: bool,
}

impl Args {
    fn wanted(&self) -> impl Iterator<Item = &'static Scenario> {
        let is_wanted =
            |row: &&Scenario| self.names.is_empty() || self.names.iter().any(|n| n == row.name);
        // Another kernel is asked for by name only.
        let emulated = if self.names.is_empty() && !self.list { &[] } else { EMULATED };
        SCENARIOS.iter().chain(emulated).filter(is_wanted)
    }
}

fn every() -> impl Iterator<Item = &'static Scenario> {
    SCENARIOS.iter().chain(EMULATED)
}

fn main() -> ExitCode {
    command::exit_status(run(&Args::parse()))
}

/// Plays, prints, and says whether everything is as it must be.
fn run(args: &Args) -> Result<bool> {
    if args.list {
        for row in args.wanted() {
            println!("{:<14} {}", row.name, row.title);
        }
        return Ok(true);
    }
    if args.lacking {
        for package in args.wanted().flat_map(Scenario::lacking).collect::<BTreeSet<_>>() {
            println!("{package}");
        }
        return Ok(true);
    }
    require_root()?;
    let mut stories = Vec::new();
    for row in args.wanted() {
        eprintln!("    {}: {}", row.name, row.title);
        let story = row.tell();
        if !args.json {
            println!("{story}");
        }
        stories.push(story);
    }
    if args.json {
        let stories: Vec<_> = stories.iter().map(Story::json).collect::<Result<_>>()?;
        println!("{}", serde_json::to_string_pretty(&stories)?);
    }
    Ok(stories.iter().all(Story::is_good))
}
