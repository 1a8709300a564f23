//! `fixer attach`, `status` and `detach`: the fix stays without a process, and nothing else does.
//!
//! Each test's thread has a BPF file system of its own, so the host's pins are neither seen nor
//! touched, and nothing is left when the thread ends.

mod beside;
mod failing;
mod globs;
mod gone;
mod halfway;
mod hidden;
mod killed;
mod refused;
mod status;
mod strangers;
mod upgrade;
mod vanished;

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use fixer_tests::{
    command::{Ended, Running, fixer, hooks, output},
    mounts::{PINS, mount_at_bpffs, private_mounts},
};
use fixer_user::{
    lab::{
        link,
        scene::{BRIDGE, Dnsmasq, GUEST, Scene},
        strict,
    },
    net::netns::NetNs,
};

const PATIENCE: Duration = Duration::from_secs(10);

/// Fails unless `fixer` refused in one line that holds these words.
fn refused(ended: &Ended, words: &[&str]) -> Result<()> {
    let [error] = &ended.stderr[..] else { anyhow::bail!("not one error: {ended:?}") };
    ensure!(ended.status.code() == Some(1) && ended.stdout.is_empty(), "{ended:?}");
    ensure!(words.iter().all(|word| error.contains(word)), "not {words:?} in: {error}");
    Ok(())
}

/// Nothing of fixer's is at the hooks of an interface, nor pinned.
fn nothing_is_left(netns: &NetNs, interface: &str) -> Result<()> {
    let left = hooks(netns, interface)?;
    ensure!(left.is_empty(), "left at {interface}: {left:?}");
    ensure!(!fs::exists(PINS)?, "pins are left");
    Ok(())
}

/// All that `fixer status --json` says.
fn entries(netns: &NetNs) -> Result<Vec<serde_json::Value>> {
    let ended = run(netns, &["status", "--json"])?.ok()?;
    Ok(serde_json::from_str(&ended.stdout.join(""))?)
}

/// Runs `fixer` with these arguments to its end.
fn run(netns: &NetNs, arguments: &[&str]) -> Result<Ended> {
    Running::start(netns, fixer(arguments)?)?.end()
}

/// What `fixer status --json` says of the only hook that is attached.
fn status(netns: &NetNs) -> Result<serde_json::Value> {
    let mut entries = entries(netns)?;
    ensure!(entries.len() == 1, "{entries:?}");
    entries.pop().context("there is one")
}

#[test]
fn the_fix_and_its_counters_outlive_every_process() -> Result<()> {
    private_mounts(true)?;
    for mode in ["tcx", "clsact"] {
        let scene = Scene::new()?;
        let _dnsmasq = Dnsmasq::start(&scene)?;
        let attach = ["attach", "-i", BRIDGE, "--attach-mode", mode];
        let ended = run(&scene.host, &attach)?.ok()?;
        ensure!(ended.stdout == [format!("attached to egress of {BRIDGE} ({mode})")], "{ended:?}");

        let asked = strict::ask(&scene.guest, GUEST, [2, 0, 0, 0, 7, 1], PATIENCE)?;
        ensure!(asked.lease.is_some(), "{mode}: no lease: {asked:?}");
        let before = status(&scene.host)?;
        ensure!(before["interface"] == BRIDGE && before["hook"] == "egress", "{before}");
        ensure!(before["mode"] == mode && before["packets"]["fixed"] == 2, "{before}");

        // A second attach replaces the program, and the counters go on.
        let ended = run(&scene.host, &attach)?.ok()?;
        ensure!(ended.stdout == [format!("replaced at egress of {BRIDGE} ({mode})")], "{ended:?}");
        let asked = strict::ask(&scene.guest, GUEST, [2, 0, 0, 0, 7, 2], PATIENCE)?;
        ensure!(asked.lease.is_some(), "{mode}: no lease after the upgrade: {asked:?}");
        ensure!(status(&scene.host)?["packets"]["fixed"] == 4, "the counters did not go on");
        ensure!(hooks(&scene.host, BRIDGE)?.len() == if mode == "tcx" { 1 } else { 2 });

        run(&scene.host, &["detach", "-i", BRIDGE])?.ok()?;
        ensure!(hooks(&scene.host, BRIDGE)?.is_empty(), "{:?}", hooks(&scene.host, BRIDGE)?);
        ensure!(!fs::exists(PINS)?, "pins are left");
        let asked = strict::ask(&scene.guest, GUEST, [2, 0, 0, 0, 7, 3], Duration::from_secs(2))?;
        ensure!(asked.lease.is_none() && !asked.bad.is_empty(), "still fixed: {asked:?}");
    }
    Ok(())
}

#[test]
fn without_a_bpf_file_system_nothing_is_attached() -> Result<()> {
    private_mounts(false)?;
    let netns = NetNs::scratch("host")?;
    link::bridge(&netns, BRIDGE)?;
    let ended = run(&netns, &["attach", "-i", BRIDGE])?;
    ensure!(ended.status.code() == Some(1), "{ended:?}");
    let [error] = &ended.stderr[..] else {
        anyhow::bail!("not one error: {ended:?}");
    };
    ensure!(error.contains("mount -t bpf -o mode=0700 bpf /sys/fs/bpf"), "{error}");
    // What a `run` holds, or left, is seen and removed all the same.
    ensure!(run(&netns, &["status"])?.ok()?.stdout == ["nothing is attached"]);
    ensure!(run(&netns, &["detach", "--all"])?.ok()?.stdout == ["nothing was attached"]);
    ensure!(hooks(&netns, BRIDGE)?.is_empty());
    ensure!(fs::read_dir("/sys/fs/bpf")?.next().is_none(), "something was left");
    Ok(())
}

#[test]
fn what_cannot_be_attached_leaves_nothing() -> Result<()> {
    private_mounts(true)?;
    let netns = NetNs::scratch("host")?;
    link::bridge(&netns, BRIDGE)?;
    for (arguments, words) in [
        (&["attach", "-i", "br9"][..], "no interface 'br9'"),
        (&["attach", "-i", "zz*"], "nothing was attached"),
        (&["detach", "-i", BRIDGE], "not attached to br0"),
    ] {
        let ended = run(&netns, arguments)?;
        ensure!(ended.status.code() == Some(1), "{ended:?}");
        ensure!(ended.stderr.len() == 1 && ended.stderr[0].contains(words), "{ended:?}");
    }
    ensure!(hooks(&netns, BRIDGE)?.is_empty());
    ensure!(!fs::exists(PINS)?, "pins are left");
    Ok(())
}

/// Named plainly it is a mistake, and a glob means the others.
#[test]
fn what_has_no_ethernet_header_is_not_attached_to() -> Result<()> {
    private_mounts(true)?;
    let netns = NetNs::scratch("host")?;
    link::bridge(&netns, BRIDGE)?;
    output(&netns, "ip", &["tuntap", "add", "vpn0", "mode", "tun"])?;
    let ended = run(&netns, &["attach", "-i", BRIDGE, "-i", "vpn0"])?;
    ensure!(ended.status.code() == Some(1) && ended.stdout.is_empty(), "{ended:?}");
    let [error] = &ended.stderr[..] else { anyhow::bail!("not one error: {ended:?}") };
    ensure!(error.contains("cannot attach to vpn0: it is of the kind 'tun'"), "{error}");
    ensure!(hooks(&netns, BRIDGE)?.is_empty() && !fs::exists(PINS)?, "something is attached");

    let ended = run(&netns, &["attach", "-i", "*"])?.ok()?;
    ensure!(ended.stdout.iter().any(|line| line.contains(BRIDGE)), "{ended:?}");
    ensure!(hooks(&netns, BRIDGE)?.len() == 1 && hooks(&netns, "vpn0")?.is_empty(), "{ended:?}");
    run(&netns, &["detach", "--all"])?.ok()?;
    Ok(())
}

#[test]
fn an_interface_that_is_gone_leaves_no_stale_pin() -> Result<()> {
    private_mounts(true)?;
    let netns = NetNs::scratch("host")?;
    link::bridge(&netns, BRIDGE)?;
    run(&netns, &["attach", "-i", BRIDGE, "--hook", "both"])?.ok()?;
    ensure!(hooks(&netns, BRIDGE)?.len() == 2);
    link::delete(&netns, BRIDGE)?;
    let ended = run(&netns, &["status"])?.ok()?;
    ensure!(ended.stdout == ["nothing is attached"], "{ended:?}");
    run(&netns, &["detach", "--all"])?.ok()?;
    ensure!(!fs::exists(PINS)?, "pins are left");
    Ok(())
}

#[test]
fn a_run_beside_it_is_refused() -> Result<()> {
    private_mounts(true)?;
    let netns = NetNs::scratch("host")?;
    link::bridge(&netns, BRIDGE)?;
    run(&netns, &["attach", "-i", BRIDGE])?.ok()?;
    let ended = run(&netns, &["run", "-i", BRIDGE, "--metrics", "off"])?;
    ensure!(ended.status.code() == Some(1), "{ended:?}");
    ensure!(ended.stderr.join("\n").contains("already attached"), "{ended:?}");
    ensure!(hooks(&netns, BRIDGE)?.len() == 1, "the first one is gone");
    Ok(())
}

/// Indexes are given again. A pin of an interface that is gone is not taken for one of its successor.
#[test]
fn a_successor_with_the_same_index_is_attached_afresh() -> Result<()> {
    private_mounts(true)?;
    let netns = NetNs::scratch("host")?;
    let make = ["link", "add", BRIDGE, "index", "77", "type", "bridge"];
    for mode in ["tcx", "clsact"] {
        output(&netns, "ip", &make)?;
        run(&netns, &["attach", "-i", BRIDGE, "--attach-mode", mode])?.ok()?;
        link::delete(&netns, BRIDGE)?;
        output(&netns, "ip", &make)?;
        let ended = run(&netns, &["status"])?.ok()?;
        ensure!(ended.stdout == ["nothing is attached"], "{mode}: {ended:?}");
        let ended = run(&netns, &["attach", "-i", BRIDGE, "--attach-mode", mode])?.ok()?;
        ensure!(ended.stdout == [format!("attached to egress of {BRIDGE} ({mode})")], "{ended:?}");
        run(&netns, &["detach", "--all"])?.ok()?;
        ensure!(hooks(&netns, BRIDGE)?.is_empty(), "{mode}: still attached");
        link::delete(&netns, BRIDGE)?;
    }
    Ok(())
}

/// Somebody took our qdisc away and made another: what is there now is none of ours.
#[test]
fn a_filter_that_took_our_place_is_left_alone() -> Result<()> {
    private_mounts(true)?;
    let netns = NetNs::scratch("host")?;
    link::bridge(&netns, BRIDGE)?;
    run(&netns, &["attach", "-i", BRIDGE, "--attach-mode", "clsact"])?.ok()?;
    output(&netns, "tc", &["qdisc", "del", "dev", BRIDGE, "clsact"])?;
    output(&netns, "tc", &["qdisc", "add", "dev", BRIDGE, "clsact"])?;
    let filter = ["filter", "add", "dev", BRIDGE, "egress", "pref", "1", "protocol", "ip", "u32"];
    let keys = ["match", "u32", "0", "0", "flowid", "1:1"];
    output(&netns, "tc", &[&filter[..], &keys].concat())?;
    let theirs = hooks(&netns, BRIDGE)?;
    let ended = run(&netns, &["status"])?.ok()?;
    ensure!(ended.stdout == ["nothing is attached"], "{ended:?}");
    run(&netns, &["detach", "--all"])?.ok()?;
    ensure!(hooks(&netns, BRIDGE)? == theirs, "{:?}, not {theirs:?}", hooks(&netns, BRIDGE)?);
    ensure!(!fs::exists(PINS)?, "pins are left");
    Ok(())
}

#[test]
fn a_qdisc_that_was_there_before_stays() -> Result<()> {
    private_mounts(true)?;
    let netns = NetNs::scratch("host")?;
    link::bridge(&netns, BRIDGE)?;
    output(&netns, "tc", &["qdisc", "add", "dev", BRIDGE, "clsact"])?;
    let before = hooks(&netns, BRIDGE)?;
    run(&netns, &["attach", "-i", BRIDGE, "--attach-mode", "clsact"])?.ok()?;
    ensure!(hooks(&netns, BRIDGE)?.len() == before.len() + 1);
    run(&netns, &["detach", "-i", BRIDGE])?.ok()?;
    ensure!(hooks(&netns, BRIDGE)? == before, "{:?}, not {before:?}", hooks(&netns, BRIDGE)?);
    Ok(())
}

#[test]
fn a_pin_whose_qdisc_was_taken_away_is_no_obstacle() -> Result<()> {
    private_mounts(true)?;
    let netns = NetNs::scratch("host")?;
    link::bridge(&netns, BRIDGE)?;
    let attach = ["attach", "-i", BRIDGE, "--attach-mode", "clsact"];
    run(&netns, &attach)?.ok()?;
    output(&netns, "tc", &["qdisc", "del", "dev", BRIDGE, "clsact"])?;
    run(&netns, &attach)?.ok()?;
    ensure!(hooks(&netns, BRIDGE)?.len() == 2, "{:?}", hooks(&netns, BRIDGE)?);
    output(&netns, "tc", &["qdisc", "del", "dev", BRIDGE, "clsact"])?;
    run(&netns, &["detach", "--all"])?.ok()?;
    ensure!(!fs::exists(PINS)?, "pins are left");
    Ok(())
}
