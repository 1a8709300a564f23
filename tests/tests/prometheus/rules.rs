//! The rules in `dist/prometheus`: by promtool, and by Prometheus on what fixer serves.

use anyhow::{Result, ensure};
use fixer_tests::{
    command::{Ended, Running, program},
    prometheus::{find, repository},
};
use fixer_user::net::netns::NetNs;

use crate::{OTHER, Watched, scene, send};

/// The rules as they are in the repository.
pub fn text() -> Result<String> {
    crate::read("dist/prometheus/fixer.rules.yml")
}

/// Lets promtool look at a file of `dist/prometheus`.
fn promtool(action: &str, file: &str) -> Result<Ended> {
    let promtool = find("promtool")?.display().to_string();
    let file = repository("dist/prometheus")?.join(file).display().to_string();
    Running::start(&NetNs::current()?, program(&promtool, &[action, "rules", &file]))?.end()
}

#[test]
fn promtool_finds_no_fault() -> Result<()> {
    let ended = promtool("check", "fixer.rules.yml")?.ok()?;
    ensure!(ended.stdout.iter().any(|line| line.contains("rules found")), "{ended:?}");
    promtool("test", "fixer.rules.test.yml")?.ok()?;
    Ok(())
}

#[test]
fn every_rule_can_be_evaluated_and_tells_the_operator_what_to_do() -> Result<()> {
    let arguments = ["-i", OTHER, "--events", "none", "--observe-only"];
    let watched = Watched::start(scene()?, &arguments)?;
    send(&watched.scene)?;
    let prometheus = &watched.prometheus;
    for alert in ["FixerChecksumsPartial", "FixerChecksumsCorrupt"] {
        let expression = format!("ALERTS{{alertname='{alert}',alertstate='firing'}}");
        prometheus.wait(&expression, |found| !found.is_empty())?;
    }
    let rules = prometheus.api("rules")?;
    let groups = rules["groups"].as_array().into_iter().flatten();
    let rules: Vec<_> = groups.flat_map(|group| group["rules"].as_array()).flatten().collect();
    ensure!(rules.len() > 8, "{rules:#?}");
    for rule in rules {
        ensure!(rule["health"] == "ok" && rule["lastError"].is_null(), "{rule:#}");
        let is_alert = rule["type"] == "alerting";
        let words = rule["annotations"]["description"].as_str().unwrap_or_default().len();
        ensure!(!is_alert || words > 100, "{rule:#}");
        for alert in rule["alerts"].as_array().into_iter().flatten() {
            let annotations = alert["annotations"].to_string();
            ensure!(!annotations.contains("<error"), "{annotations}");
            ensure!(annotations.contains("(host)"), "{annotations}");
        }
    }
    watched.end()
}
