//! What fixer shows of an interface whose name speaks to terminals: the same everywhere, and nothing that a
//! terminal obeys.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use dhcproto::v4::MessageType;
use fixer_tests::{
    client::frame,
    command::{Ended, Running, attached, fixer, output},
    http::{self, METRICS},
    mounts::private_mounts,
};
use fixer_user::{
    lab::{link, packet::PacketSocket},
    net::netns::NetNs,
};
use nix::sys::signal::Signal;
use serde_json::Value;

/// The name, and how it is shown.
const NAME: &str = "br\u{1b}c\u{7}";
const SHOWN: &str = "br\u{fffd}c\u{fffd}";

/// Nothing that was said is for the terminal itself, and what was said is about the interface.
fn is_safe(ended: &Ended, what: &str) -> Result<()> {
    let said: Vec<_> = ended.stdout.iter().chain(&ended.stderr).collect();
    ensure!(!said.iter().any(|line| line.contains(char::is_control)), "{what}: {said:?}");
    ensure!(said.iter().any(|line| line.contains(SHOWN)), "{what}: {said:?}");
    Ok(())
}

fn run(netns: &NetNs, arguments: &[&str]) -> Result<Ended> {
    Running::start(netns, fixer(arguments)?)?.end()
}

fn ground() -> Result<NetNs> {
    private_mounts(true)?;
    let netns = NetNs::scratch("host")?;
    link::up(&netns, "lo")?;
    link::bridge(&netns, NAME)?;
    Ok(netns)
}

/// A client on the host itself asks.
fn ask(netns: &NetNs) -> Result<()> {
    let frame = frame([2, 0, 0, 0, 0, 7], MessageType::Discover, &[])?;
    Ok(PacketSocket::open(netns, NAME)?.send(&frame, None)?)
}

#[test]
fn of_a_run_and_those_who_watch_it() -> Result<()> {
    let netns = ground()?;
    for form in ["text", "json"] {
        let watched = ["--all", "--events", form];
        let follow = ["-i", NAME, "--hook", "both", "--exchange-timeout", "1", "--skip-selftest"];
        let mut running = attached(&netns, &[&follow[..], &watched].concat())?;
        let mut watch = Running::start(&netns, fixer(&[&["watch"], &watched[..]].concat())?)?;
        watch.stderr.wait("watching")?;
        ask(&netns)?;
        running.stdout.wait("no_offer")?;
        watch.stdout.wait("discover")?;

        ensure!(http::get(&netns, METRICS, "/healthz")?.is(200), "it is not healthy");
        let body = http::get(&netns, METRICS, "/metrics")?.body;
        let labels = body.lines().filter_map(|line| line.split("interface=\"").nth(1));
        let names: BTreeSet<_> = labels.filter_map(|rest| rest.split('"').next()).collect();
        ensure!(names == [SHOWN].into(), "{names:?} in {body}");
        for metric in
            ["packets_total", "dhcp_messages_total", "exchanges_total", "interface_attached"]
        {
            let start = format!("fixer_{metric}{{netns=\"host\",interface=\"{SHOWN}\"");
            ensure!(body.lines().any(|line| line.starts_with(&start)), "no {metric} in {body}");
        }
        is_safe(&run(&netns, &["status"])?.ok()?, "status")?;
        let entries = run(&netns, &["status", "--json"])?.ok()?.stdout.join("");
        let entries: Value = serde_json::from_str(&entries)?;
        ensure!(entries[0]["interface"] == SHOWN, "{entries}");
        let refused = run(&netns, &["attach", "-i", NAME, "--skip-selftest"])?;
        ensure!(refused.status.code() == Some(1), "{refused:?}");
        is_safe(&refused, "attach beside a run")?;

        is_safe(&watch.stop(Signal::SIGTERM)?.ok()?, "watch")?;
        is_safe(&running.stop(Signal::SIGTERM)?.ok()?, "run")?;
    }
    // One that comes, gets another name, and goes.
    let mut running = attached(&netns, &["-i", "br*", "--metrics", "off", "--skip-selftest"])?;
    let other = format!("{NAME}2");
    output(&netns, "ip", &["link", "set", NAME, "down", "name", &other])?;
    running.stderr.wait("is called")?;
    link::delete(&netns, &other)?;
    running.stderr.wait("is gone")?;
    is_safe(&running.stop(Signal::SIGTERM)?.ok()?, "run")
}

#[test]
fn of_what_is_pinned() -> Result<()> {
    let netns = ground()?;
    let mistake = run(&netns, &["attach", "-i", "nothing"])?;
    is_safe(&mistake, "the wrong name")?;
    for arguments in [
        &["attach", "-i", NAME, "--skip-selftest"][..],
        &["status"],
        &["top", "--once"],
        &["doctor", "-i", NAME],
        &["detach", "-i", NAME],
        &["detach", "-i", NAME],
    ] {
        let ended = run(&netns, arguments)?;
        is_safe(&ended, arguments[0])?;
    }
    let left = run(&netns, &["status"])?.ok()?;
    ensure!(left.stdout == ["nothing is attached"], "{left:?}");
    Ok(())
}
