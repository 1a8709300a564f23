//! `--netns 'ns-*'`: every namespace of such a name, as they are named and deleted.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fixer_tests::{
    command::{PATIENCE, Running, fixer, hooks, interfaces, output},
    mounts::{name, private_names, unname},
};
use fixer_user::{
    lab::{link, scene::BRIDGE},
    net::netns::NetNs,
};
use nix::sys::signal::Signal;

use crate::{
    metrics::{get, has},
    scene, send_partial,
};

/// How soon a namespace that is named is taken.
const SOON: Duration = Duration::from_millis(100);

/// A run that takes bridges in the namespaces of these names.
fn run(netns: &NetNs, globs: &[&str], more: &[&str]) -> Result<Running> {
    let globs = globs.iter().flat_map(|glob| ["--netns", glob]);
    let arguments: Vec<_> =
        ["run", "-i", "br*"].into_iter().chain(globs).chain(more.iter().copied()).collect();
    Running::start(netns, fixer(&arguments)?)
}

/// Namespaces can be named, and nobody else sees it; a run can be in one that has none.
fn ground() -> Result<NetNs> {
    private_names()?;
    let elsewhere = NetNs::scratch("elsewhere")?;
    link::up(&elsewhere, "lo")?;
    Ok(elsewhere)
}

fn fixed(netns: &str, count: u64) -> String {
    let at = format!("netns=\"{netns}\",interface=\"br0\",hook=\"egress\"");
    format!("fixer_packets_total{{{at},verdict=\"fixed\"}} {count}")
}

/// What was counted stays as it does for a name that is waited for, and that alone: nothing is said to
/// be attached or missing any more, and nothing is held of the namespace.
#[test]
fn namespaces_are_taken_as_they_are_named_and_forgotten_as_they_are_deleted() -> Result<()> {
    let elsewhere = ground()?;
    let mut fixer = run(&elsewhere, &["ns-*"], &["-i", "br0", "--events", "none"])?;
    fixer.stderr.wait("no network namespace matches 'ns-*' yet; waiting")?;
    for round in 1..=3 {
        let blue = scene()?;
        link::veth(&elsewhere, "far", &blue.host, "near")?;
        name(&blue.host, "ns-blue")?;
        fixer.stderr.wait("the network namespace 'ns-blue' is there")?;
        fixer.stderr.wait("attached to egress of ns-blue/br0")?;
        send_partial(&blue, BRIDGE, 2)?;
        let body = get(&elsewhere, "/metrics")?.body;
        has(&body, &fixed("ns-blue", 2 * round))?;
        ensure!(body.contains("fixer_interface_attached{netns=\"ns-blue\""), "{body}");

        unname("ns-blue")?;
        drop(blue);
        fixer.stderr.wait("let go of the network namespace 'ns-blue': it was deleted")?;
        let deadline = Instant::now() + PATIENCE;
        while interfaces(&elsewhere)?.contains(&"far".to_owned()) {
            ensure!(Instant::now() < deadline, "something keeps the namespace");
        }
        let body = get(&elsewhere, "/metrics")?.body;
        has(&body, &fixed("ns-blue", 2 * round))?;
        ensure!(!body.contains("fixer_interface_attached{"), "{body}");
        let health = get(&elsewhere, "/healthz")?;
        ensure!(health.is(200), "{health:?}");
    }
    let ended = fixer.stop(Signal::SIGTERM)?.ok()?;
    ensure!(ended.stdout == ["ns-blue/br0 egress: 6 fixed"], "{ended:?}");
    Ok(())
}

#[test]
fn a_namespace_that_is_named_is_taken_at_once() -> Result<()> {
    let elsewhere = ground()?;
    let mut fixer = run(&elsewhere, &["ns-*"], &["--metrics", "off"])?;
    fixer.stderr.wait("waiting")?;
    let ip = |arguments: &[&str]| output(&elsewhere, "ip", arguments).map(drop);
    let mut took = Vec::new();
    for number in 0..7 {
        let name = format!("ns-{number}");
        let began = Instant::now();
        ip(&["netns", "add", &name])?;
        fixer.stderr.wait(&format!("the network namespace '{name}' is there"))?;
        took.push(began.elapsed());
        ip(&["-n", &name, "link", "add", "br7", "type", "bridge"])?;
        fixer.stderr.wait(&format!("attached to egress of {name}/br7"))?;
    }
    // A machine may be busy at one moment or another.
    took.sort_unstable();
    ensure!(took[took.len() / 2] < SOON, "{took:?}");
    ip(&["netns", "add", "other"])?;
    ip(&["-all", "netns", "del"])?;
    for _ in 0..7 {
        fixer.stderr.wait("let go of the network namespace 'ns-")?;
    }
    let ended = fixer.stop(Signal::SIGTERM)?.ok()?;
    ensure!(!ended.stderr.iter().any(|line| line.contains("other")), "{ended:?}");
    Ok(())
}

/// Whoever names it, and however often: also its own namespace. With one of its names gone it has
/// the others; a name that is asked for is waited for, whatever globs take it too.
#[test]
fn a_namespace_of_many_names_is_taken_once() -> Result<()> {
    let elsewhere = ground()?;
    link::bridge(&elsewhere, "br5")?;
    let blue = scene()?;
    for alias in ["ns-blue", "ns-navy"] {
        name(&blue.host, alias)?;
    }
    name(&elsewhere, "ns-self")?;
    name(&NetNs::scratch("red")?, "red")?;
    // Neither is a namespace.
    std::fs::write("/run/netns/ns-empty", "")?;
    std::fs::create_dir("/run/netns/ns-directory")?;
    let names = ["n*", "ns-*", "red", "*e*", "/run/netns/ns-blue"];
    let mut fixer = run(&elsewhere, &names, &["--metrics", "off", "--events", "none"])?;
    for place in ["/run/netns/ns-blue/br0", "ns-self/br5"] {
        fixer.stderr.wait(&format!("attached to egress of {place}"))?;
    }
    ensure!(hooks(&blue.host, BRIDGE)?.len() == 1, "{:?}", hooks(&blue.host, BRIDGE)?);
    send_partial(&blue, BRIDGE, 1)?;
    unname("ns-blue")?;
    fixer
        .stderr
        .wait("let go of the network namespace '/run/netns/ns-blue': it was deleted; wait")?;
    fixer.stderr.wait("attached to egress of ns-navy/br0")?;
    ensure!(hooks(&blue.host, BRIDGE)?.len() == 1, "{:?}", hooks(&blue.host, BRIDGE)?);
    send_partial(&blue, BRIDGE, 2)?;
    unname("ns-navy")?;
    fixer.stderr.wait("let go of the network namespace 'ns-navy': it was deleted")?;
    ensure!(hooks(&blue.host, BRIDGE)?.is_empty());
    unname("red")?;
    fixer.stderr.wait("let go of the network namespace 'red': it was deleted; waiting")?;
    name(&blue.host, "red")?;
    fixer.stderr.wait("the network namespace 'red' is there again")?;
    fixer.stderr.wait("attached to egress of red/br0")?;
    send_partial(&blue, BRIDGE, 3)?;
    let mut ended = fixer.stop(Signal::SIGTERM)?.ok()?;
    ended.stdout.sort_unstable();
    let expected = [
        "/run/netns/ns-blue/br0 egress: 1 fixed",
        "ns-navy/br0 egress: 2 fixed",
        "ns-self: no packet matched",
        "red/br0 egress: 3 fixed",
    ];
    ensure!(ended.stdout == expected, "{ended:?}");
    Ok(())
}

/// What is there at the start has to be taken, as with a glob of interfaces; what is named in it with
/// its plain name need not be there.
#[test]
fn what_is_there_at_the_start_is_taken_or_refused() -> Result<()> {
    let elsewhere = ground()?;
    let (blue, red) = (scene()?, NetNs::scratch("red")?);
    name(&blue.host, "ns-blue")?;
    name(&red, "ns-red")?;
    let arguments = ["run", "-i", BRIDGE, "--metrics", "off", "--netns", "ns-*"];
    let start = || Running::start(&elsewhere, fixer(&arguments)?);
    let mut first = start()?;
    first.stderr.wait("attached to egress of ns-blue/br0")?;
    first.stderr.wait("no interface of 'ns-red' is selected yet; waiting")?;
    let ended = start()?.end()?;
    let [line] = &ended.stderr[..] else { anyhow::bail!("not one line: {ended:?}") };
    ensure!(ended.status.code() == Some(1) && line.contains("br0"), "{ended:?}");
    link::bridge(&red, BRIDGE)?;
    first.stderr.wait("attached to egress of ns-red/br0")?;
    first.stop(Signal::SIGTERM)?.ok().map(drop)
}
