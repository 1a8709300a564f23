//! What changes under `fixer run`.

use std::{
    fs,
    sync::PoisonError,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use fastrand::Rng;
use fixer_user::lab::link;
use nix::sys::signal::Signal;

use super::{Held, Soak, killed as killed_early, line::Line, start, well};
use crate::command::{PATIENCE, Process, Running};

/// What a configuration may say besides. The first time that it says so the run gets buffers and programs
/// that it keeps, so its memory is looked at behind all of them.
const EXTRAS: [&str; 3] = ["hook = 'both'", "all = true", ""];

/// How long a run may hold what it does not need any more.
const SETTLES: Duration = Duration::from_secs(3);

/// How often a run is looked at that is to let go of something.
const LOOK: Duration = Duration::from_millis(20);

/// Runs that come and are killed, at once or after a while.
pub(super) fn killed(soak: &Soak, mut rng: Rng, line: &Line) -> Result<()> {
    while !soak.is_over() {
        let rules = soak.rules();
        let mode = ["tcx", "clsact"][rng.usize(..2)];
        let run = ["run", "-i", &line.bridge, "--metrics", "off", "--events", "none"];
        let how = ["--skip-selftest", "--match", &rules, "--attach-mode", mode];
        let run = run.into_iter().chain(how).map(str::to_owned).collect::<Vec<_>>();
        if rng.bool() && killed_early(line, &run, &mut rng)?.is_continue() {
            soak.did("runs killed while they start");
        }
        let mut running = start(line, &run)?;
        running.stderr.wait("attached to egress").with_context(|| run.join(" "))?;
        soak.did("runs");
        line.mean(true);
        Process::of(running.pid())?.ends_within(Duration::from_millis(rng.u64(..200)))?;
        line.mean(false);
        if rng.bool() {
            running.stop(Signal::SIGKILL)?;
            soak.did("runs killed while attached");
        } else {
            running.stop(Signal::SIGTERM)?.ok()?;
        }
        if rng.bool() {
            well(line, &["detach".to_owned(), "--all".to_owned()])?;
        }
    }
    well(line, &["detach".to_owned(), "--all".to_owned()]).map(drop)
}

/// One run that lasts, and reads its configuration again and again while interfaces come, are renamed,
/// and go.
pub(super) fn kept(soak: &Soak, mut rng: Rng, line: &Line) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("fixer.toml");
    let file = path.to_str().context("a path in UTF-8")?;
    let write = |extra: &str| {
        let marker = soak.marker.rule();
        let common = "interface = 'br*'\nmetrics = 'off'\nevents = 'none'\nskip-selftest = true\n";
        fs::write(&path, format!("{common}match = ['dhcp', '{marker}']\n{extra}\n"))
    };
    write("")?;
    let mut running = start(line, &["run", "--config", file].map(str::to_owned))?;
    running.stderr.wait("attached to egress of br0")?;
    line.mean(true);
    let read = |running: &mut Running, extra: &str| -> Result<()> {
        write(extra)?;
        running.signal(Signal::SIGHUP)?;
        running.stderr.wait("the configuration was read again")?;
        soak.did("configurations read again");
        Ok(())
    };
    let read_all = |running: &mut Running| -> Result<()> {
        EXTRAS.iter().cycle().take(2 * EXTRAS.len()).try_for_each(|extra| read(running, extra))
    };
    passing(soak, line, &mut running)?;
    read_all(&mut running)?;
    let before = held(&running, 0, SETTLES)?;
    while !soak.is_over() {
        if rng.bool() {
            read(&mut running, EXTRAS[rng.usize(..EXTRAS.len())])?;
        } else {
            // Of both hooks it is said in one line.
            read(&mut running, "")?;
            passing(soak, line, &mut running)?;
        }
    }
    read_all(&mut running)?;
    let after = held(&running, before.descriptors, PATIENCE)?;
    *soak.lasting.lock().unwrap_or_else(PoisonError::into_inner) = [before, after];
    line.mean(false);
    running.stop(Signal::SIGTERM)?.ok().map(drop)
}

/// A bridge appears beside the other, is given another name and its own again, and goes.
fn passing(soak: &Soak, beside: &Line, running: &mut Running) -> Result<()> {
    let mut line = Line::new(&beside.host, 7)?;
    running.stderr.wait("attached to egress of br7")?;
    line.mean(true);
    line.send(&mut line.open()?, &soak.tally)?;
    line.mean(false);
    for (to, told) in [("other", "detached from other"), ("br7", "attached to egress of br7")] {
        line.rename(to)?;
        running.stderr.wait(told)?;
    }
    line.mean(true);
    line.send(&mut line.open()?, &soak.tally)?;
    line.mean(false);
    link::delete(&line.host, "br7")?;
    link::delete(&line.host, "guest7")?;
    soak.did("interfaces that pass");
    Ok(())
}

/// What a run holds, once it holds no more descriptors than `most`, or has had so long to let go.
fn held(running: &Running, most: usize, patience: Duration) -> Result<Held> {
    let process = format!("/proc/{}", running.pid());
    let descriptors = || fs::read_dir(format!("{process}/fd")).map(Iterator::count);
    let deadline = Instant::now() + patience;
    while descriptors()? > most && Instant::now() < deadline {
        Process::of(running.pid())?.ends_within(LOOK)?;
    }
    let status = fs::read_to_string(format!("{process}/status"))?;
    let rss = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let rss = rss.and_then(|rss| rss.trim().strip_suffix(" kB"));
    let rss_kib = rss.context("the kernel does not tell a process's memory")?.parse()?;
    Ok(Held { rss_kib, descriptors: descriptors()?, ..Held::default() })
}
