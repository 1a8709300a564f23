//! How many events a second `fixer run` delivers before the first is lost, or before the sender can no more.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use fixer_tests::{
    command::{Running, program},
    frames::Packet,
    http::{self, METRICS},
};
use fixer_user::{
    lab::{
        packet::{Message, PacketSocket},
        reply::PARTIAL,
        scene::{BRIDGE, Scene},
    },
    net::netns::NetNs,
};

use crate::figure;

/// How events are written, with the options for it. Where they go costs nothing.
const FORMS: [(&str, &[&str]); 3] = [
    ("text", &["--events", "text"]),
    ("JSON", &["--events", "json"]),
    ("pcapng", &["--events", "none", "--pcapng", "/dev/null"]),
];

/// Replies a second at first.
const FIRST: f64 = 50_000.0;

/// Replies a second in a flood.
const FLOOD: f64 = 200_000.0;

/// What each rate is to the one before it.
const STEP: f64 = 1.2;

/// How long each rate is held: many times what fits into the ring buffer.
const HELD: Duration = Duration::from_secs(1);

/// How often a sender that is ahead of its time looks at the clock.
const BURST: Duration = Duration::from_millis(1);

/// How many replies were sent in how long, and how many of their events were lost.
struct Step {
    sent: u64,
    lost: u64,
    seconds: f64,
}

impl Step {
    fn sent(&self) -> f64 {
        self.sent as f64 / self.seconds
    }

    fn delivered(&self) -> f64 {
        (self.sent - self.lost) as f64 / self.seconds
    }
}

/// Steps the rate up until events are lost, for each form.
pub fn run(fixer: &str) -> Result<()> {
    for (form, options) in FORMS {
        let scene = Scene::new()?;
        let arguments = [&["run", "-i", BRIDGE, "--skip-selftest"], options].concat();
        let command = program(fixer, &arguments);
        let mut running = Running::start_into(&scene.host, command, Stdio::null())?;
        running.stderr.wait("attached to")?;
        let sender = PacketSocket::open(&scene.host, BRIDGE)?;

        let (mut rate, mut best) = (FIRST, 0.0);
        loop {
            let step = hold(&scene.host, &sender, rate)?;
            if step.lost > 0 {
                break;
            }
            best = step.sent();
            // A sender that does not keep up finds nothing any more.
            if best < rate * 0.9 {
                break;
            }
            rate *= STEP;
        }
        about(&format!("{form}: most events, none of them lost"), best);
        let flood = hold(&scene.host, &sender, FLOOD)?;
        about(&format!("{form}: replies in a flood"), flood.sent());
        about(&format!("{form}: events delivered of it"), flood.delivered());
    }
    Ok(())
}

fn about(what: &str, value: f64) {
    figure(&["beyond", what, "a second"], format!("{value:.0}"));
}

/// Sends replies at this rate.
fn hold(netns: &NetNs, sender: &PacketSocket, rate: f64) -> Result<Step> {
    let reply = Message::new(&Packet::reply(300).partial(), Some(PARTIAL));
    let before = lost(netns)?;
    let (began, mut sent) = (Instant::now(), 0);
    while began.elapsed() < HELD {
        let due = (began.elapsed() + BURST).as_secs_f64() * rate;
        while (sent as f64) < due && began.elapsed() < HELD {
            sender.send_ready(&reply)?;
            sent += 1;
        }
        // The other processors are for the reader; this one is for nobody else.
        while began.elapsed().as_secs_f64() * rate < sent as f64 && began.elapsed() < HELD {
            std::hint::spin_loop();
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    Ok(Step { sent, lost: lost(netns)? - before, seconds })
}

/// How many events were lost so far.
fn lost(netns: &NetNs) -> Result<u64> {
    let metrics = http::get(netns, METRICS, "/metrics")?.body;
    let name = "fixer_events_lost_total{netns=\"host\"} ";
    let value = metrics.lines().find_map(|line| line.strip_prefix(name));
    Ok(value.context("the loss is not among the metrics")?.parse()?)
}
