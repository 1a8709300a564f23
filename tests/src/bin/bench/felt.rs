//! What is felt of it: how much TCP, and how many small datagrams, go through the bridge in real time.
//!
//! Other work on the machine moves these figures by more than what is to be measured. So the ways take
//! turns, and only what was measured in the same round may be compared.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    time::Instant,
};

use anyhow::{Context as _, Result};
use fixer_tests::command::{Running, output, program};
use fixer_user::lab::{
    link,
    scene::{GUEST, Scene},
};
use serde_json::Value;

use crate::{
    figure,
    packets::{self, SMALL, Sender},
    ways::{InPlace, WAYS, Way},
};

/// The ways that are compared.
const COMPARED: &[&str] = &["untouched bridge", "fixer", "tx off"];

/// The guest's address.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 3, 129);

/// How long TCP is sent, in seconds.
const SECONDS: &str = "3";

/// Datagrams that are sent in one go, a few milliseconds long, before it is another way's turn.
const BURST: usize = 500;

/// Bursts in a round, of which the median counts: the others were interrupted for longer or shorter.
const BURSTS: usize = 201;

/// Measures everything as often as asked for, in turn.
pub fn run(rounds: usize) -> Result<()> {
    let mut ways: Vec<_> = WAYS.iter().filter(|way| COMPARED.contains(&way.name)).collect();
    let stages = ways.iter().map(|way| Stage::new(way)).collect::<Result<Vec<_>>>()?;
    for _ in 0..rounds {
        for way in &ways {
            figure(&["felt", way.name, "TCP"], format!("{:.3}", tcp(way)?));
        }
        small_datagrams(&stages)?;
        // Nobody is always the first.
        ways.rotate_left(1);
    }
    Ok(())
}

/// How many gigabits of TCP a second arrive.
fn tcp(way: &Way) -> Result<f64> {
    let scene = Scene::new()?;
    link::address(&scene.guest, GUEST, IpAddr::V4(ADDRESS), 24)?;
    let _in_place = way.set_up(&scene)?;
    let server = program("iperf3", &["--server", "--one-off", "--forceflush"]);
    let mut server = Running::start(&scene.guest, server)?;
    server.stdout.wait("listening")?;
    let arguments = ["--client", &ADDRESS.to_string(), "--time", SECONDS, "--json"];
    let report: Value = serde_json::from_str(&output(&scene.host, "iperf3", &arguments)?)?;
    server.end()?.ok()?;
    let rate = report["end"]["sum_received"]["bits_per_second"].as_f64();
    Ok(rate.context("iperf3 does not say how much arrived")? / 1e9)
}

/// A way in place, and somebody who sends small datagrams there.
struct Stage {
    name: &'static str,
    send: Sender,
    _in_place: InPlace,
    _scene: Scene,
}

impl Stage {
    fn new(way: &Way) -> Result<Self> {
        let scene = packets::scene()?;
        let in_place = way.set_up(&scene)?;
        Ok(Self { name: way.name, send: SMALL.open(&scene)?, _in_place: in_place, _scene: scene })
    }

    /// How many thousand datagrams a second are sent in a burst: each is at its destination when the
    /// system call that sends it returns.
    fn burst(&self) -> io::Result<f64> {
        let start = Instant::now();
        for _ in 0..BURST {
            (self.send)()?;
        }
        Ok(BURST as f64 / start.elapsed().as_secs_f64() / 1e3)
    }
}

fn small_datagrams(stages: &[Stage]) -> Result<()> {
    let mut rates = vec![Vec::with_capacity(BURSTS); stages.len()];
    for burst in 0..BURSTS {
        for turn in 0..stages.len() {
            let at = (burst + turn) % stages.len();
            rates[at].push(stages[at].burst()?);
        }
    }
    for (stage, mut rates) in stages.iter().zip(rates) {
        rates.sort_by(f64::total_cmp);
        figure(&["felt", stage.name, SMALL.name], format!("{:.1}", rates[BURSTS / 2]));
    }
    Ok(())
}
