//! Whoever has read enough closes the pipe, and that is a quiet end for every verb.

use std::{io, os::unix::process::ExitStatusExt as _, path::Path};

use anyhow::{Result, ensure};
use fixer_tests::{
    command::{Running, fixer, hooks},
    mounts::{PINS, private_mounts},
};
use fixer_user::lab::scene::{BRIDGE, Scene};
use nix::sys::signal::Signal;

/// What prints something and ends by itself, in an order in which each has something to do.
const VERBS: [&[&str]; 13] = [
    &["status"],
    &["status", "--json"],
    &["attach", "-i", BRIDGE, "--skip-selftest"],
    &["attach", "-i", BRIDGE, "--skip-selftest"],
    &["status"],
    &["status", "--json"],
    &["top", "--once"],
    &["doctor", "-i", BRIDGE],
    &["doctor", "-i", BRIDGE, "--json"],
    &["detach", "-i", BRIDGE],
    &["detach", "--all"],
    &["selftest"],
    &["selftest", "--json"],
];

/// Fails unless a verb ends quietly whose output nobody reads.
fn ends_quietly(scene: &Scene, arguments: &[&str], in_order: bool) -> Result<()> {
    let (reader, writer) = io::pipe()?;
    drop(reader);
    let ended = Running::start_into(&scene.host, fixer(arguments)?, writer)?.end()?;
    // It ends as other programs do that only print.
    let is_cut = !in_order && ended.status.signal() == Some(Signal::SIGPIPE as i32);
    ensure!(ended.status.success() || is_cut, "{arguments:?}: {ended:?}");
    ensure!(ended.stderr.is_empty(), "{arguments:?}: {ended:?}");
    Ok(())
}

#[test]
fn every_verb_ends_quietly() -> Result<()> {
    private_mounts(true)?;
    let scene = Scene::new()?;
    for arguments in VERBS {
        let in_order = !["doctor", "selftest"].contains(&arguments[0]);
        ends_quietly(&scene, arguments, in_order)?;
    }
    ends_quietly(&scene, &["demo", "--patience", "2"], false)
}

/// A full disk is no reader that has read enough; and what is done is done all the same, to its end.
#[test]
fn what_cannot_be_written_is_a_failure() -> Result<()> {
    private_mounts(true)?;
    let scene = Scene::new()?;
    let attach = ["attach", "-i", BRIDGE, "--skip-selftest"];
    let detach = ["detach", "--all"];
    for (arguments, attached) in [
        (&["status"][..], 0),
        (&["status", "--json"], 0),
        (&["selftest"], 0),
        (&["doctor", "-i", BRIDGE, "--json"], 0),
        (&attach, 1),
        (&detach, 0),
    ] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full")?;
        let ended = Running::start_into(&scene.host, fixer(arguments)?, full)?.end()?;
        ensure!(ended.status.code() == Some(1), "{arguments:?}: {ended:?}");
        let [line] = &ended.stderr[..] else { anyhow::bail!("{arguments:?}: {ended:?}") };
        ensure!(line.contains("No space left on device"), "{line}");
        ensure!(hooks(&scene.host, BRIDGE)?.len() == attached, "{arguments:?}");
    }
    ensure!(!Path::new(PINS).exists(), "pins are left");
    Ok(())
}
