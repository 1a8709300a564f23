//! The dashboard in `dist/grafana`: every query is one that Prometheus answers with what fixer serves.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use fixer_tests::{
    command::PATIENCE,
    kernel::require_root,
    prometheus::{Prometheus, number},
};
use fixer_user::lab::{
    scene::{Dnsmasq, GUEST, Scene},
    strict,
};
use serde_json::Value;

use crate::{Watched, families, read, rules};

const DASHBOARD: &str = "dist/grafana/fixer.json";

/// The client's hardware address.
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x77];

/// Families about the conversation of clients and servers, all of which a fixer has or none.
const CONVERSATION: [&str; 4] = [
    "fixer_dhcp_messages",
    "fixer_exchanges",
    "fixer_exchange_seconds",
    "fixer_exchanges_forgotten",
];

/// A query of a panel.
#[derive(Debug)]
struct Query {
    panel: String,
    expression: String,
}

/// What Grafana would ask with everything selected, and a range that a test can wait for.
fn filled(expression: &str) -> String {
    [("$netns", ".*"), ("$interface", ".*"), ("$__rate_interval", "15s"), ("$__range", "15s")]
        .into_iter()
        .fold(expression.to_owned(), |text, (name, value)| text.replace(name, value))
}

fn queries(dashboard: &Value) -> Result<Vec<Query>> {
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().context("no panels")? {
        let title = panel["title"].as_str().context("a panel has no title")?;
        let targets = panel["targets"].as_array().map(Vec::as_slice).unwrap_or_default();
        ensure!(!targets.is_empty() || panel["type"] == "row", "{title} asks for nothing");
        for target in targets {
            let expression = target["expr"].as_str().context("a target has no expression")?;
            ensure!(target["datasource"]["uid"] == "${datasource}", "{title} has its own source");
            queries.push(Query { panel: title.to_owned(), expression: filled(expression) });
        }
    }
    // What can be chosen: `label_values(SERIES, LABEL)`.
    for variable in dashboard["templating"]["list"].as_array().context("no variables")? {
        let Some(wanted) = variable["query"]["query"].as_str() else { continue };
        let inside = wanted.strip_prefix("label_values(").and_then(|it| it.strip_suffix(')'));
        let (series, label) = inside.and_then(|it| it.rsplit_once(", ")).context("a variable")?;
        queries.push(Query {
            panel: format!("the variable {}", variable["name"]),
            expression: filled(&format!("group by ({label}) ({series})")),
        });
    }
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

/// The names that fixer exports, and those that belong to a conversation it does not follow.
fn exported(exposition: &str) -> Result<[BTreeSet<String>; 2]> {
    let families = families(exposition)?;
    let names = families.iter().flat_map(|(family, (kind, _))| series(family, kind));
    let lacking: Vec<_> =
        CONVERSATION.into_iter().filter(|family| !families.contains_key(family)).collect();
    ensure!(lacking.is_empty() || lacking == CONVERSATION, "only {lacking:?} are not exported");
    let kinds = ["counter", "histogram"];
    let absent = lacking.into_iter().flat_map(|name| kinds.map(|kind| series(name, kind)));
    Ok([names.collect(), absent.flatten().collect()])
}

/// Whether there is something to be drawn.
fn has_data(prometheus: &Prometheus, query: &Query) -> Result<bool> {
    let found = prometheus.query(&query.expression).with_context(|| query.panel.clone())?;
    Ok(found.iter().any(|series| number(series).is_ok_and(|value| !value.is_nan())))
}

#[test]
fn every_panel_has_something_to_show() -> Result<()> {
    require_root()?;
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)?)?;
    let mut queries = queries(&dashboard)?;
    ensure!(queries.len() > 15, "{queries:#?}");

    let scene = Scene::new()?;
    let _dnsmasq = Dnsmasq::start(&scene)?;
    let watched = Watched::start(scene, &["--events", "json", "--all", "--hook", "both"])?;
    let [_, absent] = exported(&watched.exposition()?)?;
    let is_asked = |query: &Query| !names(&query.expression).iter().any(|it| absent.contains(*it));
    queries.retain(is_asked);
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
    let [known, absent] = exported(&watched.exposition()?)?;
    for (place, text) in [(DASHBOARD, read(DASHBOARD)?), ("the rules", rules::text()?)] {
        let named = names(&text);
        ensure!(named.contains("fixer_packets_total"), "{place}: {named:?}");
        let unknown: Vec<_> = named
            .into_iter()
            .filter(|name| !known.contains(*name) && !absent.contains(*name))
            .collect();
        ensure!(unknown.is_empty(), "{place} names {unknown:?}; there are {known:#?}");
    }
    watched.end()
}
