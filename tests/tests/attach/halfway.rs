//! Killed between two hooks: each has a whole program or none, and the next command says how far it came.

use anyhow::{Context as _, Result, ensure};
use fixer_tests::command::{Ended, Running, fixer};
use fixer_user::{
    bpf::resident::settled,
    lab::{
        link,
        scene::{BRIDGE, Scene},
    },
    net::{links::list, netns::NetNs},
};
use nix::sys::signal::Signal;

use crate::{
    entries,
    killed::{fixes, killed_at},
    nothing_is_left, private_mounts, run,
};

const BRIDGES: [&str; 2] = [BRIDGE, "br1"];

/// All the hooks that there are.
const ALL: usize = 4;

/// What a verb that is killed begins with, and what it does to a hook.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Attach,
    Upgrade,
    Detach,
}

#[test]
fn attaches_by_tcx() -> Result<()> {
    everywhere(Change::Attach, "tcx")
}

#[test]
fn attaches_by_clsact() -> Result<()> {
    everywhere(Change::Attach, "clsact")
}

#[test]
fn upgrades_by_tcx() -> Result<()> {
    everywhere(Change::Upgrade, "tcx")
}

#[test]
fn upgrades_by_clsact() -> Result<()> {
    everywhere(Change::Upgrade, "clsact")
}

#[test]
fn detaches_by_tcx() -> Result<()> {
    everywhere(Change::Detach, "tcx")
}

#[test]
fn detaches_by_clsact() -> Result<()> {
    everywhere(Change::Detach, "clsact")
}

/// The ids of the programs that are attached.
fn programs(netns: &NetNs) -> Result<Vec<u32>> {
    let links = list(netns)?;
    let names = links.iter().map(|link| (link.ifindex, link.name.as_str()));
    let there = netns.run(|| settled(names))??;
    Ok(there.iter().map(|there| there.program).collect())
}

/// Kills the verb at its first change, then at its second, and so on.
fn everywhere(change: Change, mode: &str) -> Result<()> {
    private_mounts(true)?;
    let scene = Scene::new()?;
    let host = &scene.host;
    link::bridge(host, BRIDGES[1])?;
    let how = ["--hook", "both", "--attach-mode", mode, "--skip-selftest"];
    let attach = [&["attach", "-i", "br*"], &how[..]].concat();
    let (verb, arguments) = match change {
        Change::Attach | Change::Upgrade => ("attach", attach.clone()),
        Change::Detach => ("detach", vec!["detach", "--all"]),
    };
    let (mut number, mut partly) = (0, 0);
    loop {
        let before = if change == Change::Attach {
            Vec::new()
        } else {
            run(host, &attach)?.ok()?;
            fixes(&scene)?;
            programs(host)?
        };
        let is_over = !killed_at(number, &scene, &arguments)?;
        let now = programs(host)?;
        let done = match change {
            Change::Attach | Change::Upgrade => {
                now.iter().filter(|program| !before.contains(program)).count()
            }
            Change::Detach => ALL - now.len(),
        };
        partly += usize::from(0 < done && done < ALL);
        let looked = || -> Result<()> {
            let ended = run(host, &["status"])?.ok()?;
            says(&ended, verb, done)?;
            ensure!(ended.stdout.len() == now.len() + 1 || now.is_empty(), "{ended:?}");
            if change == Change::Upgrade {
                counters_go_on(host)?;
            }
            // Each of the next commands is once the first.
            match number % 3 {
                0 => {
                    says(&run(host, &["detach", "--all"])?.ok()?, verb, done)?;
                }
                1 => {
                    says(&run(host, &attach)?.ok()?, verb, done)?;
                    ensure!(entries(host)?.len() == ALL);
                    if change == Change::Upgrade {
                        counters_go_on(host)?;
                    }
                }
                _ => {
                    let ended = run_once(host, mode)?;
                    if now.is_empty() {
                        ended.ok()?;
                    } else {
                        says(&ended, verb, done)?;
                    }
                }
            }
            // And then there is no more to be said.
            run(host, &attach)?.ok()?;
            let ended = run(host, &["status"])?.ok()?;
            ensure!(ended.stderr.is_empty() && ended.stdout.len() == ALL + 1, "{ended:?}");
            fixes(&scene)?;
            run(host, &["detach", "--all"])?.ok()?;
            BRIDGES.iter().try_for_each(|bridge| nothing_is_left(host, bridge))
        };
        looked().with_context(|| format!("{verb} by {mode}, killed at change {number}"))?;
        if is_over {
            break;
        }
        number += 1;
    }
    println!("{verb} by {mode}: killed at {number} places, at {partly} of them between two hooks");
    ensure!(partly >= ALL - 1, "only {partly} were between two hooks");
    Ok(())
}

/// A command says how far the one came that was killed. Of one that came to its end, or not to its
/// beginning, it need not say so.
fn says(ended: &Ended, verb: &str, done: usize) -> Result<()> {
    let told = ended.stderr.iter().find(|line| line.contains("was killed"));
    let words = match done {
        0 => format!("`fixer {verb}` was killed before the first of its {ALL} hooks"),
        ALL => format!("`fixer {verb}` was killed after the last of its {ALL} hooks"),
        _ => format!("`fixer {verb}` was killed after {done} of its {ALL} hooks; run it again"),
    };
    let is_partly = 0 < done && done < ALL;
    ensure!(told.is_some() || !is_partly, "no '{words}' in: {ended:?}");
    ensure!(told.is_none_or(|told| told.contains(&words)), "no '{words}' in: {ended:?}");
    Ok(())
}

fn counters_go_on(host: &NetNs) -> Result<()> {
    let entries = entries(host)?;
    let is_it = |it: &&serde_json::Value| it["interface"] == BRIDGE && it["hook"] == "egress";
    let fixed = entries.iter().find(is_it).map(|it| &it["packets"]["fixed"]);
    ensure!(fixed.is_some_and(|fixed| *fixed == 1), "{entries:?}");
    Ok(())
}

/// A run at all of them, which ends when it is attached or refused.
fn run_once(host: &NetNs, mode: &str) -> Result<Ended> {
    let arguments = ["run", "-i", "br*", "--hook", "both", "--attach-mode", mode];
    let more = ["--metrics", "off", "--events", "none", "--skip-selftest"];
    let mut running = Running::start(host, fixer(&[&arguments[..], &more].concat())?)?;
    running.stderr.wait("attached to")?;
    if !running.is_over() {
        let _ = running.signal(Signal::SIGTERM);
    }
    running.end()
}
