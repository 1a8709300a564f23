//! What is served over HTTP.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use anyhow::{Context as _, Result, ensure};
use fixer_tests::command::{PATIENCE, attached};
use fixer_user::{
    lab::{link, scene::BRIDGE},
    metrics::kernel,
    net::netns::NetNs,
};
use nix::sys::signal::Signal;

use crate::{Stage, scene};

/// Where metrics are served by default.
const PLACE: ([u8; 4], u16) = ([127, 0, 0, 1], 9767);

/// A response.
pub struct Response {
    /// The status line and the headers.
    head: String,
    /// What was asked for.
    pub body: String,
}

/// Asks the fixer that runs in a namespace.
pub fn get(netns: &NetNs, path: &str) -> Result<Response> {
    let answer = netns.run(|| -> Result<String> {
        let mut stream = TcpStream::connect(SocketAddr::from(PLACE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: fixer\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })??;
    let (head, body) = answer.split_once("\r\n\r\n").context("no end of the headers")?;
    Ok(Response { head: head.to_ascii_lowercase(), body: body.to_owned() })
}

/// Whether every interface that was selected is attached, as the run itself says.
pub fn is_healthy(scene: &fixer_user::lab::scene::Scene) -> Result<bool> {
    Ok(get(&scene.host, "/healthz")?.head.starts_with("http/1.1 200 "))
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
    let Response { head, body } = get(&stage.scene.host, "/metrics")?;
    ensure!(head.starts_with("http/1.1 200 "), "{head}");
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
    ensure!(healthy.head.starts_with("http/1.1 200 "), "{}", healthy.head);

    link::delete(&scene.host, BRIDGE)?;
    fixer.stderr.wait("br0 is gone")?;
    let ill = get(&scene.host, "/healthz")?;
    ensure!(ill.head.starts_with("http/1.1 503 "), "{}", ill.head);
    ensure!(ill.body.contains("not attached: host/br0"), "{}", ill.body);
    let body = get(&scene.host, "/metrics")?.body;
    ensure!(!body.contains("fixer_interface_attached{"), "{body}");

    link::bridge(&scene.host, BRIDGE)?;
    fixer.stderr.wait("attached to egress of br0")?;
    ensure!(get(&scene.host, "/healthz")?.head.starts_with("http/1.1 200 "));
    ensure!(get(&scene.host, "/")?.head.starts_with("http/1.1 404 "));
    fixer.stop(Signal::SIGTERM)?.ok()?;
    Ok(())
}
