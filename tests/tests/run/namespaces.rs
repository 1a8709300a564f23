//! Network namespaces that end and come back, and some that are the same.

use std::{
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use fixer_tests::command::{PATIENCE, Running, fixer, hooks, interfaces, naming, output, program};
use fixer_user::{
    lab::{link, scene::BRIDGE},
    net::netns::NetNs,
};
use nix::sys::signal::Signal;

use crate::{
    metrics::{get, has},
    scene, send_partial,
};

/// How soon a namespace that comes back is entered.
const SOON: Duration = Duration::from_millis(100);

/// How many come back in a round of measuring, and how many rounds there are at most.
const EACH: usize = 3;
const ROUNDS: usize = 4;

/// Waits until an interface is gone, as a veth is when its peer's namespace ends.
fn wait_until_gone(netns: &NetNs, name: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while interfaces(netns)?.iter().any(|there| there == name) {
        ensure!(Instant::now() < deadline, "{name} does not go");
    }
    Ok(())
}

/// `ip netns add` and `del`, where only the started fixer sees it.
struct Names<'a> {
    fixer: &'a Running,
    netns: &'a NetNs,
}

impl Names<'_> {
    fn ip(&self, arguments: &[&str]) -> Result<()> {
        let pid = self.fixer.pid().to_string();
        let all = [&["--mount", "--target", &pid, "ip"], arguments].concat();
        output(self.netns, "nsenter", &all).map(drop)
    }
}

#[test]
fn a_namespace_that_is_deleted_is_let_go_and_one_of_its_name_is_entered() -> Result<()> {
    let elsewhere = NetNs::scratch("elsewhere")?;
    let run = ["run", "-i", "br*", "--netns", "blue", "--events", "none"];
    let mut fixer = {
        let blue = scene()?;
        link::up(&elsewhere, "lo")?;
        link::veth(&elsewhere, "far", &blue.host, "near")?;
        let mut fixer = Running::start_as(&elsewhere, fixer(&run)?, naming("blue", &blue.host)?)?;
        fixer.stderr.wait("attached to egress of blue/br0")?;
        send_partial(&blue, BRIDGE, 2)?;
        fixer
    };
    // This alone keeps it now.
    ensure!(interfaces(&elsewhere)?.contains(&"far".to_owned()));
    let (mut took, mut medians) = (Vec::new(), Vec::new());
    // A machine may be busy at one moment or another, and the commands take their time too.
    while medians.last().is_none_or(|median| *median >= SOON) && medians.len() < ROUNDS {
        Names { fixer: &fixer, netns: &elsewhere }.ip(&["netns", "del", "blue"])?;
        fixer.stderr.wait("let go of the network namespace 'blue': it was deleted")?;
        wait_until_gone(&elsewhere, "far")?;
        let fixed = "netns=\"blue\",interface=\"br0\",hook=\"egress\",verdict=\"fixed\"";
        has(&get(&elsewhere, "/metrics")?.body, &format!("fixer_packets_total{{{fixed}}} 2"))?;

        let began = Instant::now();
        Names { fixer: &fixer, netns: &elsewhere }.ip(&["netns", "add", "blue"])?;
        fixer.stderr.wait("the network namespace 'blue' is there again")?;
        took.push(began.elapsed());
        let add = ["-n", "blue", "link", "add", "br1", "type", "bridge"];
        Names { fixer: &fixer, netns: &elsewhere }.ip(&add)?;
        fixer.stderr.wait("attached to egress of blue/br1")?;
        Names { fixer: &fixer, netns: &elsewhere }
            .ip(&["link", "add", "far", "type", "veth", "peer", "near", "netns", "blue"])?;
        if took.len() == EACH {
            took.sort_unstable();
            medians.push(took[EACH / 2]);
            took.clear();
        }
    }
    ensure!(medians.last().is_some_and(|median| *median < SOON), "{medians:?}");
    let ended = fixer.stop(Signal::SIGTERM)?.ok()?;
    ensure!(ended.stdout == ["blue/br0 egress: 2 fixed"], "{ended:?}");
    Ok(())
}

#[test]
fn the_others_go_on_and_with_the_last_process_the_run_ends() -> Result<()> {
    let (blue, red) = (scene()?, scene()?);
    let elsewhere = NetNs::scratch("elsewhere")?;
    let sleepers =
        [&blue, &red].map(|scene| Running::start(&scene.host, program("sleep", &["1000"])));
    let [first, second] = sleepers;
    let (first, second) = (first?, second?);
    let (one, other) = (format!("pid:{}", first.pid()), format!("pid:{}", second.pid()));
    let run = ["run", "-i", BRIDGE, "--metrics", "off", "--netns", &one, "--netns", &other];
    let mut fixer = Running::start(&elsewhere, fixer(&run)?)?;
    for place in [&one, &other] {
        fixer.stderr.wait(&format!("attached to egress of {place}/br0"))?;
    }
    first.stop(Signal::SIGKILL)?;
    fixer
        .stderr
        .wait(&format!("let go of the network namespace '{one}': its process has ended"))?;
    ensure!(hooks(&blue.host, BRIDGE)?.is_empty());
    send_partial(&red, BRIDGE, 1)?;
    fixer.stdout.wait("fixed")?;
    second.stop(Signal::SIGKILL)?;
    let ended = fixer.end()?.ok()?;
    ensure!(hooks(&red.host, BRIDGE)?.is_empty());
    let summary = format!("{other}/br0 egress: 1 fixed");
    ensure!(ended.stdout.last() == Some(&summary), "{ended:?}");
    Ok(())
}

#[test]
fn a_namespace_that_is_named_twice_is_taken_once() -> Result<()> {
    let blue = scene()?;
    let path = format!("/proc/{}/fd/{}", std::process::id(), blue.host.file().as_raw_fd());
    let again = format!("/proc/{}/ns/../fd/{}", std::process::id(), blue.host.file().as_raw_fd());
    let run = ["run", "-i", BRIDGE, "--metrics", "off", "--events", "none"];
    let names = ["--netns", "blue", "--netns", "blue", "--netns", &path, "--netns", &again];
    let arguments = [&run[..], &names].concat();
    let mut fixer =
        Running::start_as(&blue.guest, fixer(&arguments)?, naming("blue", &blue.host)?)?;
    fixer.stderr.wait("attached to egress of blue/br0")?;
    send_partial(&blue, BRIDGE, 1)?;
    let ended = fixer.stop(Signal::SIGTERM)?.ok()?;
    ensure!(ended.stdout == ["blue/br0 egress: 1 fixed"], "{ended:?}");
    ensure!(ended.stderr.len() == 1, "{ended:?}");
    Ok(())
}
