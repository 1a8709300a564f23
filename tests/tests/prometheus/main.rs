//! A real Prometheus scrapes `fixer run`: what it then knows, and what our rules and our dashboard
//! make of it.

mod dashboard;
mod otlp;
mod rules;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use fixer_tests::{
    command::{Running, attached},
    http::{self, METRICS},
    kernel::require_root,
    prometheus::{Prometheus, number, repository},
};
use fixer_user::lab::{
    link,
    packet::PacketSocket,
    reply::{self, PARTIAL},
    scene::{BRIDGE, Scene},
};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Another bridge, beside the scene's.
const OTHER: &str = "br1";

/// How many replies leave an interface: partial, valid and corrupt ones.
const SENT: [(&str, [usize; 3]); 2] = [(BRIDGE, [5, 3, 2]), (OTHER, [4, 1, 0])];

/// A fixer and a Prometheus that scrapes it.
struct Watched {
    scene: Scene,
    fixer: Running,
    prometheus: Prometheus,
}

impl Watched {
    fn start(scene: Scene, arguments: &[&str]) -> Result<Self> {
        let fixer = attached(&scene.host, &[&["-i", BRIDGE], arguments].concat())?;
        let prometheus = Prometheus::start(&scene.host, &rules::text()?)?;
        prometheus.wait("up == 1", |found| found.len() == 1)?;
        Ok(Self { scene, fixer, prometheus })
    }

    /// What fixer says to whoever scrapes it.
    fn exposition(&self) -> Result<String> {
        Ok(http::get(&self.scene.host, METRICS, "/metrics")?.body)
    }

    /// Prometheus has found nothing to complain about, and fixer ends well.
    fn end(self) -> Result<()> {
        let targets = self.prometheus.api("targets")?;
        let target = &targets["activeTargets"][0];
        ensure!(target["health"] == "up" && target["lastError"] == "", "{target:#}");
        let said = self.prometheus.said();
        ensure!(said.iter().any(|line| line.contains("level=info")), "it has no log: {said:?}");
        let is_bad = |line: &&String| !line.contains("level=info");
        let bad: Vec<_> = said.iter().filter(is_bad).collect();
        ensure!(bad.is_empty(), "{bad:#?}");
        self.fixer.stop(Signal::SIGTERM)?.ok()?;
        Ok(())
    }
}

/// A scene with two bridges.
fn scene() -> Result<Scene> {
    require_root()?;
    let scene = Scene::new().context("the scene cannot be made")?;
    link::bridge(&scene.host, OTHER)?;
    Ok(scene)
}

/// Sends what [`SENT`] says.
fn send(scene: &Scene) -> Result<()> {
    let valid = reply::frame(&[7; 300]);
    let (mut partial, mut corrupt) = (valid.clone(), valid.clone());
    reply::make_partial(&mut partial);
    corrupt[reply::CHECKSUM_AT] ^= 0x55;
    for (interface, counts) in SENT {
        let sender = PacketSocket::open(&scene.host, interface)?;
        let kinds = [(&partial, Some(PARTIAL)), (&valid, None), (&corrupt, None)];
        for ((frame, state), count) in kinds.into_iter().zip(counts) {
            for _ in 0..count {
                sender.send(frame, state)?;
            }
        }
    }
    Ok(())
}

/// The values of series by a label, without those that are 0.
fn by(label: &str, found: &[Value]) -> Result<BTreeMap<String, usize>> {
    let mut values = BTreeMap::new();
    for series in found {
        let name = series["metric"][label].as_str().with_context(|| format!("{series}"))?;
        let value = number(series)?;
        if value != 0.0 {
            values.insert(name.to_owned(), value as usize);
        }
    }
    Ok(values)
}

/// Every family of metrics that fixer exports, with its type and its help.
fn families(exposition: &str) -> Result<BTreeMap<&str, (&str, &str)>> {
    let mut families = BTreeMap::new();
    for line in exposition.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|it| it.split_once(' ')) {
            families.insert(name, ("", help));
        } else if let Some(about) = line.strip_prefix("# TYPE ") {
            let (name, kind) = about.split_once(' ').context("a type")?;
            families.get_mut(name).with_context(|| format!("{name} has no help"))?.0 = kind;
        }
    }
    Ok(families)
}

#[test]
fn the_sums_are_right() -> Result<()> {
    for (arguments, becomes) in [(&[][..], "fixed"), (&["--observe-only"][..], "partial")] {
        let arguments = [&["-i", OTHER, "--events", "none"], arguments].concat();
        let watched = Watched::start(scene()?, &arguments)?;
        send(&watched.scene)?;
        let all: usize = SENT.iter().flat_map(|(_, counts)| counts).sum();
        let prometheus = &watched.prometheus;
        prometheus.wait(&format!("sum(fixer_packets_total) >= {all}"), |found| found.len() == 1)?;

        let verdicts = by("verdict", &prometheus.query("sum by (verdict)(fixer_packets_total)")?)?;
        let sum = |kind: usize| SENT.iter().map(|(_, counts)| counts[kind]).sum::<usize>();
        let expected = [becomes, "valid", "corrupt"].map(str::to_owned).into_iter();
        ensure!(verdicts == expected.zip([0, 1, 2].map(sum)).collect(), "{verdicts:?}");
        let there = prometheus.query("sum by (interface)(fixer_packets_total{hook='egress'})")?;
        let there = by("interface", &there)?;
        let expected = SENT.map(|(interface, counts)| (interface.to_owned(), counts.iter().sum()));
        ensure!(there == expected.into(), "{there:?}");
        let attached = prometheus.query("fixer_interface_attached{netns='host'} == 1")?;
        ensure!(attached.len() == 2, "{attached:?}");
        let lost = by("netns", &prometheus.query("fixer_events_lost_total")?)?;
        ensure!(lost.is_empty(), "{lost:?}");
        watched.end()?;
    }
    Ok(())
}

#[test]
fn nothing_is_lost_between_fixer_and_prometheus() -> Result<()> {
    let watched = Watched::start(scene()?, &["-i", OTHER, "--events", "none"])?;
    send(&watched.scene)?;
    watched.prometheus.wait("fixer_packets_total", |found| !found.is_empty())?;
    let exposition = watched.exposition()?;
    let samples = exposition.lines().filter(|line| !line.starts_with('#')).count() as f64;
    for name in ["scrape_samples_scraped", "scrape_samples_post_metric_relabeling"] {
        watched.prometheus.wait(&format!("{name} == {samples}"), |found| found.len() == 1)?;
    }
    let metadata = watched.prometheus.api("metadata")?;
    let families = families(&exposition)?;
    ensure!(families.len() >= 4, "{families:?}");
    for (name, (kind, help)) in families {
        let known = &metadata[name][0];
        ensure!(known["type"] == kind && known["help"] == help, "{name}: {known}, and not {help}");
        ensure!(help.len() > 20, "{name} has hardly any help: {help}");
    }
    watched.end()
}

/// A file of the repository.
fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(repository(path)?).with_context(|| path.to_owned())
}
