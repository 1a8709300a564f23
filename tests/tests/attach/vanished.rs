//! Interfaces that go away, or get another name, between the list and the attaching.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use fixer_common::abi::Hook;
use fixer_tests::command::{hooks, output};
use fixer_user::{
    bpf::{
        attach::Wish,
        load::{Config, Object},
        pin::Pins,
    },
    lab::{link, scene::BRIDGE},
    net::{
        links::list,
        netns::NetNs,
        turn::{SHORT, Turn},
    },
};

use crate::{nothing_is_left, private_mounts, run};

/// Others come and go all the time. A glob means those that are there.
#[test]
fn a_glob_passes_by_what_is_gone() -> Result<()> {
    const ROUNDS: usize = 25;
    private_mounts(true)?;
    let netns = NetNs::scratch("host")?;
    link::bridge(&netns, BRIDGE)?;
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| -> Result<()> {
        let churn = scope.spawn(|| -> Result<usize> {
            let mut count = 0;
            while !is_over.load(Ordering::Relaxed) {
                link::veth(&netns, "br-passing", &netns, "br-by")?;
                link::delete(&netns, "br-passing")?;
                count += 1;
            }
            Ok(count)
        });
        let attached = (0..ROUNDS).try_for_each(|round| {
            let mode = ["tcx", "clsact"][round % 2];
            let attach = ["attach", "-i", "br*", "--hook", "both", "--attach-mode", mode];
            let attach = [&attach[..], &["--skip-selftest"]].concat();
            run(&netns, &attach)?.ok()?;
            // Once more to replace what is there.
            run(&netns, &attach)?.ok()?;
            ensure!(hooks(&netns, BRIDGE)?.iter().filter(|it| it.contains("fixer_")).count() == 2);
            run(&netns, &["detach", "--all"])?.ok().map(drop)
        });
        is_over.store(true, Ordering::Relaxed);
        let count = churn.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        println!("{count} came and went during {ROUNDS} rounds");
        attached
    })?;
    run(&netns, &["detach", "--all"])?.ok()?;
    nothing_is_left(&netns, BRIDGE)
}

/// tcx attaches by name, and the name is another interface's by now.
#[test]
fn a_name_that_went_to_another_is_not_mistaken() -> Result<()> {
    private_mounts(true)?;
    let netns = NetNs::scratch("host")?;
    link::bridge(&netns, "tap0")?;
    let pins = Pins::of(&netns)?;
    let mut object = pins.load(&Config::default())?;
    let links = list(&netns)?;
    let meant = links.iter().find(|link| link.name == "tap0").context("no tap0")?.ifindex;
    output(&netns, "ip", &["link", "set", "tap0", "down", "name", "tap1"])?;
    for wish in [Wish::Tcx, Wish::Clsact] {
        let mut attach = |name: &str| {
            let act = || -> Result<_> {
                let turn = Turn::wait(SHORT)?;
                let how = (Hook::Egress, wish);
                Ok(pins.attach(&turn, &mut object, (meant, name), how, None)?)
            };
            netns.run(act)?
        };
        ensure!(attach("tap0")?.is_none(), "nobody has the name");
        link::bridge(&netns, "tap0")?;
        ensure!(attach("tap0")?.is_none(), "another has the name");
        ensure!(hooks(&netns, "tap0")?.is_empty() && hooks(&netns, "tap1")?.is_empty());
        ensure!(attach("tap1")?.is_some(), "it has this name");
        link::delete(&netns, "tap0")?;
        run(&netns, &["detach", "-i", "tap1"])?.ok()?;
        drop(std::mem::replace(&mut object, Object::load(&Config::default())?));
        object = pins.load(&Config::default())?;
    }
    Ok(())
}
