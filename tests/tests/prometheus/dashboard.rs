//! The dashboard in `dist/grafana`: every query is one that Prometheus answers with what fixer serves.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use fixer_tests::{
    command::PATIENCE,
    dashboard::{self, Dashboard, Panel, filled},
    kernel::require_root,
    prometheus::{Prometheus, number},
};
use fixer_user::lab::{
    scene::{Dnsmasq, GUEST, Scene},
    strict,
};

use crate::{Watched, families, read, rules};

/// The client's hardware address.
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x77];

/// The ranges that expressions are about, in seconds: such that a test can wait for.
const RANGES: [u32; 2] = [15, 15];

/// A query of a panel.
#[derive(Debug)]
struct Query {
    panel: String,
    expression: String,
}

fn queries(dashboard: &Dashboard) -> Result<Vec<Query>> {
    let mut queries = Vec::new();
    let mut ask = |panel: &str, expression: &str| {
        queries.push(Query { panel: panel.to_owned(), expression: filled(expression, RANGES) });
    };
    for Panel { title, kind, targets, .. } in &dashboard.panels {
        ensure!(!targets.is_empty() || kind == "row", "{title} asks for nothing");
        for target in targets {
            ensure!(target.datasource["uid"] == "${datasource}", "{title} has its own source");
            ask(title, &target.expr);
        }
    }
    dashboard.choices()?.iter().for_each(|choice| ask("a variable", choice));
    Ok(queries)
}

/// The names of metrics in a text.
fn names(text: &str) -> BTreeSet<&str> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = text.split(|letter: char| !is_part(letter));
    words.filter(|word| word.starts_with("fixer_")).collect()
}

/// The names that the series of a family have.
fn series(family: &str, kind: &str) -> Vec<String> {
    let suffixes: &[&str] = match kind {
        "counter" => &["_total"],
        "histogram" => &["_bucket", "_sum", "_count"],
        _ => &[""],
    };
    suffixes.iter().map(|suffix| format!("{family}{suffix}")).collect()
}

/// The names that fixer exports.
fn exported(exposition: &str) -> Result<BTreeSet<String>> {
    let families = families(exposition)?;
    Ok(families.iter().flat_map(|(family, (kind, _))| series(family, kind)).collect())
}

/// Whether there is something to be drawn.
fn has_data(prometheus: &Prometheus, query: &Query) -> Result<bool> {
    let found = prometheus.query(&query.expression).with_context(|| query.panel.clone())?;
    Ok(found.iter().any(|series| number(series).is_ok_and(|value| !value.is_nan())))
}

#[test]
fn every_panel_has_something_to_show() -> Result<()> {
    require_root()?;
    let mut queries = queries(&Dashboard::read()?)?;
    ensure!(queries.len() > 15, "{queries:#?}");

    let scene = Scene::new()?;
    let _dnsmasq = Dnsmasq::start(&scene)?;
    let watched = Watched::start(scene, &["--events", "json", "--all", "--hook", "both"])?;
    let deadline = Instant::now() + PATIENCE * 2;
    while !queries.is_empty() {
        ensure!(Instant::now() < deadline, "nothing came for {queries:#?}");
        // A rate needs news between one scrape and the next.
        let asked = strict::ask(&watched.scene.guest, GUEST, MAC, Duration::from_secs(5))?;
        ensure!(asked.lease.is_some(), "{asked:?}");
        let mut left = Vec::new();
        for query in queries {
            if !has_data(&watched.prometheus, &query)? {
                left.push(query);
            }
        }
        queries = left;
    }
    watched.end()
}

#[test]
fn every_name_is_one_that_fixer_exports() -> Result<()> {
    require_root()?;
    let watched = Watched::start(Scene::new()?, &["--events", "none"])?;
    let known = exported(&watched.exposition()?)?;
    for (place, text) in [(dashboard::PATH, read(dashboard::PATH)?), ("the rules", rules::text()?)]
    {
        let named = names(&text);
        ensure!(named.contains("fixer_packets_total"), "{place}: {named:?}");
        let unknown: Vec<_> = named.into_iter().filter(|name| !known.contains(*name)).collect();
        ensure!(unknown.is_empty(), "{place} names {unknown:?}; there are {known:#?}");
    }
    watched.end()
}
