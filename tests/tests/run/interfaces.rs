//! Interfaces that come and go, and other network namespaces.

use std::{
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use fixer_tests::command::{Running, attached, fixer, hooks, naming, on_bridge, output, program};
use fixer_user::{
    lab::{
        link,
        scene::{BRIDGE, SERVER, Scene},
    },
    net::netns::NetNs,
};
use nix::sys::signal::Signal;

use crate::{Stage, scene, send_partial};

/// How soon an interface that appears is taken.
const SOON: Duration = Duration::from_secs(1);

#[test]
fn a_glob_takes_what_appears_later_and_nothing_else() -> Result<()> {
    let scene = scene()?;
    let mut fixer = Running::start(
        &scene.host,
        fixer(&["run", "-i", "tap*", "--events", "none", "--metrics", "off"])?,
    )?;
    fixer.stderr.wait("no interface of 'host' is selected yet; waiting")?;
    let other = NetNs::scratch("other")?;
    link::veth(&scene.host, "vif0", &other, "one")?;
    let began = Instant::now();
    link::veth(&scene.host, "tap0", &other, "two")?;
    fixer.stderr.wait("attached to egress of tap0")?;
    ensure!(began.elapsed() < SOON, "it took {:?}", began.elapsed());
    ensure!(hooks(&scene.host, "tap0")?.len() == 1);
    ensure!(hooks(&scene.host, "vif0")?.is_empty() && hooks(&scene.host, BRIDGE)?.is_empty());
    send_partial(&scene, "tap0", 3)?;
    let ended = fixer.stop(Signal::SIGTERM)?.ok()?;
    ensure!(ended.stdout == ["tap0 egress: 3 fixed"], "{ended:?}");
    ensure!(hooks(&scene.host, "tap0")?.is_empty());
    Ok(())
}

/// The kernel lets a name be anything; of one that is no text nothing is written to the terminal.
#[test]
fn a_name_that_is_no_text_disturbs_nobody() -> Result<()> {
    let scene = scene()?;
    let make = |name: &str| {
        let command = format!("ip link add \"$(printf '{name}\\377')\" type bridge");
        output(&scene.host, "sh", &["-c", &command])
    };
    make("one")?;
    let arguments = ["run", "--auto", "--events", "none", "--metrics", "off"];
    let mut run = Running::start(&scene.host, fixer(&arguments)?)?;
    run.stderr.wait("attached to egress of br0")?;
    make("two")?;
    link::bridge(&scene.host, "br1")?;
    run.stderr.wait("attached to egress of br1")?;
    let ended = run.stop(Signal::SIGTERM)?.ok()?;
    let is_ours = |line: &String| line.starts_with("fixer: ") && line.len() < 100;
    ensure!(ended.stderr.iter().all(is_ours), "{ended:?}");
    Ok(())
}

/// A glob passes by it, also when it appears later; a plain name that comes back as one is told once.
#[test]
fn what_has_no_ethernet_header_is_left_alone() -> Result<()> {
    let scene = scene()?;
    let add = |name, mode| output(&scene.host, "ip", &["tuntap", "add", name, "mode", mode]);
    add("t0", "tun")?;
    let arguments = ["-i", BRIDGE, "-i", "t*", "--events", "none", "--metrics", "off"];
    let mut fixer = attached(&scene.host, &arguments)?;
    add("t1", "tun")?;
    link::up(&scene.host, "t1")?;
    // What is told of later was seen later.
    add("t2", "tap")?;
    fixer.stderr.wait("attached to egress of t2")?;
    link::delete(&scene.host, BRIDGE)?;
    fixer.stderr.wait("br0 is gone")?;
    add(BRIDGE, "tun")?;
    fixer.stderr.wait("cannot attach to br0: it is of the kind 'tun'")?;
    link::up(&scene.host, BRIDGE)?;
    add("t3", "tap")?;
    fixer.stderr.wait("attached to egress of t3")?;
    for tun in ["t0", "t1", BRIDGE] {
        ensure!(hooks(&scene.host, tun)?.is_empty(), "{tun} was taken");
    }
    let ended = fixer.stop(Signal::SIGTERM)?.ok()?;
    let told = |words: &str| ended.stderr.iter().filter(|line| line.contains(words)).count();
    ensure!(told("t0") + told("t1") == 0 && told("cannot attach to br0") == 1, "{ended:?}");
    Ok(())
}

#[test]
fn every_bridge_is_taken_also_a_later_one() -> Result<()> {
    let scene = scene()?;
    let mut fixer = attached(&scene.host, &["--auto", "--metrics", "off"])?;
    link::bridge(&scene.host, "later")?;
    fixer.stderr.wait("attached to egress of later")?;
    ensure!(hooks(&scene.host, "later")?.len() == 1);
    fixer.stop(Signal::SIGTERM)?.ok()?;
    Ok(())
}

#[test]
fn an_interface_that_is_made_again_is_taken_again() -> Result<()> {
    let scene = scene()?;
    for mode in ["tcx", "clsact"] {
        let mut fixer = on_bridge(&scene.host, &["--events", "none", "--attach-mode", mode])?;
        send_partial(&scene, BRIDGE, 1)?;
        link::delete(&scene.host, BRIDGE)?;
        fixer.stderr.wait("br0 is gone")?;
        let began = Instant::now();
        link::bridge(&scene.host, BRIDGE)?;
        fixer.stderr.wait("attached to egress of br0")?;
        ensure!(began.elapsed() < SOON, "it took {:?}", began.elapsed());
        send_partial(&scene, BRIDGE, 2)?;
        let ended = fixer.stop(Signal::SIGTERM)?.ok()?;
        // Each has its own counters: they are two interfaces.
        // Whoever reads the name sees one interface, whatever its index was.
        ensure!(ended.stdout == ["br0 egress: 3 fixed"], "{mode}: {ended:?}");
        ensure!(hooks(&scene.host, BRIDGE)?.is_empty(), "{mode}");
    }
    Ok(())
}

/// A name, a path and a process, two of them at once, from a namespace that is none of them.
#[test]
fn namespaces_are_found_by_name_path_and_process() -> Result<()> {
    let (blue, red) = (Stage::new()?, scene()?);
    let elsewhere = NetNs::scratch("elsewhere")?;
    let sleeper = Running::start(&blue.scene.host, program("sleep", &["1000"]))?;
    let (pid, path) = (format!("pid:{}", sleeper.pid()), path(&red));
    for (netns, other) in [("blue", &*path), (&*pid, "red"), (&*path, "blue")] {
        let named = if [netns, other].contains(&"red") { &red.host } else { &blue.scene.host };
        let name = if [netns, other].contains(&"red") { "red" } else { "blue" };
        let arguments = ["--netns", netns, "--netns", other];
        let run = [&["run", "-i", BRIDGE, "--metrics", "off"], &arguments[..]].concat();
        let naming = naming(name, named)?;
        let mut fixer = Running::start_as(&elsewhere, fixer(&run)?, naming)?;
        for place in [netns, other] {
            fixer.stderr.wait(&format!("attached to egress of {place}/{BRIDGE}"))?;
        }
        blue.lease()?;
        send_partial(&red, BRIDGE, 1)?;
        let label = if path == netns { other } else { netns };
        let line = fixer.stdout.wait("DHCP offer")?;
        ensure!(line.contains(&format!(" {label}/{BRIDGE} egress IP {SERVER}.67 >")), "{line}");
        let ended = fixer.stop(Signal::SIGINT)?.ok()?;
        let summary = format!("{label}/{BRIDGE} egress: 2 fixed");
        ensure!(ended.stdout.contains(&summary), "no '{summary}' in {ended:?}");
        ensure!(ended.stdout.iter().any(|line| line.ends_with("egress: 1 fixed")), "{ended:?}");
        for scene in [&blue.scene, &red] {
            ensure!(hooks(&scene.host, BRIDGE)?.is_empty(), "{ended:?}");
        }
    }
    Ok(())
}

/// The path of a scene's namespace, for programs that this test starts.
fn path(scene: &Scene) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), scene.host.file().as_raw_fd())
}

#[test]
fn a_namespace_in_which_the_interface_is_missing_keeps_all_from_being_touched() -> Result<()> {
    let (blue, red) = (scene()?, NetNs::scratch("red")?);
    let (blue_path, red) =
        (path(&blue), format!("/proc/{}/fd/{}", std::process::id(), red.file().as_raw_fd()));
    let run = ["run", "-i", BRIDGE, "--metrics", "off", "--netns", &blue_path, "--netns", &red];
    let ended = Running::start(&blue.host, fixer(&run)?)?.end()?;
    ensure!(ended.status.code() == Some(1), "{ended:?}");
    let told = format!("no interface '{BRIDGE}' in the network namespace '{red}'");
    ensure!(ended.stderr.iter().any(|line| line.contains(&told)), "{ended:?}");
    ensure!(ended.stderr.len() == 1 && hooks(&blue.host, BRIDGE)?.is_empty(), "{ended:?}");
    Ok(())
}
