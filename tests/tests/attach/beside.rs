//! Two at one interface: one of them attaches, the other says so and stops.

use std::{fs, io, path::PathBuf, time::Instant};

use anyhow::{Context as _, Result, ensure};
use fixer_common::abi::Hook;
use fixer_tests::command::{Running, fixer, hooks, on_bridge, output};
use fixer_user::{
    bpf::{
        attach::{Batch, Wish},
        load::Config,
        pin::Pins,
    },
    lab::{link, scene::BRIDGE},
    net::{
        links::list,
        netns::NetNs,
        turn::{SHORT, Turn},
    },
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::signal::Signal,
};

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

/// An `attach` that takes its time has not come to the last interfaces yet when a run begins that means
/// those: it waits until it knows whether there is room.
#[test]
fn a_run_waits_at_its_start_until_there_is_an_answer() -> Result<()> {
    const ALL: usize = 300;
    private_mounts(true)?;
    let netns = NetNs::scratch("host")?;
    let directory = tempfile::tempdir()?;
    let batch = directory.path().join("interfaces");
    let lines = (1..=ALL).step_by(2);
    let lines = lines.map(|one| format!("link add tap{one} type veth peer tap{}\n", one + 1));
    fs::write(&batch, lines.collect::<String>())?;
    output(&netns, "ip", &["-batch", batch.to_str().context("the path is text")?])?;
    let switch = directory.path().join("switch");
    fs::write(&switch, "0\n")?;
    let attach = fixer(&["attach", "-i", "tap*", "--attach-mode", "tcx", "--skip-selftest"])?;
    let slow = Running::start_as(&netns, attach, in_no_hurry(switch))?;
    let deadline = Instant::now() + PATIENCE;
    while hooks(&netns, "tap2")?.is_empty() {
        ensure!(Instant::now() < deadline, "nothing is attached");
    }
    let [late, last] = [ALL - 1, ALL].map(|number| format!("tap{number}"));
    let run_it = ["run", "-i", &late, "-i", &last, "--metrics", "off", "--skip-selftest"];
    let second = Running::start(&netns, fixer(&run_it)?)?;
    ensure!(hooks(&netns, &last)?.is_empty(), "it was too fast to try this");
    let second = second.end()?;
    let stderr = second.stderr.join("\n");
    ensure!(second.status.code() == Some(1) && stderr.contains("put there by"), "{second:?}");
    slow.end()?.ok()?;
    for name in [&late, &last] {
        ensure!(hooks(&netns, name)?.len() == 1, "{:?}", hooks(&netns, name)?);
    }
    run(&netns, &["detach", "--all"])?.ok().map(drop)
}

/// For [`Running::start_as`]: the kernel cannot be told to hurry, so that a batch takes its time.
fn in_no_hurry(switch: PathBuf) -> impl FnMut() -> io::Result<()> + Send + Sync {
    const NONE: Option<&str> = None;
    const SWITCH: &str = "/sys/kernel/rcu_expedited";
    move || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
        mount(Some(&switch), SWITCH, NONE, MsFlags::MS_BIND, NONE)?;
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        Ok(mount(NONE, SWITCH, NONE, flags, NONE)?)
    }
}

/// A turn is given up when it takes too long to come, so who was there at the first look is not all.
#[test]
fn a_hook_is_looked_at_again_before_something_is_put_there() -> Result<()> {
    private_mounts(true)?;
    let netns = NetNs::scratch("host")?;
    link::bridge(&netns, BRIDGE)?;
    let links = list(&netns)?;
    let link = links.iter().find(|link| link.name == BRIDGE).context("no bridge")?;
    let target = (link.ifindex, link.name.as_str());
    let pins = Pins::of(&netns)?;
    for (mode, wish) in [("tcx", Wish::Tcx), ("clsact", Wish::Clsact)] {
        let mut object = pins.load(&Config::default())?;
        let running = on_bridge(&netns, &["--attach-mode", mode])?;
        let outcomes = netns.run(|| -> Result<_> {
            let turn = Turn::wait(SHORT)?;
            let pinned = pins.attach(&turn, &mut object, target, (Hook::Egress, wish), None);
            drop(turn);
            let batch = Batch::begin([].into_iter())?;
            let held = object.attach_link(&batch, link, Hook::Egress, wish);
            Ok([pinned.err().map(|it| it.to_string()), held.err().map(|it| it.to_string())])
        })??;
        for told in outcomes {
            let told = told.context("it was attached")?;
            ensure!(told.contains("already attached to egress of br0"), "{told}");
        }
        running.stop(Signal::SIGTERM)?.ok()?;
        drop(object);
        run(&netns, &["detach", "--all"])?.ok()?;
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
