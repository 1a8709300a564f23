//! `fixer status`: who holds what, for people and for programs.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Result, ensure};
use fixer_common::verdict;
use fixer_tests::command::{hooks, on_bridge};
use fixer_user::{
    bpf::resident::residents,
    lab::{
        link,
        packet::PacketSocket,
        reply::{self, PARTIAL},
        scene::{BRIDGE, Scene},
    },
    net::netns::NetNs,
};
use nix::sys::signal::Signal;

use crate::{entries, nothing_is_left, private_mounts, run};

/// Three holders side by side: a run, an attach, and a run that was killed.
#[test]
fn a_table_says_who_holds_what() -> Result<()> {
    private_mounts(true)?;
    let scene = Scene::new()?;
    let netns = &scene.host;
    let empty = run(netns, &["status"])?.ok()?;
    ensure!(empty.stdout == ["nothing is attached"], "{empty:?}");
    for name in ["bridge-and-name", "br2"] {
        link::bridge(netns, name)?;
    }
    run(netns, &["attach", "-i", "bridge-and-name"])?.ok()?;
    let killed = fixer_tests::command::attached(
        netns,
        &["-i", "br2", "--metrics", "off", "--attach-mode", "clsact"],
    )?;
    killed.stop(Signal::SIGKILL)?;
    for mode in ["tcx", "clsact"] {
        let running = on_bridge(netns, &["--attach-mode", mode])?;
        send_partial(&scene)?;
        let table = run(netns, &["status"])?.ok()?.stdout;
        let pid = running.pid();
        let held = format!("run (pid {pid})");
        let width = held.len().max("nobody (left over)".len());
        let rows = [
            ["INTERFACE", "HOOK", "MODE", "HELD BY", "PACKETS"],
            [BRIDGE, "egress", mode, &held, "1 fixed"],
            ["bridge-and-name", "egress", "tcx", "attach", "no packet matched yet"],
            ["br2", "egress", "clsact", "nobody (left over)", "no packet matched yet"],
        ];
        let mode_width = 6;
        let mut wanted = rows.map(|[interface, hook, mode, held, packets]| {
            format!("{interface:<15}  {hook:<6}  {mode:<mode_width$}  {held:<width$}  {packets}")
        });
        wanted[1..].sort();
        let mut got = table;
        got[1..].sort();
        ensure!(got == wanted, "{got:#?}, not {wanted:#?}");
        let entries = entries(netns)?;
        for entry in &entries {
            // Also before there is anything to count, every verdict is there.
            let verdicts: Vec<_> = entry["packets"].as_object().into_iter().flatten().collect();
            ensure!(verdicts.len() == verdict::TABLE.len(), "{entry}");
            let is_known = |name: &str| verdict::TABLE.iter().any(|row| row.name == name);
            ensure!(verdicts.iter().all(|(name, _)| is_known(name)), "{entry}");
            let is_bridge = entry["interface"] == BRIDGE;
            let is_zero = verdicts.iter().all(|(_, count)| **count == 0);
            ensure!(is_bridge != is_zero, "{entry}");
        }
        let entry = entries.iter().find(|entry| entry["interface"] == BRIDGE);
        let is_run = |entry: &serde_json::Value| {
            entry["held_by"] == "run" && entry["pid"] == pid.as_raw() && entry["mode"] == mode
        };
        ensure!(entry.is_some_and(is_run), "{entries:?}");
        ensure!(entry.is_some_and(|entry| entry["packets"]["fixed"] == 1), "{entries:?}");
        running.stop(Signal::SIGTERM)?.ok()?;
        ensure!(hooks(netns, BRIDGE)?.is_empty());
    }
    let ended = run(netns, &["detach", "--all"])?.ok()?.stdout.join("\n");
    ensure!(ended.contains("removed what a killed fixer left at egress of br2"), "{ended}");
    nothing_is_left(netns, "br2")
}

fn send_partial(scene: &Scene) -> Result<()> {
    let mut frame = reply::frame(&[7; 300]);
    reply::make_partial(&mut frame);
    Ok(PacketSocket::open(&scene.host, BRIDGE)?.send(&frame, Some(PARTIAL))?)
}

/// Interfaces that go between the list and the look are none.
#[test]
fn what_vanishes_meanwhile_is_no_error() -> Result<()> {
    private_mounts(true)?;
    let netns = NetNs::scratch("host")?;
    link::bridge(&netns, BRIDGE)?;
    run(&netns, &["attach", "-i", BRIDGE, "--skip-selftest"])?.ok()?;
    let gone = [(4711, "gone")].into_iter();
    ensure!(netns.run(|| residents(gone))??.is_empty());

    let is_over = AtomicBool::new(false);
    thread::scope(|scope| -> Result<()> {
        let churn = scope.spawn(|| -> Result<()> {
            while !is_over.load(Ordering::Relaxed) {
                link::veth(&netns, "passing", &netns, "by")?;
                link::delete(&netns, "passing")?;
            }
            Ok(())
        });
        let looked = (0..60).try_for_each(|_| {
            let entries = entries(&netns)?;
            ensure!(entries.len() == 1, "{entries:?}");
            Ok(())
        });
        is_over.store(true, Ordering::Relaxed);
        looked.and(churn.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}
