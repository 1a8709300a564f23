//! Draws the pictures in `docs/pictures` of what fixer shows while real clients ask real servers;
//! `cargo xtask pictures` starts it.
//!
//! The [`scene`] is one for both: `fixer top` on a terminal, whose [`screen`] is drawn as it is, and the
//! [`dashboard`], drawn of what a real Prometheus answers to its own queries.

mod chart;
mod dashboard;
mod panels;
mod scene;
mod screen;
mod series;

use std::{
    fs,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::Parser;
use fixer_tests::{
    command::{Running, fixer},
    terminal::Terminal,
};

/// For how long there is traffic: the range of the dashboard, in seconds.
const SECONDS: u32 = 90;

/// How long what is on the terminal is waited for at once.
const SLICE: Duration = Duration::from_secs(5);

/// Draws the pictures in `docs/pictures`
#[derive(Parser)]
struct Args {
    /// Where to write them
    directory: PathBuf,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let stage = scene::Stage::start()?;
    let traffic = stage.traffic();
    let mut terminal = Terminal::open(108, 30)?;
    let mut command = fixer(&["top"])?;
    command.env("TERM", "xterm-256color").env("LC_ALL", "C.UTF-8");
    let top = Running::start_on(&stage.host().clone(), command, terminal.side()?)?;
    // The busiest row.
    terminal.shows("br1")?;
    terminal.press("j")?;
    let end = Instant::now() + Duration::from_secs(SECONDS.into());
    while Instant::now() < end {
        // What the terminal gets is to be read, or the program waits for that.
        let slice = end.min(Instant::now() + SLICE);
        terminal.wait("time goes by", |_| Instant::now() >= slice)?;
    }
    terminal.wait("exchanges of several kinds", |screen| {
        let text = screen.contents();
        ["waiting", "lease", "no_offer"].iter().all(|word| text.contains(word))
    })?;
    let picture = screen::draw(terminal.screen());
    write(args, "top.svg", &picture)?;
    let picture = dashboard::draw(stage.prometheus(), SECONDS)?;
    write(args, "dashboard.svg", &picture)?;
    terminal.press("q")?;
    top.end()?.ok()?;
    traffic.end()
}

fn write(args: &Args, name: &str, picture: &str) -> Result<()> {
    let path = args.directory.join(name);
    fs::write(&path, picture).with_context(|| path.display().to_string())?;
    eprintln!("{} ({} kB)", path.display(), picture.len() / 1000);
    Ok(())
}
