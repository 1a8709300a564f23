//! Two at one interface: one of them attaches, the other says so and stops.

use std::time::Instant;

use anyhow::{Result, ensure};
use fixer_tests::command::{Running, fixer, hooks, on_bridge};
use fixer_user::{
    lab::{link, scene::BRIDGE},
    net::netns::NetNs,
};
use nix::sys::signal::Signal;

use crate::{PATIENCE, entries, nothing_is_left, private_mounts, run};

/// Both start at the same moment, again and again.
#[test]
fn of_two_that_start_together_one_is_attached() -> Result<()> {
    private_mounts(true)?;
    let netns = NetNs::scratch("host")?;
    link::bridge(&netns, BRIDGE)?;
    for round in 0..12 {
        let mode = ["tcx", "clsact"][round % 2];
        let common = ["-i", BRIDGE, "--attach-mode", mode, "--skip-selftest"];
        let run_it = [&["run", "--metrics", "off"][..], &common].concat();
        let attach = [&["attach"][..], &common].concat();
        let second = if round % 4 < 2 { &run_it } else { &attach };
        let mut both =
            [Running::start(&netns, fixer(&run_it)?)?, Running::start(&netns, fixer(second)?)?];
        let [first, second] = &mut both;
        // Whoever loses ends by itself, and so does an `attach` that wins.
        let deadline = Instant::now() + PATIENCE;
        let lost = loop {
            ensure!(Instant::now() < deadline, "round {round}: neither of them ends");
            if let Some(place) = [&mut *first, &mut *second].iter_mut().position(|it| it.is_over())
            {
                break place;
            }
            std::thread::yield_now();
        };
        let is_ours = |hook: &String| hook.contains("fixer_");
        let there = hooks(&netns, BRIDGE)?;
        let mut both = both.into_iter();
        let (Some(first), Some(second)) = (both.next(), both.next()) else {
            anyhow::bail!("there are two")
        };
        let (over, other) = if lost == 0 { (first, second) } else { (second, first) };
        let over = over.end()?;
        let won_by_attach = over.status.success();
        if won_by_attach {
            ensure!(other.end()?.status.code() == Some(1), "round {round}: both are attached");
            run(&netns, &["detach", "--all"])?.ok()?;
        } else {
            ensure!(over.status.code() == Some(1), "{over:?}");
            let stderr = over.stderr.join("\n");
            ensure!(stderr.contains("already attached to egress of br0"), "{stderr}");
            stop_or_detach(&netns, other)?;
        }
        ensure!(there.iter().filter(|hook| is_ours(hook)).count() == 1, "{round}: {there:?}");
        nothing_is_left(&netns, BRIDGE)?;
    }
    Ok(())
}

/// The winner is a `run` that goes on, or an `attach` that has ended or is about to.
fn stop_or_detach(netns: &NetNs, other: Running) -> Result<()> {
    let [entry] = &entries(netns)?[..] else { anyhow::bail!("not one entry") };
    if entry["held_by"] == "run" {
        other.stop(Signal::SIGTERM)?.ok()?;
    } else {
        other.end()?.ok()?;
        run(netns, &["detach", "--all"])?.ok()?;
    }
    Ok(())
}

/// The others of the namespace may be attached by another.
#[test]
fn a_run_and_an_attach_share_a_namespace() -> Result<()> {
    private_mounts(true)?;
    let netns = NetNs::scratch("host")?;
    for name in [BRIDGE, "br1"] {
        link::bridge(&netns, name)?;
    }
    let running = on_bridge(&netns, &["--attach-mode", "clsact"])?;
    run(&netns, &["attach", "-i", "br1", "--attach-mode", "clsact"])?.ok()?;
    run(&netns, &["detach", "--all"])?.ok()?;
    ensure!(hooks(&netns, BRIDGE)?.len() == 2, "the run was detached");
    running.stop(Signal::SIGTERM)?.ok()?;
    nothing_is_left(&netns, BRIDGE)?;
    nothing_is_left(&netns, "br1")
}
