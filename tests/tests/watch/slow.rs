//! A watcher that is stopped loses events, is told how many, and is nobody else's trouble.

use anyhow::{Context as _, Result, ensure};
use fixer_tests::command::{Running, fixer, on_bridge};
use fixer_user::{
    lab::{link, scene::BRIDGE},
    net::netns::NetNs,
};
use nix::sys::signal::Signal;

use super::{attach, fixed, private_bpffs, send_partial, watch};

/// More than what can wait for a watcher, and each burst less than what the ring buffer holds.
const BURSTS: u64 = 20;
const BURST: u64 = 500;

/// So many bursts, each handed over by itself, that a writer which is stuck has no room for all of them.
const SMALL_BURSTS: u64 = 80;
const SMALL_BURST: u64 = 20;

/// Sends bursts of this length, and waits after each until this one has seen all of it.
fn bursts(netns: &NetNs, quick: &mut Running, count: u64, length: u64) -> Result<()> {
    for _ in 0..count {
        send_partial(netns, BRIDGE, length as usize)?;
        for _ in 0..length {
            quick.stdout.wait("\"fixed\"")?;
        }
    }
    Ok(())
}

/// How many events a stopped watcher shows and how many it is told to have lost, once it goes on.
fn shown_and_lost(mut slow: Running) -> Result<(u64, u64)> {
    slow.signal(Signal::SIGCONT)?;
    slow.stdout.wait("\"lost\":")?;
    let ended = slow.stop(Signal::SIGTERM)?.ok()?;
    let lines: Vec<serde_json::Value> =
        ended.stdout.iter().map(|line| serde_json::from_str(line)).collect::<Result<_, _>>()?;
    let lost = lines.iter().filter_map(|line| line["lost"].as_u64()).sum();
    let total = format!("{} fixed", BURSTS * BURST);
    ensure!(ended.stderr.iter().any(|line| line.ends_with(&total)), "{:?}", ended.stderr);
    ensure!(ended.stderr.iter().any(|line| line.starts_with(&format!("{lost} events were lost"))));
    let shown = lines.iter().filter(|line| line["verdict"] == "fixed").count();
    Ok((u64::try_from(shown).context("a count")?, lost))
}

fn ground() -> Result<NetNs> {
    private_bpffs()?;
    let netns = NetNs::scratch("host")?;
    link::bridge(&netns, BRIDGE)?;
    link::up(&netns, BRIDGE)?;
    Ok(netns)
}

#[test]
fn of_pinned_maps_also_if_it_was_the_first() -> Result<()> {
    let netns = ground()?;
    attach(&netns, "tcx")?;
    let slow = watch(&netns, &["--events", "json"])?;
    let mut quick = watch(&netns, &["--events", "json"])?;
    slow.signal(Signal::SIGSTOP)?;
    bursts(&netns, &mut quick, BURSTS, BURST)?;
    ensure!(fixed(&netns)? == BURSTS * BURST);
    let (shown, lost) = shown_and_lost(slow)?;
    ensure!(lost > 0 && shown + lost == BURSTS * BURST, "{shown} shown, {lost} lost");
    let ended = quick.stop(Signal::SIGTERM)?.ok()?;
    ensure!(ended.stdout.len() as u64 == BURSTS * BURST, "{}", ended.stdout.len());
    Ok(())
}

#[test]
fn of_a_run() -> Result<()> {
    let netns = ground()?;
    let mut run = on_bridge(&netns, &["--events", "json"])?;
    let slow = watch(&netns, &["--events", "json"])?;
    slow.signal(Signal::SIGSTOP)?;
    bursts(&netns, &mut run, BURSTS, BURST)?;
    let (shown, lost) = shown_and_lost(slow)?;
    ensure!(lost > 0 && shown + lost == BURSTS * BURST, "{shown} shown, {lost} lost");
    let ended = run.stop(Signal::SIGTERM)?.ok()?;
    ensure!(ended.stdout.len() as u64 == BURSTS * BURST, "{}", ended.stdout.len());
    Ok(())
}

/// A run whose own output nobody reads still hands on to who watches, and ends in order.
#[test]
fn a_run_that_is_stuck_still_hands_on() -> Result<()> {
    let netns = ground()?;
    let (reader, writer) = std::io::pipe()?;
    let arguments =
        ["run", "-i", BRIDGE, "--metrics", "off", "--events", "json", "--skip-selftest"];
    let mut run = Running::start_into(&netns, fixer(&arguments)?, writer)?;
    run.stderr.wait("attached to")?;
    let mut quick = watch(&netns, &["--events", "json"])?;
    bursts(&netns, &mut quick, SMALL_BURSTS, SMALL_BURST)?;
    let sent = SMALL_BURSTS * SMALL_BURST;
    let ended = run.stop(Signal::SIGTERM)?.ok()?;
    let total = format!("{sent} fixed");
    ensure!(ended.stderr.iter().any(|line| line.contains(&total)), "{ended:?}");
    // What its own output never had is told with the totals.
    ensure!(ended.stderr.iter().any(|line| line.contains("events were lost")), "{ended:?}");
    drop(reader);
    let seen = quick.end()?.ok()?.stdout.len() as u64;
    ensure!(seen == sent, "{seen} were handed on");
    Ok(())
}
