//! `cargo xtask scenario`: the systems that fixer is for, from their packages to what a client got.
//!
//! The packages are unpacked below `target`, not installed ([`crate::unpacked`]). Which scenarios there
//! are is known to the table in fixer-tests.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xshell::{Shell, cmd};

use crate::{
    cargo,
    document::{self, Place},
    emulated, machine,
    packages::{self, Need},
    progress, unpacked,
};

pub(crate) const EXAMPLES: &str = "Examples:
  cargo xtask scenario                which there are
  cargo xtask scenario all            every one of them
  cargo xtask scenario qdhcp          only this one
  cargo xtask scenario vhost-net      a guest in an emulated Debian host; takes some minutes
  cargo xtask scenario all --json     the same for programs
  cargo xtask scenario all --write    put what was told into the pages in docs/systems, too";

/// Where packages are kept, and where they are unpacked.
const DIRECTORY: &str = "target/scenario";

/// Which systems to build.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Their names, or `all`
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Print JSON instead of a screen for each
    #[arg(long)]
    json: bool,
    /// Put what was told into the pages in docs/systems
    #[arg(long)]
    write: bool,
}

/// Fetches what is missing, builds the systems, and fails if one does not fare as it must.
pub(crate) fn run(sh: &Shell, args: &Args) -> Result<()> {
    if args.names.is_empty() {
        return Ok(scenario(sh).arg("--list").run()?);
    }
    machine::require_root(
        sh,
        "scenario",
        "it makes network namespaces, and loads programs into the kernel",
    )?;
    packages::ensure(sh, Need::Tests)?;
    let wants_all = args.names.iter().any(|name| name == "all");
    let is_emulated = |name: &str| emulated::SCENARIOS.contains(&name);
    let names: Vec<_> = args.names.iter().map(String::as_str).filter(|n| *n != "all").collect();
    let (inside, here): (Vec<&str>, Vec<&str>) = match wants_all {
        true => (emulated::SCENARIOS.to_vec(), Vec::new()),
        false => names.into_iter().partition(|name| is_emulated(name)),
    };
    // Screens are printed as they end, unless they are wanted once more.
    let json = args.json || args.write;
    let mut told = Vec::new();
    if wants_all || !here.is_empty() {
        told.push(play(sh, &here, json)?);
    }
    if !inside.is_empty() {
        told.push(emulated::play(sh, &inside, json)?);
        if !json {
            print!("{}", told.last().map_or("", |(story, _)| story));
        }
    }
    if json {
        let stories = joined(told.iter().map(|(stories, _)| stories.as_str()))?;
        tell(sh, args, &stories)?;
    }
    let is_good = told.iter().all(|(_, is_good)| *is_good);
    ensure!(is_good, "a system did not fare as it must; which, and why, is above");
    Ok(())
}

/// Prints stories, and puts those that went well into their pages if asked.
fn tell(sh: &Shell, args: &Args, stories: &[Value]) -> Result<()> {
    if args.json {
        println!("{}", serde_json::to_string_pretty(stories)?);
    }
    for story in stories {
        let text = |key: &str| story[key].as_str().unwrap_or_default();
        let (name, screen) = (text("name"), text("screen"));
        if !args.json {
            println!("{screen}");
        }
        if args.write && story["failure"].is_null() {
            let document = format!("docs/systems/{name}.md");
            let place = Place { document: &document, verb: "scenario", name };
            document::write(sh, &[(place, document::code(screen))])?;
        }
    }
    Ok(())
}

/// Plays the systems with these names, or all, on this machine. Stories are printed as they end; as JSON
/// they are handed over.
fn play(sh: &Shell, names: &[&str], json: bool) -> Result<(String, bool)> {
    fetch(sh, names)?;
    progress("build fixer");
    let cargo = cargo();
    cmd!(sh, "{cargo} build --package fixer-user --bin fixer")
        .run()
        .context("fixer could not be built")?;
    progress("build the systems and ask for leases");
    let program = scenario(sh).args(names);
    if !json {
        return Ok((String::new(), program.run().is_ok()));
    }
    let output = program.arg("--json").ignore_status().output()?;
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    Ok((String::from_utf8(output.stdout)?, output.status.success()))
}

/// Several lists as one.
fn joined<'a>(lists: impl Iterator<Item = &'a str>) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for list in lists {
        all.extend(serde_json::from_str::<Vec<Value>>(list).context("these are no stories")?);
    }
    Ok(all)
}

/// Fetches the packages of these systems, of all if none is named, that this machine does not have.
pub(crate) fn fetch(sh: &Shell, names: &[&str]) -> Result<()> {
    unpacked::fetch(sh, DIRECTORY, "parts of these systems", || {
        let lacking = scenario(sh).args(names).arg("--lacking").quiet().read()?;
        Ok(lacking.lines().map(str::to_owned).collect())
    })
}

/// The program of fixer-tests that knows the systems.
fn scenario(sh: &Shell) -> xshell::Cmd<'_> {
    let cargo = cargo();
    cmd!(sh, "{cargo} run --quiet --package fixer-tests --bin scenario --").quiet()
}
