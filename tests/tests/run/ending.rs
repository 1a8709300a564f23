//! How a run ends: in order, detached, whoever still listens.

use std::{
    fs,
    io::{self, BufRead as _, BufReader},
    os::unix::process::ExitStatusExt as _,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use fixer_tests::command::{PATIENCE, Running, fixer, hooks, on_bridge};
use fixer_user::{
    lab::{
        link,
        scene::{BRIDGE, Scene},
    },
    net::netns::NetNs,
};
use nix::{
    fcntl::{FcntlArg, fcntl},
    sys::signal::Signal,
};

use crate::{Stage, locked, scene, send_partial};

fn nothing_is_left(scene: &Scene) -> Result<()> {
    let left = hooks(&scene.host, BRIDGE)?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

#[test]
fn every_signal_that_asks_for_it_detaches_and_tells_what_was_counted() -> Result<()> {
    let stage = Stage::new()?;
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let fixer = on_bridge(&stage.scene.host, &["--hook", "both"])?;
        let there = hooks(&stage.scene.host, BRIDGE)?;
        ensure!(there.len() == 2, "{there:?}");
        let replies = stage.lease()?;
        let ended = fixer.stop(signal)?;
        ensure!(ended.status.code() == Some(0), "{signal}: {ended:?}");
        let summary = format!("br0 egress: {replies} fixed");
        ensure!(ended.stdout.last() == Some(&summary), "{signal}: no '{summary}' in {ended:?}");
        nothing_is_left(&stage.scene)?;
    }
    Ok(())
}

#[test]
fn a_run_that_saw_nothing_says_so() -> Result<()> {
    let scene = scene()?;
    let ended = on_bridge(&scene.host, &[])?.stop(Signal::SIGINT)?.ok()?;
    ensure!(ended.stdout == ["no packet matched"], "{ended:?}");
    Ok(())
}

/// What came in while it was not looking belongs to the stream too.
#[test]
fn what_was_seen_before_the_end_is_shown() -> Result<()> {
    let scene = scene()?;
    let fixer = on_bridge(&scene.host, &["--events", "json"])?;
    fixer.signal(Signal::SIGSTOP)?;
    send_partial(&scene, BRIDGE, 600)?;
    fixer.signal(Signal::SIGTERM)?;
    let ended = fixer.stop(Signal::SIGCONT)?.ok()?;
    ensure!(ended.stdout.len() == 600, "{} events", ended.stdout.len());
    Ok(())
}

/// A killed process leaves nothing either: the kernel takes a tcx link down with its last holder.
#[test]
fn a_killed_run_leaves_nothing() -> Result<()> {
    let scene = scene()?;
    let ended = on_bridge(&scene.host, &[])?.stop(Signal::SIGKILL)?;
    ensure!(ended.status.code().is_none(), "{ended:?}");
    // It frees what a killed process held in its own time, and tells nobody when.
    let deadline = Instant::now() + PATIENCE;
    while nothing_is_left(&scene).is_err() && Instant::now() < deadline {}
    nothing_is_left(&scene)
}

/// A run whose standard output goes into a pipe that this hands over.
fn into_pipe(scene: &Scene, arguments: &[&str]) -> Result<(Running, io::PipeReader)> {
    let (reader, writer) = io::pipe()?;
    // One page: soon full.
    fcntl(&reader, FcntlArg::F_SETPIPE_SZ(4096))?;
    let all = [&["run", "-i", BRIDGE, "--metrics", "off"], arguments].concat();
    let mut running = Running::start_into(&scene.host, fixer(&all)?, writer)?;
    running.stderr.wait("attached to")?;
    Ok((running, reader))
}

/// `fixer run … | head -1`.
#[test]
fn a_reader_that_has_read_enough_ends_the_run() -> Result<()> {
    for form in ["text", "json"] {
        let scene = scene()?;
        let (fixer, reader) = into_pipe(&scene, &["--events", form])?;
        send_partial(&scene, BRIDGE, 1)?;
        let mut line = String::new();
        BufReader::new(reader).read_line(&mut line)?;
        ensure!(line.contains("fixed"), "{line}");
        // The reader is gone; whoever writes next notices.
        send_partial(&scene, BRIDGE, 1)?;
        let ended = fixer.end()?.ok()?;
        let summary = "br0 egress: 2 fixed".to_owned();
        ensure!(form == "text" || ended.stderr.contains(&summary), "{ended:?}");
        nothing_is_left(&scene)?;
    }
    Ok(())
}

/// A pager that waits, a terminal that is stopped.
#[test]
fn a_reader_that_is_stopped_keeps_nobody_from_detaching() -> Result<()> {
    for form in ["text", "json"] {
        let scene = scene()?;
        let (fixer, reader) = into_pipe(&scene, &["--events", form])?;
        send_partial(&scene, BRIDGE, 400)?;
        let began = Instant::now();
        let ended = fixer.stop(Signal::SIGTERM)?.ok()?;
        let took = began.elapsed();
        drop(reader);
        ensure!(took < Duration::from_secs(8), "{form}: it took {took:?}");
        let summary = "br0 egress: 400 fixed".to_owned();
        ensure!(ended.stderr.contains(&summary), "{form}: {ended:?}");
        nothing_is_left(&scene)?;
    }
    Ok(())
}

/// `fixer run … 2>&1 | less`: what is said about interfaces goes into the same full pipe.
#[test]
fn a_stopped_reader_of_everything_keeps_nobody_from_detaching() -> Result<()> {
    let scene = scene()?;
    let (reader, writer) = io::pipe()?;
    fcntl(&reader, FcntlArg::F_SETPIPE_SZ(4096))?;
    let arguments = ["run", "-i", "br*", "--metrics", "off"];
    let errors = writer.try_clone()?;
    let fixer = Running::start_all_into(&scene.host, fixer(&arguments)?, writer, errors)?;
    let mut reader = BufReader::new(reader);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    ensure!(line.contains("attached to egress of br0"), "{line}");
    send_partial(&scene, BRIDGE, 400)?;
    // It has something to say about each of these, and nobody hears it.
    let other = NetNs::scratch("other")?;
    for number in 1..4 {
        link::veth(&scene.host, &format!("br{number}"), &other, &format!("far{number}"))?;
    }
    let began = Instant::now();
    fixer.stop(Signal::SIGTERM)?.ok()?;
    let took = began.elapsed();
    drop(reader);
    ensure!(took < Duration::from_secs(15), "it took {took:?}");
    nothing_is_left(&scene)
}

/// It may have to wait before it attaches, and nobody has to wait for that.
#[test]
fn who_changes_their_mind_at_the_start_is_heard() -> Result<()> {
    let scene = scene()?;
    let _lock = locked(&scene)?;
    let arguments = ["run", "-i", BRIDGE, "--metrics", "off", "--skip-selftest"];
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let run = Running::start(&scene.host, fixer(&arguments)?)?;
        let descriptors = format!("/proc/{}/fd", run.pid());
        let holds_namespace = || -> io::Result<bool> {
            let targets = fs::read_dir(&descriptors)?.flatten();
            let mut targets = targets.filter_map(|entry| fs::read_link(entry.path()).ok());
            Ok(targets.any(|target| target.to_string_lossy().starts_with("net:")))
        };
        let deadline = Instant::now() + PATIENCE;
        while !holds_namespace()? {
            ensure!(Instant::now() < deadline, "it does not begin");
        }
        run.signal(signal)?;
        let ended = run.end()?;
        ensure!(ended.status.signal() == Some(signal as i32), "{ended:?}");
        nothing_is_left(&scene)?;
    }
    Ok(())
}
