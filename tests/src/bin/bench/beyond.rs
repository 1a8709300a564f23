//! What `fixer run` costs beyond the packets: time until it is attached, memory, and answers to whoever
//! asks for metrics; and how many events it delivers.

use std::{fs, process::Stdio, time::Instant};

use anyhow::{Context as _, Result, ensure};
use fixer_tests::{
    command::{Running, program},
    frames::Packet,
    http::{self, METRICS},
};
use fixer_user::{
    lab::{
        link,
        packet::PacketSocket,
        reply::PARTIAL,
        scene::{BRIDGE, Scene},
    },
    net::netns::NetNs,
};
use nix::unistd::Pid;

use crate::{figure, flood};

/// How many interfaces are attached to.
const INTERFACES: &[usize] = &[1, 100, 1000];

/// How many replies a flood has.
const FLOOD: usize = 100_000;

/// How often metrics are asked for in a round.
const SCRAPES: usize = 20;

/// Measures everything about this `fixer` as often as asked for.
pub fn run(fixer: &str, rounds: usize) -> Result<()> {
    about("size of the program", "MiB", mebibytes(fs::metadata(fixer)?.len()));
    for _ in 0..rounds {
        let scene = Scene::new()?;
        let started = start(fixer, &scene.host, 1, &["-i", BRIDGE])?;
        about("attach, with the self-test", "ms", started.millis);
        drop(started);
        memory(fixer, &scene)?;
    }
    flood::run(fixer)?;
    for count in INTERFACES {
        let netns = NetNs::scratch("many")?;
        link::up(&netns, "lo")?;
        for number in 0..*count {
            link::bridge(&netns, &bridge(number))?;
        }
        for _ in 0..rounds {
            attach(fixer, &netns, *count)?;
        }
    }
    Ok(())
}

fn bridge(number: usize) -> String {
    format!("bridge{number}")
}

fn about(what: &str, unit: &str, value: f64) {
    figure(&["beyond", what, unit], format!("{value:.3}"));
}

/// A `fixer run` that is attached, and how long that took.
struct Started {
    running: Running,
    millis: f64,
}

fn start(fixer: &str, netns: &NetNs, attachments: usize, arguments: &[&str]) -> Result<Started> {
    let command = program(fixer, &[&["run", "--events", "json"], arguments].concat());
    let start = Instant::now();
    let mut running = Running::start_into(netns, command, Stdio::null())?;
    for _ in 0..attachments {
        running.stderr.wait("attached to")?;
    }
    Ok(Started { running, millis: millis_since(start) })
}

fn millis_since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// Memory before anything happens, and the most that it was while replies came as fast as they can
/// be sent.
fn memory(fixer: &str, scene: &Scene) -> Result<()> {
    let Started { running, .. } = start(fixer, &scene.host, 1, &["-i", BRIDGE, "--skip-selftest"])?;
    about("memory, idle", "MiB", status(running.pid(), "VmRSS:")?);
    let socket = PacketSocket::open(&scene.host, BRIDGE)?;
    let reply = Packet::reply(300).partial();
    for _ in 0..FLOOD {
        socket.send(&reply, Some(PARTIAL))?;
    }
    about("memory at most, in a flood of replies", "MiB", status(running.pid(), "VmHWM:")?);
    Ok(())
}

/// A line of `/proc/PID/status`, in mebibytes.
fn status(pid: Pid, name: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()).context("no such line")?;
    Ok(mebibytes(kibibytes.parse::<u64>()? * 1024))
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Attaches to so many interfaces, each of which then has something to count.
fn attach(fixer: &str, netns: &NetNs, count: usize) -> Result<()> {
    let arguments = ["--auto", "--skip-selftest"];
    let Started { running, millis } = start(fixer, netns, count, &arguments)?;
    let name = match count {
        1 => "1 interface".to_owned(),
        _ => format!("{count} interfaces"),
    };
    about(&format!("attach to {name}"), "ms", millis);
    let reply = Packet::reply(300).partial();
    for number in 0..count {
        PacketSocket::open(netns, &bridge(number))?.send(&reply, Some(PARTIAL))?;
    }
    for _ in 0..SCRAPES {
        let start = Instant::now();
        let metrics = http::get(netns, METRICS, "/metrics")?.body;
        about(&format!("metrics of {name}"), "ms", millis_since(start));
        let rows = metrics.lines().filter(|line| line.starts_with("fixer_interface_attached{"));
        ensure!(rows.count() == count, "the metrics are not those of {name}");
    }
    about(&format!("memory, {name}"), "MiB", status(running.pid(), "VmRSS:")?);
    Ok(())
}
