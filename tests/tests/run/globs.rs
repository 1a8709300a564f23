//! `--netns 'ns-*'`: every namespace of such a name, as they are named and deleted.

use std::{
    fs, io,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use caps::Capability::{CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, CAP_SYS_ADMIN};
use fixer_tests::{
    command::{PATIENCE, Running, fixer, hooks, interfaces, output},
    mounts::{name, private_names, unname},
};
use fixer_user::{
    lab::{link, scene::BRIDGE},
    net::netns::NetNs,
};
use nix::sys::{
    resource::{Resource, setrlimit},
    signal::Signal,
};

use crate::{
    least::{comes_to, only},
    metrics::{get, has},
    scene, send_partial,
};

/// How soon a namespace that is named is taken.
const SOON: Duration = Duration::from_millis(100);

/// How many are named in a round of measuring, and how many rounds there are at most.
const EACH: usize = 7;
const ROUNDS: usize = 4;

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
    ip(&["netns", "add", "ns-ip"])?;
    fixer.stderr.wait("the network namespace 'ns-ip' is there")?;
    let mut medians = Vec::new();
    // A machine may be busy at one moment or another.
    while medians.last().is_none_or(|median| *median >= SOON) && medians.len() < ROUNDS {
        let mut took = Vec::new();
        for number in 0..EACH {
            let called = format!("ns-{}-{number}", medians.len());
            let netns = NetNs::scratch(&called)?;
            let began = Instant::now();
            name(&netns, &called)?;
            fixer.stderr.wait(&format!("the network namespace '{called}' is there"))?;
            took.push(began.elapsed());
            link::bridge(&netns, "br7")?;
            fixer.stderr.wait(&format!("attached to egress of {called}/br7"))?;
        }
        took.sort_unstable();
        medians.push(took[EACH / 2]);
    }
    ensure!(medians.last().is_some_and(|median| *median < SOON), "{medians:?}");
    ip(&["netns", "add", "other"])?;
    ip(&["-all", "netns", "del"])?;
    for _ in 0..=medians.len() * EACH {
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
    fs::write("/run/netns/ns-empty", "")?;
    fs::create_dir("/run/netns/ns-directory")?;
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

/// Other globs and names: what is meant no more is left, what stays is not touched, what is new is taken.
/// A name has to be there, or all stays as it was.
#[test]
fn other_namespaces_can_be_named_while_it_runs() -> Result<()> {
    let elsewhere = ground()?;
    let (blue, red, pink) = (scene()?, scene()?, scene()?);
    for (scene, called) in [(&blue, "ns-blue"), (&red, "ns-red"), (&pink, "pink")] {
        name(&scene.host, called)?;
    }
    let file = tempfile::NamedTempFile::new()?;
    let write = |netns: &str| {
        let common = "interface = 'br*'\nmetrics = 'off'\nevents = 'none'\n";
        fs::write(file.path(), format!("{common}{netns}\n"))
    };
    let path = file.path().to_str().context("a path in UTF-8")?;
    write("netns = 'ns-*'")?;
    let mut fixer = Running::start(&elsewhere, fixer(&["run", "--config", path])?)?;
    for place in ["ns-blue/br0", "ns-red/br0"] {
        fixer.stderr.wait(&format!("attached to egress of {place}"))?;
    }
    let count = || -> Result<[usize; 3]> {
        let [blue, red, pink] = [&blue, &red, &pink].map(|scene| hooks(&scene.host, BRIDGE));
        Ok([blue?.len(), red?.len(), pink?.len()])
    };
    ensure!(count()? == [1, 1, 0]);
    for scene in [&blue, &red] {
        send_partial(scene, BRIDGE, 1)?;
    }
    for (netns, words, there) in [
        ("netns = ['*-blue', 'p*']", "attached to egress of pink/br0", [1, 0, 1]),
        ("netns = ['ns-blue', 'x*']", "matches 'x*' yet; waiting", [1, 0, 0]),
        (
            "netns = ['ns-[br]*', 'none']",
            "the configuration stays as it was: cannot open",
            [1, 0, 0],
        ),
        ("netns = 'ns-['", "the configuration stays as it was: ", [1, 0, 0]),
        ("", "netns cannot change while it runs: that needs a restart", [1, 0, 0]),
        ("netns = ['ns-*', 'pink']", "attached to egress of ns-red/br0", [1, 1, 1]),
    ] {
        write(netns)?;
        fixer.signal(Signal::SIGHUP)?;
        fixer.stderr.wait(words)?;
        if !words.contains("stays as it was") {
            fixer.stderr.wait("the configuration was read again")?;
        }
        ensure!(count()? == there, "{netns}: {:?}", count()?);
    }
    // Now it is named, and waited for.
    unname("pink")?;
    fixer.stderr.wait("let go of the network namespace 'pink': it was deleted; waiting")?;
    for scene in [&blue, &red] {
        send_partial(scene, BRIDGE, 1)?;
    }
    let mut ended = fixer.stop(Signal::SIGTERM)?.ok()?;
    ended.stdout.sort_unstable();
    let expected =
        ["ns-blue/br0 egress: 2 fixed", "ns-red/br0 egress: 2 fixed", "pink: no packet matched"];
    ensure!(ended.stdout == expected, "{ended:?}");
    ensure!(count()? == [0, 0, 0]);
    Ok(())
}

/// With what it keeps, and as somebody else.
#[test]
fn as_another_user_a_run_takes_what_is_named() -> Result<()> {
    let elsewhere = ground()?;
    let mut fixer = run(&elsewhere, &["ns-*"], &["--metrics", "off", "--user", "nobody"])?;
    fixer.stderr.wait("waiting")?;
    let needed = [CAP_NET_ADMIN, CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN];
    comes_to(&fixer, &only(&needed))?;
    let blue = scene()?;
    name(&blue.host, "ns-blue")?;
    fixer.stderr.wait("attached to egress of ns-blue/br0")?;
    send_partial(&blue, BRIDGE, 1)?;
    fixer.stdout.wait("fixed")?;
    unname("ns-blue")?;
    fixer.stderr.wait("let go of the network namespace 'ns-blue'")?;
    fixer.stop(Signal::SIGTERM)?.ok().map(drop)
}

/// It says so once, and takes what it can take once it can.
#[test]
fn what_cannot_be_taken_is_told_once_and_tried_again() -> Result<()> {
    const MOST: u64 = 48;
    let elsewhere = ground()?;
    let arguments = ["run", "-i", "br*", "--metrics", "off", "--netns", "ns-*"];
    let limit = || setrlimit(Resource::RLIMIT_NOFILE, MOST, MOST).map_err(io::Error::from);
    let mut fixer = Running::start_as(&elsewhere, fixer(&arguments)?, limit)?;
    fixer.stderr.wait("waiting")?;
    let mut named = 0;
    let line = loop {
        name(&NetNs::scratch("some")?, &format!("ns-{named}"))?;
        named += 1;
        let line = fixer.stderr.wait("network namespace 'ns-")?;
        if !line.ends_with("is there") {
            break line;
        }
    };
    ensure!(named > 1 && line.contains("cannot take the network namespace"), "{line}");
    ensure!(line.contains("Too many open files"), "{line}");
    unname("ns-0")?;
    fixer.stderr.wait("let go of the network namespace 'ns-0'")?;
    let last = format!("the network namespace 'ns-{}' is there", named - 1);
    fixer.stderr.wait(&last)?;
    let ended = fixer.stop(Signal::SIGTERM)?.ok()?;
    let told = ended.stderr.iter().filter(|line| line.contains("cannot take")).count();
    ensure!(told == 1, "{ended:?}");
    Ok(())
}
