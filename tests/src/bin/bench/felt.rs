//! What is felt of it: how much TCP, and how many small datagrams, go through the bridge in real time.
//!
//! Other work on the machine moves these figures by more than what is to be measured. So the ways take
//! turns, and only what was measured in the same round may be compared.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, Result};
use fixer_tests::command::{Running, output, program};
use fixer_user::lab::{
    link,
    scene::{GUEST, Scene},
};
use serde_json::Value;

use crate::{
    figure,
    ways::{WAYS, Way},
};

/// The ways that are compared.
const COMPARED: &[&str] = &["untouched bridge", "fixer", "tx off"];

/// The guest's address.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 3, 129);

/// Something to send.
struct Load {
    name: &'static str,
    /// What iperf3 is told, besides the address.
    arguments: &'static [&'static str],
    /// Finds the figure in its report.
    read: fn(&Value) -> Option<f64>,
}

const LOADS: &[Load] = &[
    Load {
        name: "TCP",
        arguments: &["--time", "3"],
        read: |end| Some(end["sum_received"]["bits_per_second"].as_f64()? / 1e9),
    },
    Load {
        name: "UDP 64 B",
        arguments: &["--time", "2", "--udp", "--bitrate", "0", "--length", "64"],
        read: |end| {
            let sum = &end["sum"];
            let arrived = sum["packets"].as_f64()? - sum["lost_packets"].as_f64()?;
            Some(arrived / sum["seconds"].as_f64()? / 1e3)
        },
    },
];

/// Measures everything as often as asked for, in turn.
pub fn run(rounds: usize) -> Result<()> {
    let mut ways: Vec<_> = WAYS.iter().filter(|way| COMPARED.contains(&way.name)).collect();
    for _ in 0..rounds {
        for load in LOADS {
            for way in &ways {
                figure(&["felt", way.name, load.name], format!("{:.3}", measure(way, load)?));
            }
        }
        // Nobody is always the first, when the machine may still be cold.
        ways.rotate_left(1);
    }
    Ok(())
}

fn measure(way: &Way, load: &Load) -> Result<f64> {
    let scene = Scene::new()?;
    link::address(&scene.guest, GUEST, IpAddr::V4(ADDRESS), 24)?;
    let _in_place = way.set_up(&scene)?;
    let server = program("iperf3", &["--server", "--one-off", "--forceflush"]);
    let mut server = Running::start(&scene.guest, server)?;
    server.stdout.wait("listening")?;
    let address = ADDRESS.to_string();
    let arguments = [&["--client", &address, "--json"], load.arguments].concat();
    let report: Value = serde_json::from_str(&output(&scene.host, "iperf3", &arguments)?)?;
    server.end()?.ok()?;
    (load.read)(&report["end"]).with_context(|| format!("iperf3 reports no {}", load.name))
}
