//! `fixer run --config`: what the file says, and what becomes of a change when SIGHUP comes.

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use fixer_tests::command::{PATIENCE, Running, attached, fixer, hooks};
use fixer_user::lab::{
    link,
    packet::PacketSocket,
    reply::{self, PARTIAL},
    scene::{BRIDGE, GUEST, Scene},
};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::{locked, scene, send_partial};

/// What a run says once it has done as the file says.
const READ: &str = "the configuration was read again";

/// A configuration file, gone when this is dropped.
struct File {
    _directory: TempDir,
    path: PathBuf,
}

impl File {
    fn new(text: &str) -> Result<Self> {
        let _directory = tempfile::tempdir()?;
        let file = Self { path: _directory.path().join("fixer.toml"), _directory };
        file.write(text)?;
        Ok(file)
    }

    fn write(&self, text: &str) -> Result<()> {
        Ok(fs::write(&self.path, text)?)
    }

    /// A run by this file, once it is attached.
    fn run(&self, scene: &Scene, arguments: &[&str]) -> Result<Running> {
        let path = self.path.to_str().context("a path in UTF-8")?;
        attached(&scene.host, &[&["--config", path], arguments].concat())
    }

    /// Writes the file anew, and waits until the run has done as it says.
    fn reread(&self, run: &mut Running, text: &str) -> Result<()> {
        self.write(text)?;
        run.signal(Signal::SIGHUP)?;
        run.stderr.wait(READ).map(drop)
    }
}

/// Whether a partial reply that leaves through the bridge reaches the guest as it was sent.
fn stays_partial(scene: &Scene) -> Result<bool> {
    let guest = PacketSocket::open(&scene.guest, GUEST)?;
    let mut frame = reply::frame(&[7; 300]);
    let whole = frame.clone();
    reply::make_partial(&mut frame);
    PacketSocket::open(&scene.host, BRIDGE)?.send(&frame, Some(PARTIAL))?;
    let arrived = guest
        .receive(PATIENCE, |received| received.bytes.len() == frame.len())?
        .context("the reply did not arrive")?;
    ensure!(arrived.partial || arrived.bytes == whole, "neither partial nor right");
    Ok(arrived.partial)
}

#[test]
fn the_file_says_all_that_the_command_line_can() -> Result<()> {
    let scene = scene()?;
    let file = File::new(
        "interface = ['br0']\nhook = 'both'\nmetrics = 'off'\nevents = 'none'\n\
         attach-mode = 'clsact'\n",
    )?;
    let run = file.run(&scene, &[])?;
    let there = hooks(&scene.host, BRIDGE)?;
    ensure!(there.len() == 3, "{there:?}");
    send_partial(&scene, BRIDGE, 2)?;
    let ended = run.stop(Signal::SIGTERM)?.ok()?;
    ensure!(ended.stdout == ["br0 egress: 2 fixed"], "{ended:?}");
    ensure!(hooks(&scene.host, BRIDGE)?.is_empty());
    Ok(())
}

/// How many files, maps and programs a run holds.
fn held(run: &Running) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{}/fd", run.pid()))?.count())
}

/// Replies flow one after the other while the programs are replaced under them: rules, events and
/// hooks change, and every reply is fixed and counted, once. Of what was replaced nothing is held for
/// long, and what it has counted stays.
#[test]
fn no_reply_passes_unfixed_while_the_configuration_is_read() -> Result<()> {
    for mode in ["tcx", "clsact"] {
        let scene = scene()?;
        let common = format!(
            "interface = '{BRIDGE}'\nmetrics = 'off'\nevents = 'none'\nattach-mode = '{mode}'\n"
        );
        let file = File::new(&common)?;
        let mut run = file.run(&scene, &[])?;
        file.reread(&mut run, &common)?;
        let before = held(&run)?;
        let enough = AtomicBool::new(false);
        let sent = thread::scope(|scope| -> Result<u64> {
            let sender = scope.spawn(|| -> Result<u64> {
                let mut sent = 0;
                while !enough.load(Ordering::Relaxed) {
                    ensure!(!stays_partial(&scene)?, "{mode}: reply {sent} passed unfixed");
                    sent += 1;
                }
                Ok(sent)
            });
            let mut reread = || -> Result<()> {
                for round in 0..12 {
                    let other = ["hook = 'both'", "match = ['dhcp', 'udp:69:*']", "all = true", ""];
                    file.reread(&mut run, &format!("{common}{}\n", other[round % other.len()]))?;
                }
                Ok(())
            };
            let outcome = reread();
            enough.store(true, Ordering::Relaxed);
            let sent = sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
            outcome.map(|()| sent)
        })?;
        ensure!(sent > 12, "{mode}: only {sent} replies were sent");
        let deadline = Instant::now() + PATIENCE;
        while held(&run)? > before && Instant::now() < deadline {}
        ensure!(held(&run)? <= before, "{mode}: {} are held, not {before}", held(&run)?);
        let ended = run.stop(Signal::SIGTERM)?.ok()?;
        ensure!(ended.stdout == [format!("br0 egress: {sent} fixed")], "{mode}: {ended:?}");
        ensure!(hooks(&scene.host, BRIDGE)?.is_empty(), "{mode}");
    }
    Ok(())
}

#[test]
fn interfaces_and_hooks_are_given_back_and_taken() -> Result<()> {
    for mode in ["tcx", "clsact"] {
        let scene = scene()?;
        link::bridge(&scene.host, "br1")?;
        let common = format!("metrics = 'off'\nevents = 'none'\nattach-mode = '{mode}'\n");
        let qdisc = usize::from(mode == "clsact");
        let count = |interface| hooks(&scene.host, interface).map(|found| found.len());
        let file = File::new(&format!("{common}interface = 'br0'\n"))?;
        let mut run = file.run(&scene, &[])?;
        ensure!((count(BRIDGE)?, count("br1")?) == (1 + qdisc, 0), "{mode}");
        send_partial(&scene, BRIDGE, 1)?;

        file.reread(&mut run, &format!("{common}interface = 'br1'\nhook = 'both'\n"))?;
        ensure!((count(BRIDGE)?, count("br1")?) == (0, 2 + qdisc), "{mode}");
        ensure!(stays_partial(&scene)?, "{mode}: it was given back");

        file.reread(&mut run, &format!("{common}auto = true\nhook = 'ingress'\n"))?;
        ensure!((count(BRIDGE)?, count("br1")?) == (1 + qdisc, 1 + qdisc), "{mode}");

        file.reread(&mut run, &format!("{common}interface = 'br0'\nhook = 'both'\n"))?;
        ensure!((count(BRIDGE)?, count("br1")?) == (2 + qdisc, 0), "{mode}");
        ensure!(!stays_partial(&scene)?, "{mode}: it was taken again");
        let ended = run.stop(Signal::SIGTERM)?.ok()?;
        ensure!(ended.stdout == ["br0 egress: 2 fixed"], "{mode}: {ended:?}");
        ensure!(count(BRIDGE)? == 0, "{mode}");
    }
    Ok(())
}

/// What it may change is asked of the kernel first: who only observed has proven nothing.
#[test]
fn observing_and_fixing_take_turns() -> Result<()> {
    let scene = scene()?;
    let common = "interface = 'br0'\nmetrics = 'off'\nevents = 'json'\n";
    let file = File::new(common)?;
    let mut run = file.run(&scene, &[])?;
    ensure!(!stays_partial(&scene)?);
    file.reread(&mut run, &format!("{common}observe-only = true\n"))?;
    ensure!(stays_partial(&scene)?);
    run.stdout.wait("\"verdict\":\"fixed\"")?;
    run.stdout.wait("\"verdict\":\"partial\"")?;
    file.reread(&mut run, common)?;
    ensure!(!stays_partial(&scene)?);
    let ended = run.stop(Signal::SIGTERM)?.ok()?;
    ensure!(ended.stderr.contains(&"br0 egress: 2 fixed, 1 partial".to_owned()), "{ended:?}");
    Ok(())
}

/// Whether the fix holds is found out at the start: later the run may not try any more.
#[test]
fn who_began_to_observe_may_fix() -> Result<()> {
    let scene = scene()?;
    let common = "interface = 'br0'\nmetrics = 'off'\nevents = 'none'\n";
    let file = File::new(&format!("{common}observe-only = true\n"))?;
    let mut run = file.run(&scene, &[])?;
    ensure!(stays_partial(&scene)?);
    file.reread(&mut run, common)?;
    ensure!(!stays_partial(&scene)?);
    run.stop(Signal::SIGTERM)?.ok().map(drop)
}

/// A service manager may ask for a reload at any moment.
#[test]
fn a_reload_during_the_start_is_no_end() -> Result<()> {
    let scene = scene()?;
    let file = File::new("interface = 'br0'\nmetrics = 'off'\nevents = 'none'\n")?;
    let path = file.path.to_str().context("a path in UTF-8")?;
    // It cannot attach before that.
    let lock = locked(&scene)?;
    let mut run = Running::start(&scene.host, fixer(&["run", "--config", path])?)?;
    let deadline = Instant::now() + PATIENCE;
    let status = format!("/proc/{}/status", run.pid());
    let catches = |status: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
        u64::from_str_radix(mask.trim(), 16).ok().map(|mask| mask & 1 << (libc::SIGHUP - 1) != 0)
    };
    while catches(&fs::read_to_string(&status)?) != Some(true) {
        ensure!(Instant::now() < deadline, "SIGHUP is never caught");
    }
    run.signal(Signal::SIGHUP)?;
    drop(lock);
    run.stderr.wait("attached to egress of br0")?;
    run.stderr.wait(READ)?;
    run.stop(Signal::SIGTERM)?.ok().map(drop)
}

#[test]
fn a_bad_file_changes_nothing() -> Result<()> {
    let scene = scene()?;
    let common = "interface = 'br0'\nmetrics = 'off'\nevents = 'none'\n";
    let file = File::new(common)?;
    let mut run = file.run(&scene, &[])?;
    let path = file.path.display().to_string();
    for (text, words) in [
        ("interface = 'br0'\nhok = 'both'\n", "line 2: there is no option 'hok'; is 'hook' meant?"),
        ("interface = 'br0'\nhook = 'up'\n", "line 2: invalid value 'up' for '--hook"),
        ("interface = 'br7'\n", "no interface 'br7'"),
        ("hook = 'both'\n", "no interface is selected"),
        ("interface = 'br0\n", "line 1: "),
    ] {
        file.write(text)?;
        run.signal(Signal::SIGHUP)?;
        let line = run.stderr.wait("the configuration stays as it was: ")?;
        ensure!(line.contains(words), "no '{words}' in: {line}");
        ensure!(!words.contains("line ") || line.contains(&path), "{line}");
        ensure!(!stays_partial(&scene)?, "after {text}");
    }
    fs::remove_file(&file.path)?;
    run.signal(Signal::SIGHUP)?;
    run.stderr.wait("cannot read the configuration file")?;
    ensure!(!stays_partial(&scene)?);
    let ended = run.stop(Signal::SIGTERM)?.ok()?;
    ensure!(ended.stdout == ["br0 egress: 6 fixed"], "{ended:?}");
    Ok(())
}

#[test]
fn what_cannot_change_is_told_and_the_rest_does() -> Result<()> {
    let scene = scene()?;
    let file = File::new("interface = 'br0'\nmetrics = 'off'\nevents = 'none'\n")?;
    let mut run = file.run(&scene, &[])?;
    file.write("auto = true\nevents = 'none'\nuser = 'nobody'\nhook = 'both'\n")?;
    run.signal(Signal::SIGHUP)?;
    run.stderr.wait("metrics, user cannot change while it runs: that needs a restart")?;
    run.stderr.wait(READ)?;
    ensure!(hooks(&scene.host, BRIDGE)?.len() == 2);
    run.stop(Signal::SIGTERM)?.ok()?;
    Ok(())
}
