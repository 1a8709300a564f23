//! Others take off what a run has attached, and what the run says of interfaces that it cannot have.

use std::{fs, os::unix::fs::PermissionsExt as _, time::Instant};

use anyhow::{Context as _, Result, ensure};
use fixer_tests::{
    bpf::take_apart,
    command::{PATIENCE, Running, attached, fixer, hooks, on_bridge, output},
    mounts::private_mounts,
};
use fixer_user::lab::{link, scene::BRIDGE};
use nix::sys::signal::Signal;

use crate::{
    Stage,
    metrics::{get, has, is_healthy},
    scene, send_partial,
};

/// The link of a run that has one.
fn link_of(run: &Running) -> Result<u32> {
    let number = |text: &str, key: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(key))?;
        value.trim().parse::<u32>().ok()
    };
    for descriptor in fs::read_dir(format!("/proc/{}/fdinfo", run.pid()))? {
        // It may be closed by now.
        let told = fs::read_to_string(descriptor?.path()).unwrap_or_default();
        if told.contains("link_type:\ttcx") {
            return number(&told, "link_id:").context("a link without an id");
        }
    }
    anyhow::bail!("the run has no link")
}

#[test]
fn what_others_take_off_is_put_back() -> Result<()> {
    let stage = Stage::new()?;
    let host = &stage.scene.host;
    for mode in ["clsact", "tcx"] {
        let mut run = attached(host, &["-i", BRIDGE, "--attach-mode", mode])?;
        match mode {
            "clsact" => drop(output(host, "tc", &["qdisc", "del", "dev", BRIDGE, "clsact"])?),
            _ => take_apart(link_of(&run)?)?,
        }
        run.stderr.wait("somebody else took fixer off egress of br0")?;
        run.stderr.wait(&format!("attached to egress of br0 ({mode})"))?;
        let there = hooks(host, BRIDGE)?;
        ensure!(there.iter().filter(|hook| hook.contains("fixer")).count() == 1, "{there:?}");
        stage.lease()?;
        run.stdout.wait("fixed, DHCP ack")?;
        ensure!(is_healthy(&stage.scene)?);
        run.stop(Signal::SIGTERM)?.ok()?;
        ensure!(hooks(host, BRIDGE)?.is_empty(), "{mode}: {:?}", hooks(host, BRIDGE)?);
    }
    Ok(())
}

/// Whoever took it off may have put something of their own there, which is not ours to remove: neither when
/// it is noticed, nor when the run ends before it was.
#[test]
fn what_others_put_in_its_place_stays() -> Result<()> {
    let scene = scene()?;
    let host = &scene.host;
    let tc = |command: &str| output(host, "tc", &command.split(' ').collect::<Vec<_>>());
    let taken_over = || -> Result<Running> {
        let run = attached(host, &["-i", BRIDGE, "--attach-mode", "clsact", "--events", "none"])?;
        run.signal(Signal::SIGSTOP)?;
        tc("qdisc del dev br0 clsact")?;
        tc("qdisc add dev br0 clsact")?;
        let filter = "filter add dev br0 egress pref 7 protocol ip bpf classid 1:1 bytecode";
        let arguments: Vec<_> = filter.split(' ').chain(["1,6 0 0 0"]).collect();
        output(host, "tc", &arguments)?;
        Ok(run)
    };
    let stays = || -> Result<()> {
        let left = hooks(host, BRIDGE)?;
        ensure!(left.iter().any(|hook| hook.contains("pref 7 ")), "{left:?}");
        ensure!(!left.iter().any(|hook| hook.contains("fixer")), "{left:?}");
        tc("qdisc del dev br0 clsact").map(drop)
    };
    // Whether it looks once more before it ends is by chance.
    for _ in 0..6 {
        let run = taken_over()?;
        run.signal(Signal::SIGTERM)?;
        run.signal(Signal::SIGCONT)?;
        run.end()?.ok()?;
        stays()?;
    }
    let mut run = taken_over()?;
    run.signal(Signal::SIGCONT)?;
    run.stderr.wait("attached to egress of br0 (clsact)")?;
    run.stop(Signal::SIGTERM)?.ok()?;
    stays()
}

/// An interface that is made again while nothing is heard may get the index that the old one had.
#[test]
fn the_same_index_is_not_the_same_interface() -> Result<()> {
    let scene = scene()?;
    let host = &scene.host;
    let bridge = || -> Result<()> {
        output(host, "ip", &["link", "add", "x0", "index", "7777", "type", "bridge"])?;
        Ok(link::up(host, "x0")?)
    };
    bridge()?;
    let mut run = on_bridge(host, &["-i", "x*", "--events", "none"])?;
    run.stderr.wait("attached to egress of x0")?;
    run.signal(Signal::SIGSTOP)?;
    crate::many::many(host, 600)?;
    link::delete(host, "x0")?;
    bridge()?;
    run.signal(Signal::SIGCONT)?;
    run.stderr.wait("attached to egress of x0")?;
    ensure!(hooks(host, "x0")?.len() == 1);
    run.stop(Signal::SIGTERM)?.ok()?;
    Ok(())
}

#[test]
fn an_interface_of_a_glob_that_cannot_be_had_is_missed() -> Result<()> {
    private_mounts(true)?;
    let scene = scene()?;
    let host = &scene.host;
    link::bridge(host, "other")?;
    let arguments = ["attach", "-i", "other", "--attach-mode", "clsact", "--skip-selftest"];
    Running::start(host, fixer(&arguments)?)?.end()?.ok()?;
    let mut run = attached(host, &["-i", "br*", "--attach-mode", "clsact", "--events", "none"])?;
    ensure!(is_healthy(&scene)?);
    output(host, "ip", &["link", "set", "other", "name", "br9"])?;
    run.stderr.wait("a fixer is already attached to egress of br9")?;
    let ill = get(host, "/healthz")?;
    ensure!(ill.is(503) && ill.body.contains("not attached: host/br9"), "{ill:?}");
    Running::start(host, fixer(&["detach", "-i", "br9"])?)?.end()?.ok()?;
    run.stderr.wait("attached to egress of br9")?;
    ensure!(is_healthy(&scene)?);
    run.stop(Signal::SIGTERM)?.ok()?;
    Ok(())
}

/// Of a namespace in a directory that is shut to the run, it cannot know that it is gone.
#[test]
fn a_namespace_out_of_sight_is_not_gone() -> Result<()> {
    private_mounts(true)?;
    let (scene, elsewhere) = (scene()?, scene()?);
    let directory = tempfile::tempdir()?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700))?;
    let path = directory.path().join("blue");
    let path = path.to_str().context("a path in UTF-8")?;
    fixer_tests::mounts::name_at(&scene.host, path.as_ref())?;
    let run = ["run", "-i", BRIDGE, "--netns", path, "--user", "nobody"];
    let mut run = Running::start(&elsewhere.host, fixer(&run)?)?;
    run.stderr.wait("attached to egress of ")?;
    let deadline = Instant::now() + PATIENCE;
    while get(&elsewhere.host, "/healthz").map_or(true, |answer| !answer.is(200)) {
        ensure!(Instant::now() < deadline, "it does not serve");
    }
    send_partial(&scene, BRIDGE, 1)?;
    run.stdout.wait("fixed")?;
    let told = get(&elsewhere.host, "/metrics")?.body;
    has(
        &told,
        &format!(
            "fixer_interface_attached{{netns=\"{path}\",interface=\"br0\",hook=\"egress\",mode=\"tcx\"}} 1"
        ),
    )?;
    let ended = run.stop(Signal::SIGTERM)?.ok()?;
    ensure!(!ended.stderr.iter().any(|line| line.contains("let go")), "{ended:?}");
    Ok(())
}
