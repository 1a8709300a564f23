//! Watching a `fixer run`.

use anyhow::{Result, bail, ensure};
use fixer_tests::{
    command::{Running, fixer, naming, on_bridge},
    mounts::private_mounts,
};
use fixer_user::{
    lab::scene::{BRIDGE, Scene},
    net::netns::NetNs,
};
use nix::sys::signal::Signal;

use super::{
    Stage, attach, events, greeting, hears, send_partial, send_valid, sockets, until, watch,
};

#[test]
fn it_shows_what_the_run_shows() -> Result<()> {
    for mode in ["tcx", "clsact"] {
        let stage = Stage::new()?;
        let host = &stage.scene.host;
        let mut fixer = on_bridge(host, &["--events", "json", "--attach-mode", mode])?;
        let mut json = watch(host, &["--events", "json"])?;
        let mut all = watch(host, &["--all"])?;
        stage.lease(1)?;
        send_valid(host)?;
        send_partial(host, BRIDGE, 1)?;
        for line in [&mut fixer.stdout, &mut json.stdout] {
            line.wait("\"ack\"")?;
            line.wait("\"fixed\"")?;
        }
        all.stdout.wait(" udp cksum ok valid")?;
        let ended = all.stop(Signal::SIGTERM)?.ok()?;
        ensure!(ended.stdout.len() == 5, "{ended:?}");
        ensure!(ended.stdout[4] == "br0 egress: 3 fixed, 1 valid", "{ended:?}");
        let watched = json.stop(Signal::SIGTERM)?.ok()?;
        let ran = fixer.stop(Signal::SIGTERM)?.ok()?;
        ensure!(events(&watched.stdout)? == events(&ran.stdout)?, "{watched:?}, but {ran:?}");
        ensure!(watched.stdout.len() == 3, "{watched:?}");
        ensure!(watched.stderr[0].contains("held by run (pid"), "{watched:?}");
        ensure!(sockets(host)?.is_empty());
    }
    Ok(())
}

#[test]
fn a_silent_run_can_be_watched_and_its_end_is_heard() -> Result<()> {
    let stage = Stage::new()?;
    let host = &stage.scene.host;
    let fixer = on_bridge(host, &["--events", "none"])?;
    let mut watcher = watch(host, &[])?;
    stage.lease(1)?;
    watcher.stdout.wait("DHCP ack")?;
    let ran = fixer.stop(Signal::SIGTERM)?.ok()?;
    ensure!(ran.stdout == ["br0 egress: 2 fixed"], "{ran:?}");
    let watched = watcher.end()?.ok()?;
    ensure!(watched.stdout.last().is_some_and(|line| line == "br0 egress: 2 fixed"), "{watched:?}");
    ensure!(watched.stderr.last().is_some_and(|line| line.contains("any more")), "{watched:?}");
    Ok(())
}

/// It listens before it becomes another user, and its programs are replaced under the watcher.
#[test]
fn a_run_that_is_another_user_is_watched_through_a_reload() -> Result<()> {
    let stage = Stage::new()?;
    let host = &stage.scene.host;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("fixer.toml");
    std::fs::write(&file, format!("interface = [\"{BRIDGE}\"]\n"))?;
    let config = file.to_string_lossy().into_owned();
    let arguments = ["run", "--config", &config, "--metrics", "off", "--skip-selftest"];
    let mut fixer = Running::start(host, fixer(&arguments)?)?;
    fixer.stderr.wait("attached to")?;
    let mut watcher = watch(host, &[])?;
    stage.lease(1)?;
    watcher.stdout.wait("DHCP ack")?;
    let changed = format!("interface = [\"{BRIDGE}\"]\nmatch = [\"dhcp\", \"pxe\"]\n");
    std::fs::write(&file, changed)?;
    fixer.signal(Signal::SIGHUP)?;
    fixer.stderr.wait("was read again")?;
    stage.lease(2)?;
    watcher.stdout.wait("DHCP ack")?;
    let ended = watcher.stop(Signal::SIGTERM)?.ok()?;
    ensure!(ended.stdout.last().is_some_and(|line| line == "br0 egress: 4 fixed"), "{ended:?}");
    fixer.stop(Signal::SIGTERM)?.ok()?;
    until("no socket is left", || Ok(sockets(host)?.is_empty()))
}

#[test]
fn a_run_that_became_nobody_can_be_watched() -> Result<()> {
    let stage = Stage::new()?;
    let host = &stage.scene.host;
    let mut fixer = on_bridge(host, &["--user", "nobody"])?;
    let mut watcher = watch(host, &[])?;
    stage.lease(1)?;
    watcher.stdout.wait("DHCP ack")?;
    fixer.stdout.wait("DHCP ack")?;
    watcher.stop(Signal::SIGTERM)?.ok()?;
    fixer.stop(Signal::SIGTERM)?.ok().map(drop)
}

/// Events hold what passes on the network: they are not for every user who finds the socket.
#[test]
fn another_user_hears_nothing() -> Result<()> {
    let stage = Stage::new()?;
    let host = &stage.scene.host;
    let _fixer = on_bridge(host, &["--events", "none"])?;
    let mut watcher = watch(host, &[])?;
    let sockets = sockets(host)?;
    let [name] = &sockets[..] else { bail!("{sockets:?}") };
    ensure!(greeting(host, name, 0)?.len() == 1, "root is not let in");
    ensure!(greeting(host, name, 65534)?.is_empty(), "nobody is let in");
    stage.lease(1)?;
    watcher.stdout.wait("DHCP ack")?;
    watcher.stop(Signal::SIGTERM)?.ok().map(drop)
}

#[test]
fn another_namespace_is_watched() -> Result<()> {
    let stage = Stage::new()?;
    let host = &stage.scene.host;
    let other = NetNs::scratch("other")?;
    attach(host, "tcx")?;
    let command = fixer(&["watch", "--netns", "blue", "--events", "json"])?;
    let mut watcher = Running::start_as(&other, command, naming("blue", host)?)?;
    watcher.stderr.wait("watching egress of blue/br0")?;
    stage.lease(1)?;
    let ack = watcher.stdout.wait("\"ack\"")?;
    ensure!(ack.contains("\"netns\":\"blue\""), "{ack}");
    let ended = watcher.stop(Signal::SIGTERM)?.ok()?;
    ensure!(ended.stderr.iter().any(|line| line.ends_with("2 fixed")), "{ended:?}");
    Ok(())
}

/// What is pinned is not asked for where nothing is: containers have no BPF file system.
#[test]
fn a_run_is_watched_where_nothing_can_be_pinned() -> Result<()> {
    let scene = Scene::new()?;
    private_mounts(false)?;
    let _fixer = on_bridge(&scene.host, &["--events", "none"])?;
    let mut watcher = watch(&scene.host, &[])?;
    send_partial(&scene.host, BRIDGE, 1)?;
    watcher.stdout.wait("! fixed")?;
    watcher.stop(Signal::SIGTERM)?.ok().map(drop)
}

#[test]
fn who_waits_for_a_run_that_is_stuck_can_be_stopped() -> Result<()> {
    let scene = Scene::new()?;
    let run = on_bridge(&scene.host, &["--events", "none"])?;
    run.signal(Signal::SIGSTOP)?;
    let watcher = Running::start(&scene.host, fixer(&["watch"])?)?;
    until("it hears signals", || hears(&watcher, Signal::SIGTERM))?;
    watcher.stop(Signal::SIGTERM)?.ok()?;
    run.signal(Signal::SIGCONT)?;
    run.stop(Signal::SIGTERM)?.ok().map(drop)
}
