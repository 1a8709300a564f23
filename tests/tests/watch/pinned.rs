//! Watching what `fixer attach` left.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use fixer_tests::command::{Process, output};
use fixer_user::{
    lab::{link, scene::BRIDGE},
    net::netns::NetNs,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    Stage, attach, events, nothing_is_left, private_bpffs, run, send_partial, send_valid, sockets,
    until, wanted, watch,
};

#[test]
fn it_shows_what_a_run_shows() -> Result<()> {
    for mode in ["tcx", "clsact"] {
        let stage = Stage::new()?;
        let host = &stage.scene.host;
        attach(host, mode)?;
        // What was before is none of its business.
        stage.lease(1)?;
        let mut text = watch(host, &[])?;
        let mut json = watch(host, &["--events", "json"])?;
        stage.lease(2)?;
        for message in ["offer", "ack"] {
            let line = text.stdout.wait(&format!("DHCP {message} "))?;
            ensure!(line.contains("! fixed, ") && line.contains("02:00:00:00:09:02"), "{line}");
            ensure!(line.contains(&format!(" {BRIDGE} egress IP ")), "{line}");
            let line = json.stdout.wait(&format!("\"message_type\":\"{message}\""))?;
            ensure!(line.contains("\"netns\":\"host\",\"interface\":\"br0\""), "{line}");
        }
        let ended = text.stop(Signal::SIGTERM)?.ok()?;
        ensure!(ended.stdout.len() == 3 && ended.stdout[2] == "br0 egress: 2 fixed", "{ended:?}");
        ensure!(ended.stderr == ["fixer: watching egress of br0, held by attach"], "{ended:?}");
        let ended = json.stop(Signal::SIGINT)?.ok()?;
        ensure!(events(&ended.stdout)?.len() == 2, "{ended:?}");
        ensure!(ended.stderr.last().is_some_and(|line| line == "br0 egress: 2 fixed"), "{ended:?}");
        nothing_is_left(host)?;
        stage.lease(3)?;
        run(host, &["detach", "--all"])?.ok()?;
        ensure!(!fs::exists("/sys/fs/bpf/fixer")?, "pins are left");
    }
    Ok(())
}

#[test]
fn what_one_wants_the_others_do_not_see() -> Result<()> {
    private_bpffs()?;
    let netns = NetNs::scratch("host")?;
    link::bridge(&netns, BRIDGE)?;
    link::up(&netns, BRIDGE)?;
    attach(&netns, "tcx")?;
    let mut quiet = watch(&netns, &["--events", "json"])?;
    let notable = wanted(&netns)?;
    let mut all = watch(&netns, &["--events", "json", "--all"])?;
    ensure!(wanted(&netns)? != notable, "nobody wants all");
    send_valid(&netns)?;
    send_partial(&netns, BRIDGE, 1)?;
    for verdict in ["valid", "fixed"] {
        all.stdout.wait(&format!("\"verdict\":\"{verdict}\""))?;
    }
    quiet.stdout.wait("\"verdict\":\"fixed\"")?;
    // An upgrade in between takes nothing from who watches.
    attach(&netns, "tcx")?;
    send_valid(&netns)?;
    all.stdout.wait("\"verdict\":\"valid\"")?;
    all.stop(Signal::SIGTERM)?.ok()?;
    until("the rest is wanted", || Ok(wanted(&netns)? == notable))?;
    let ended = quiet.stop(Signal::SIGTERM)?.ok()?;
    ensure!(ended.stdout.len() == 1, "{ended:?}");
    ensure!(ended.stderr.last().is_some_and(|line| line.contains("1 fixed, 2 valid")), "{ended:?}");
    nothing_is_left(&netns)
}

/// The process that hands the events out, by its name in the table of processes.
fn server(netns: &NetNs) -> Result<Pid> {
    let [name] = &sockets(netns)?[..] else { anyhow::bail!("not one socket") };
    let map = name.strip_prefix("map-").context("no map's name")?.to_owned();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let line = fs::read(path.join("cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0).skip(1);
        if words.next() == Some(b"serve-events") && words.next() == Some(map.as_bytes()) {
            let pid = path.file_name().and_then(|name| name.to_str()).context("no number")?;
            return Ok(Pid::from_raw(pid.parse()?));
        }
    }
    anyhow::bail!("no process hands out the events of {map}")
}

#[test]
fn whoever_is_killed_the_others_go_on() -> Result<()> {
    let stage = Stage::new()?;
    let host = &stage.scene.host;
    attach(host, "tcx")?;
    let mut first = watch(host, &[])?;
    let mut second = watch(host, &[])?;
    stage.lease(1)?;
    [&mut first, &mut second]
        .into_iter()
        .try_for_each(|it| it.stdout.wait("DHCP ack").map(drop))?;
    first.stop(Signal::SIGKILL)?;
    stage.lease(2)?;
    second.stdout.wait("DHCP ack")?;

    let before = server(host)?;
    let end = Process::of(before)?;
    kill(before, Signal::SIGKILL)?;
    ensure!(end.ends_within(fixer_tests::command::PATIENCE)?);
    until("another serves", || Ok(server(host).is_ok_and(|now| now != before)))?;
    stage.lease(3)?;
    second.stdout.wait("DHCP ack")?;
    let ended = second.stop(Signal::SIGTERM)?.ok()?;
    ensure!(ended.stdout.last().is_some_and(|line| line == "br0 egress: 6 fixed"), "{ended:?}");
    ensure!(ended.stdout.len() == 7, "{ended:?}");
    nothing_is_left(host)
}

/// With all of them killed at once the choice stays, and `fixer attach` takes it back.
#[test]
fn what_killed_ones_left_is_put_right() -> Result<()> {
    private_bpffs()?;
    let netns = NetNs::scratch("host")?;
    link::bridge(&netns, BRIDGE)?;
    link::up(&netns, BRIDGE)?;
    attach(&netns, "tcx")?;
    let watcher = watch(&netns, &[])?;
    let helper = server(&netns)?;
    kill(watcher.pid(), Signal::SIGSTOP)?;
    let end = Process::of(helper)?;
    kill(helper, Signal::SIGKILL)?;
    ensure!(end.ends_within(fixer_tests::command::PATIENCE)?);
    watcher.stop(Signal::SIGKILL)?;
    ensure!(wanted(&netns)? != 0, "there is nothing to put right");
    // These wait in the ring buffer for nobody, and are not shown to who comes later.
    send_partial(&netns, BRIDGE, 3)?;
    let late = watch(&netns, &[])?;
    let ended = late.stop(Signal::SIGTERM)?.ok()?;
    ensure!(ended.stdout == ["no packet matched"], "{ended:?}");
    nothing_is_left(&netns)?;

    let watcher = watch(&netns, &[])?;
    kill(watcher.pid(), Signal::SIGSTOP)?;
    kill(server(&netns)?, Signal::SIGKILL)?;
    watcher.stop(Signal::SIGKILL)?;
    until("the name is free", || Ok(sockets(&netns)?.is_empty()))?;
    ensure!(wanted(&netns)? != 0, "there is nothing to put right");
    attach(&netns, "tcx")?;
    ensure!(wanted(&netns)? == 0, "attach left it");
    Ok(())
}

#[test]
fn only_what_was_selected_is_shown_and_it_ends_with_the_last_attachment() -> Result<()> {
    private_bpffs()?;
    let netns = NetNs::scratch("host")?;
    for bridge in [BRIDGE, "br1"] {
        link::bridge(&netns, bridge)?;
        link::up(&netns, bridge)?;
    }
    run(&netns, &["attach", "-i", BRIDGE, "-i", "br1", "--skip-selftest"])?.ok()?;
    let mut one = watch(&netns, &["-i", "br1"])?;
    let mut glob = watch(&netns, &["-i", "br*"])?;
    send_partial(&netns, BRIDGE, 1)?;
    send_partial(&netns, "br1", 1)?;
    one.stdout.wait(" br1 egress ")?;
    for bridge in [BRIDGE, "br1"] {
        glob.stdout.wait(&format!(" {bridge} egress "))?;
    }
    run(&netns, &["detach", "--all"])?.ok()?;
    let ended = one.end()?.ok()?;
    ensure!(ended.stdout.len() == 2 && ended.stdout[1] == "br1 egress: 1 fixed", "{ended:?}");
    ensure!(ended.stderr.len() == 2 && ended.stderr[1].contains("attached any more"), "{ended:?}");
    ensure!(glob.end()?.ok()?.stdout.len() == 4);
    until("no socket is left", || Ok(sockets(&netns)?.is_empty()))
}

#[test]
fn the_capture_has_every_packet_and_is_readable() -> Result<()> {
    let stage = Stage::new()?;
    let host = &stage.scene.host;
    attach(host, "tcx")?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("dhcp.pcapng");
    let file = file.to_str().context("the path is text")?;
    let mut shown = watch(host, &[])?;
    let captured = watch(host, &["--events", "none", "--pcapng", file])?;
    stage.lease(1)?;
    shown.stdout.wait("DHCP ack")?;
    let ended = captured.stop(Signal::SIGTERM)?.ok()?;
    ensure!(ended.stdout == ["br0 egress: 2 fixed"], "{ended:?}");
    let read = output(host, "tcpdump", &["-vvv", "-n", "-r", file])?;
    let sums = read.lines().filter(|line| line.contains("bad udp cksum"));
    ensure!(sums.count() == 2, "{read}");
    Ok(())
}

#[test]
fn with_nothing_attached_it_says_so() -> Result<()> {
    private_bpffs()?;
    let netns = NetNs::scratch("host")?;
    link::bridge(&netns, BRIDGE)?;
    for (arguments, words) in [
        (&["watch"][..], "nothing is attached here that could be watched; `fixer attach`"),
        (&["watch", "-i", "br*"], "nothing is attached here"),
        (&["watch", "-i", BRIDGE], "fixer is not attached to br0; `fixer status` shows where"),
    ] {
        let ended = run(&netns, arguments)?;
        ensure!(ended.status.code() == Some(1) && ended.stdout.is_empty(), "{ended:?}");
        ensure!(ended.stderr.len() == 1 && ended.stderr[0].contains(words), "{ended:?}");
    }
    ensure!(run(&netns, &["watch", "--events", "xml"])?.status.code() == Some(2));
    Ok(())
}
