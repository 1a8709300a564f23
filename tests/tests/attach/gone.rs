//! Namespaces that are deleted while something is attached in them, and then cannot be entered any more.

use std::{os::unix::fs::MetadataExt as _, path::PathBuf, time::Instant};

use anyhow::{Result, ensure};
use fixer_common::abi;
use fixer_tests::{
    command::{hooks, output},
    mounts::PINS,
};
use fixer_user::{
    lab::{link, scene::BRIDGE},
    net::netns::NetNs,
};

use crate::{PATIENCE, nothing_is_left, private_mounts, run};

pub fn pins(netns: &NetNs) -> Result<PathBuf> {
    let inode = netns.file().metadata()?.ino();
    Ok(PathBuf::from(PINS).join(format!("v{}", abi::VERSION)).join(inode.to_string()))
}

fn with_bridge(mode: &str) -> Result<NetNs> {
    let netns = NetNs::scratch("blue")?;
    link::bridge(&netns, BRIDGE)?;
    let attach = ["attach", "-i", BRIDGE, "--skip-selftest", "--attach-mode", mode];
    run(&netns, &attach)?.ok()?;
    ensure!(pins(&netns)?.exists());
    Ok(netns)
}

/// What is left of them goes with the next `detach --all` or `attach`, wherever that is; a namespace that is
/// there keeps what it has.
#[test]
fn what_a_deleted_namespace_left_is_removed() -> Result<()> {
    private_mounts(true)?;
    let here = NetNs::scratch("here")?;
    link::bridge(&here, BRIDGE)?;
    for mode in ["tcx", "clsact"] {
        let other = with_bridge(mode)?;
        for verb in [&["detach", "--all"][..], &["attach", "-i", BRIDGE, "--skip-selftest"]] {
            let blue = with_bridge(mode)?;
            let left = pins(&blue)?;
            run(&here, verb)?.ok()?;
            ensure!(left.exists(), "{mode}: the pins of a live namespace are gone");
            drop(blue);
            // The kernel takes a namespace down in its own time, and somebody else's may get its number.
            let deadline = Instant::now() + 6 * PATIENCE;
            let told = loop {
                ensure!(left.exists(), "{mode}: the pins are gone already");
                let ended = run(&here, verb)?.ok()?;
                if !left.exists() {
                    break ended.stderr;
                }
                ensure!(Instant::now() < deadline, "{mode}: the pins stay: {ended:?}");
            };
            let words = "removed the pins of a network namespace that is gone";
            ensure!(told.len() == 1 && told[0].contains(words), "{mode}: {told:?}");
        }
        ensure!(
            hooks(&other, BRIDGE)?.iter().any(|it| it.contains("fixer")) && pins(&other)?.exists()
        );
        run(&other, &["detach", "--all"])?.ok()?;
        run(&here, &["detach", "--all"])?.ok()?;
        nothing_is_left(&here, BRIDGE)?;
    }
    Ok(())
}

/// Pins that hold nothing are left where their namespace is there: somebody may be at work in it.
#[test]
fn pins_of_a_namespace_that_is_there_are_left() -> Result<()> {
    private_mounts(true)?;
    let here = NetNs::scratch("here")?;
    let blue = with_bridge("clsact")?;
    output(&blue, "tc", &["qdisc", "del", "dev", BRIDGE, "clsact"])?;
    let ended = run(&here, &["detach", "--all"])?.ok()?;
    ensure!(ended.stdout == ["nothing was attached"] && ended.stderr.is_empty(), "{ended:?}");
    ensure!(pins(&blue)?.exists());
    run(&blue, &["detach", "--all"])?.ok()?;
    nothing_is_left(&blue, BRIDGE)
}
