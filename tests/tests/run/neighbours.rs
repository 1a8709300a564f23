//! Others at the same hooks: filters that were there before, a second fixer.

use anyhow::{Context as _, Result, ensure};
use fixer_tests::command::{Running, fixer, hooks, on_bridge, output};
use fixer_user::lab::scene::{BRIDGE, Scene};
use nix::sys::signal::Signal;

use crate::{Stage, scene, send_partial};

/// A filter for every UDP packet over IPv4, whose action counts them, and which ends the chain of
/// filters. Of the classifiers and actions of tc, also minimal kernels have these.
const FILTER: &str = "filter add dev br0 egress pref 77 protocol ip u32 match ip protocol 17 0xff \
                      action mirred egress mirror dev lo";

/// The first number before a word.
fn number_before(text: &str, word: &str) -> Option<u64> {
    text.split(word).next()?.split_whitespace().last()?.parse().ok()
}

fn tc(scene: &Scene, command: &str) -> Result<String> {
    output(&scene.host, "tc", &command.split(' ').collect::<Vec<_>>())
}

/// Packets that somebody's filter has seen: `Sent 684 bytes 2 pkt (dropped 0, …`.
fn counted_by_filter(scene: &Scene) -> Result<u64> {
    let text = tc(scene, "-s filter show dev br0 egress pref 77")?;
    let packets = text.split("Sent ").nth(1).and_then(|sent| number_before(sent, " pkt"));
    packets.with_context(|| format!("no count in: {text}"))
}

#[test]
fn a_clsact_qdisc_is_made_and_removed() -> Result<()> {
    let stage = Stage::new()?;
    let arguments = ["--attach-mode", "clsact", "--hook", "both", "--events", "none"];
    let fixer = on_bridge(&stage.scene.host, &arguments)?;
    let there = hooks(&stage.scene.host, BRIDGE)?;
    let ours = there.iter().filter(|hook| hook.contains("fixer")).count();
    ensure!(ours == 2 && there.last().is_some_and(|last| last.contains("clsact")), "{there:?}");
    stage.lease()?;
    let ended = fixer.stop(Signal::SIGINT)?.ok()?;
    ensure!(ended.stdout == ["br0 egress: 2 fixed"], "{ended:?}");
    let left = hooks(&stage.scene.host, BRIDGE)?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

#[test]
fn a_clsact_qdisc_of_somebody_else_stays_with_its_filter() -> Result<()> {
    let stage = Stage::new()?;
    tc(&stage.scene, "qdisc add dev br0 clsact")?;
    tc(&stage.scene, FILTER)?;
    let before = hooks(&stage.scene.host, BRIDGE)?;
    for mode in ["tcx", "clsact"] {
        let counted = counted_by_filter(&stage.scene)?;
        let fixer = on_bridge(&stage.scene.host, &["--attach-mode", mode])?;
        let replies = stage.lease()?;
        let now = counted_by_filter(&stage.scene)?;
        ensure!(now == counted + replies as u64, "{mode}: {counted}, then {now} of {replies}");
        let ended = fixer.stop(Signal::SIGTERM)?.ok()?;
        let summary = format!("br0 egress: {replies} fixed");
        ensure!(ended.stdout.last() == Some(&summary), "{mode}: {ended:?}");
        let after = hooks(&stage.scene.host, BRIDGE)?;
        ensure!(after == before, "{mode}: {before:#?}, then {after:#?}");
    }
    Ok(())
}

/// An empty qdisc of somebody else is not ours to remove either.
#[test]
fn an_empty_clsact_qdisc_of_somebody_else_stays() -> Result<()> {
    let scene = scene()?;
    tc(&scene, "qdisc add dev br0 clsact")?;
    on_bridge(&scene.host, &["--attach-mode", "clsact"])?.stop(Signal::SIGTERM)?.ok()?;
    let left = hooks(&scene.host, BRIDGE)?;
    ensure!(left.len() == 1 && left[0].contains("clsact"), "{left:?}");
    Ok(())
}

/// A filter that came while we ran keeps the qdisc that we made.
#[test]
fn a_filter_that_came_later_stays_on_our_qdisc() -> Result<()> {
    let scene = scene()?;
    let fixer = on_bridge(&scene.host, &["--attach-mode", "clsact"])?;
    tc(&scene, FILTER)?;
    send_partial(&scene, BRIDGE, 2)?;
    ensure!(counted_by_filter(&scene)? == 2);
    let ended = fixer.stop(Signal::SIGTERM)?.ok()?;
    ensure!(ended.stdout.last().is_some_and(|last| last == "br0 egress: 2 fixed"), "{ended:?}");
    let left = hooks(&scene.host, BRIDGE)?;
    ensure!(left.len() == 2 && !left.iter().any(|hook| hook.contains("fixer")), "{left:?}");
    Ok(())
}

#[test]
fn a_second_fixer_is_refused_and_the_first_goes_on() -> Result<()> {
    refused_beside("tcx")
}

#[test]
fn a_second_fixer_is_refused_by_a_filter_of_the_first_too() -> Result<()> {
    refused_beside("clsact")
}

fn refused_beside(first: &str) -> Result<()> {
    let stage = Stage::new()?;
    let fixer_there = on_bridge(&stage.scene.host, &["--attach-mode", first])?;
    let before = hooks(&stage.scene.host, BRIDGE)?;
    for mode in ["auto", "tcx", "clsact"] {
        let run = ["run", "-i", BRIDGE, "--metrics", "off", "--attach-mode", mode];
        let mut second = Running::start(&stage.scene.host, fixer(&run)?)?;
        second.stderr.wait("attached to egress of br0")?;
        // One that is not refused would run for ever.
        let ended = second.stop(Signal::SIGTERM)?;
        ensure!(ended.status.code() == Some(1) && ended.stdout.is_empty(), "{mode}: {ended:?}");
        let told = "fixer: a fixer is already attached to egress of br0";
        ensure!(ended.stderr.len() == 1 && ended.stderr[0].starts_with(told), "{mode}: {ended:?}");
        let now = hooks(&stage.scene.host, BRIDGE)?;
        ensure!(now == before, "{mode}: {before:?}, then {now:?}");
    }
    stage.lease()?;
    let ended = fixer_there.stop(Signal::SIGINT)?.ok()?;
    ensure!(ended.stdout.last().is_some_and(|last| last == "br0 egress: 2 fixed"), "{ended:?}");
    Ok(())
}
