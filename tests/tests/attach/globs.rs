//! `--netns 'ns-*'`: all that are named so now, as if each had been named.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use fixer_tests::{
    command::{Running, fixer},
    mounts::{name, private_mounts, private_names},
};
use fixer_user::lab::scene::Scene;
use nix::sys::signal::Signal;

use super::{BRIDGE, NetNs, link, nothing_is_left, refused, run};

const GLOB: [&str; 2] = ["--netns", "ns-*"];

/// Two namespaces that are named so, and one that is not.
fn ground() -> Result<[Scene; 3]> {
    private_mounts(true)?;
    private_names()?;
    let scenes = [Scene::new()?, Scene::new()?, Scene::new()?];
    for (scene, called) in scenes.iter().zip(["ns-blue", "ns-red", "other"]) {
        name(&scene.host, called)?;
    }
    Ok(scenes)
}

#[test]
fn a_glob_is_all_that_are_named_so_now() -> Result<()> {
    let [blue, red, other] = ground()?;
    let elsewhere = NetNs::scratch("elsewhere")?;
    let act = |verb: &[&str]| run(&elsewhere, &[verb, &GLOB].concat());
    let ended = act(&["attach", "-i", BRIDGE, "--skip-selftest"])?.ok()?;
    let places = ["ns-blue/br0", "ns-red/br0"];
    let expected: BTreeSet<_> =
        places.iter().map(|place| format!("attached to egress of {place} (tcx)")).collect();
    ensure!(ended.stdout.iter().cloned().collect::<BTreeSet<_>>() == expected, "{ended:?}");
    nothing_is_attached(&other)?;

    let ended = act(&["status"])?.ok()?;
    let [title, first, second] = &ended.stdout[..] else { anyhow::bail!("{ended:?}") };
    ensure!(title.starts_with("NETNS") && first.starts_with("ns-blue  br0"), "{ended:?}");
    ensure!(second.starts_with("ns-red   br0"), "{ended:?}");
    let ended = act(&["top", "--once"])?.ok()?;
    let lines = ["ns-blue  br0", "ns-red   br0"];
    ensure!(lines.iter().all(|line| ended.stdout.join("\n").contains(line)), "{ended:?}");

    let mut watch = Running::start(&elsewhere, fixer(&[&["watch"][..], &GLOB].concat())?)?;
    for place in places {
        watch.stderr.wait(&format!("watching egress of {place}"))?;
    }
    watch.stop(Signal::SIGTERM)?.ok()?;

    let ended = act(&["doctor"])?;
    ensure!(places.iter().all(|place| ended.stdout.join("\n").contains(place)), "{ended:?}");

    let ended = act(&["detach", "--all"])?.ok()?;
    ensure!(ended.stdout.len() == 2, "{ended:?}");
    [&blue, &red].into_iter().try_for_each(nothing_is_attached)?;
    nothing_is_left(&other.host, BRIDGE)
}

fn nothing_is_attached(scene: &Scene) -> Result<()> {
    let there = super::hooks(&scene.host, BRIDGE)?;
    ensure!(there.is_empty(), "{there:?}");
    Ok(())
}

/// In one of them there is something else than in the others: none is touched.
#[test]
fn all_of_them_or_none() -> Result<()> {
    let [blue, red, _] = ground()?;
    link::delete(&red.host, BRIDGE)?;
    let attach = ["attach", "-i", BRIDGE, "--skip-selftest", "--netns", "ns-*"];
    let words = ["no interface 'br0' in the network namespace 'ns-red'"];
    refused(&run(&blue.guest, &attach)?, &words)?;
    nothing_is_left(&blue.host, BRIDGE)
}

#[test]
fn a_glob_that_finds_none_is_a_mistake() -> Result<()> {
    let [blue, ..] = ground()?;
    let words = ["no network namespace matches 'x*' or '?'; there are: ns-blue, ns-red, other"];
    for verb in [
        &["attach", "-i", BRIDGE][..],
        &["detach", "--all"],
        &["status"],
        &["watch"],
        &["top", "--once"],
        &["doctor"],
    ] {
        let ended = run(&blue.guest, &[verb, &["--netns", "x*", "--netns", "?"]].concat())?;
        refused(&ended, &words)?;
    }
    // A path is a path, and a process is a process.
    let ended = run(&blue.guest, &["status", "--netns", "/run/netns/ns-*"])?;
    refused(&ended, &["cannot open the network namespace '/run/netns/ns-*'"])?;
    let ended = run(&blue.guest, &["status", "--netns", "pid:*"])?;
    ensure!(ended.status.code() == Some(2), "{ended:?}");
    private_names()?;
    let ended = run(&blue.guest, &["status", "--netns", "x*"])?;
    refused(&ended, &["no network namespace matches 'x*'; `ip netns` has named none"])
}
