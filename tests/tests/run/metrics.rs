//! What is served over HTTP.

use anyhow::{Context as _, Result, ensure};
use fixer_tests::{
    command::attached,
    http::{self, METRICS, Response},
};
use fixer_user::{
    lab::{link, scene::BRIDGE},
    metrics::kernel,
    net::netns::NetNs,
};
use nix::sys::signal::Signal;

use crate::{Stage, scene};

/// Asks the fixer that runs in a namespace.
pub fn get(netns: &NetNs, path: &str) -> Result<Response> {
    http::get(netns, METRICS, path)
}

/// Whether every interface that was selected is attached, as the run itself says.
pub fn is_healthy(scene: &fixer_user::lab::scene::Scene) -> Result<bool> {
    Ok(get(&scene.host, "/healthz")?.is(200))
}

/// Fails unless a text has just this line.
pub fn has(text: &str, line: &str) -> Result<()> {
    ensure!(text.lines().any(|other| other == line), "no {line} in:\n{text}");
    Ok(())
}

#[test]
fn the_counters_are_those_of_the_events() -> Result<()> {
    let stage = Stage::new()?;
    let mut fixer = attached(&stage.scene.host, &["-i", BRIDGE, "--events", "json"])?;
    let before = get(&stage.scene.host, "/metrics")?;
    ensure!(!before.body.contains("fixer_packets_total{"), "{}", before.body);
    for _ in 0..3 {
        stage.lease()?;
    }
    for _ in 0..3 {
        fixer.stdout.wait("\"message_type\":\"ack\"")?;
    }
    let answer = get(&stage.scene.host, "/metrics")?;
    ensure!(answer.is(200), "{answer:?}");
    let Response { head, body } = answer;
    has(&head, "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8")?;
    has(&body, "# EOF")?;
    has(&body, "fixer_events_lost_total{netns=\"host\"} 0")?;
    let at = "netns=\"host\",interface=\"br0\",hook=\"egress\"";
    has(&body, &format!("fixer_interface_attached{{{at},mode=\"tcx\"}} 1"))?;
    let version = env!("CARGO_PKG_VERSION");
    let kernel = kernel();
    has(&body, &format!("fixer_build_info{{version=\"{version}\",kernel=\"{kernel}\"}} 1"))?;
    let ended = fixer.stop(Signal::SIGTERM)?.ok()?;
    let fixed = ended.stdout.iter().filter(|line| line.contains("\"verdict\":\"fixed\"")).count();
    ensure!(fixed >= 6 && fixed == ended.stdout.len(), "{ended:?}");
    has(&body, &format!("fixer_packets_total{{{at},verdict=\"fixed\"}} {fixed}"))?;
    has(&body, &format!("fixer_packets_total{{{at},verdict=\"dropped\"}} 0"))?;
    // Every line is a comment, or a name with labels and a number.
    for line in body.lines().filter(|line| !line.starts_with("# ")) {
        let (name, value) = line.rsplit_once(' ').context("a value")?;
        ensure!(name.starts_with("fixer_") && value.parse::<f64>().is_ok(), "{line}");
    }
    Ok(())
}

#[test]
fn health_is_that_of_the_interfaces() -> Result<()> {
    let scene = scene()?;
    let mut fixer =
        attached(&scene.host, &["-i", BRIDGE, "--events", "none", "--attach-mode", "clsact"])?;
    let body = get(&scene.host, "/metrics")?.body;
    ensure!(body.contains("hook=\"egress\",mode=\"clsact\"} 1"), "{body}");
    let healthy = get(&scene.host, "/healthz")?;
    ensure!(healthy.is(200), "{}", healthy.head);

    link::delete(&scene.host, BRIDGE)?;
    fixer.stderr.wait("br0 is gone")?;
    let ill = get(&scene.host, "/healthz")?;
    ensure!(ill.is(503), "{}", ill.head);
    ensure!(ill.body.contains("not attached: host/br0"), "{}", ill.body);
    let body = get(&scene.host, "/metrics")?.body;
    ensure!(!body.contains("fixer_interface_attached{"), "{body}");

    link::bridge(&scene.host, BRIDGE)?;
    fixer.stderr.wait("attached to egress of br0")?;
    ensure!(get(&scene.host, "/healthz")?.is(200));
    ensure!(get(&scene.host, "/")?.is(404));
    fixer.stop(Signal::SIGTERM)?.ok()?;
    Ok(())
}
