//! The dashboard in `dist/grafana`, and what Grafana would ask Prometheus for it.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::prometheus::repository;

/// Where it is in the repository.
pub const PATH: &str = "dist/grafana/fixer.json";

/// The dashboard, as far as somebody here wants to know.
#[derive(Debug, Deserialize)]
pub struct Dashboard {
    /// The panels and the rows above them.
    pub panels: Vec<Panel>,
    templating: Templating,
}

/// A panel, or the title of a row of them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Panel {
    /// What kind of panel: `timeseries`, `stat`, `row`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its title.
    pub title: String,
    /// Its place.
    pub grid_pos: Grid,
    /// What it asks for.
    #[serde(default)]
    pub targets: Vec<Target>,
    /// How values are shown.
    #[serde(default)]
    pub field_config: FieldConfig,
}

/// A place in the grid of 24 columns.
#[derive(Clone, Copy, Debug, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Grid {
    pub x: u32,
    pub y: u32,
    pub w: u32,
    pub h: u32,
}

/// A query.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// What Prometheus is asked.
    pub expr: String,
    /// How a series is called, with its labels in braces.
    #[serde(default)]
    pub legend_format: String,
    /// Whether only the last value counts.
    #[serde(default)]
    pub instant: bool,
    /// Which data source.
    pub datasource: BTreeMap<String, String>,
}

/// How values are shown.
#[derive(Debug, Default, Deserialize)]
pub struct FieldConfig {
    /// How those of all series are.
    pub defaults: Defaults,
    overrides: Vec<Override>,
}

/// How values of all series are shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Defaults {
    /// Their unit, as Grafana calls it.
    pub unit: String,
    custom: Value,
    thresholds: Value,
}

#[derive(Debug, Deserialize)]
struct Override {
    matcher: Value,
    properties: Vec<Value>,
}

#[derive(Debug, Deserialize)]
struct Templating {
    list: Vec<Value>,
}

impl Dashboard {
    /// Reads it from the repository.
    pub fn read() -> Result<Self> {
        let text = fs::read_to_string(repository(PATH)?).context(PATH)?;
        serde_json::from_str(&text).context(PATH)
    }

    /// For each variable, an expression that gives what can be chosen.
    pub fn choices(&self) -> Result<Vec<String>> {
        let lists = self.templating.list.iter();
        let wanted = lists.filter_map(|variable| variable["query"]["query"].as_str());
        // `label_values(SERIES, LABEL)`.
        let choice = |wanted: &str| {
            let inside = wanted.strip_prefix("label_values(").and_then(|it| it.strip_suffix(')'));
            let (series, label) =
                inside.and_then(|it| it.rsplit_once(", ")).context("a variable")?;
            Ok(format!("group by ({label}) ({series})"))
        };
        wanted.map(choice).collect()
    }
}

impl FieldConfig {
    /// Whether series stand on each other.
    pub fn is_stacked(&self) -> bool {
        self.defaults.custom["stacking"]["mode"] == "normal"
    }

    /// The colour that a series has by its name, if it has one.
    pub fn colour(&self, series: &str) -> Option<&str> {
        let named = |it: &&Override| it.matcher["options"] == series;
        let colours = self.overrides.iter().find(named)?.properties.iter();
        colours.filter(|it| it["id"] == "color").find_map(|it| it["value"]["fixedColor"].as_str())
    }

    /// The colour that a value has.
    pub fn colour_of(&self, value: f64) -> Option<&str> {
        let steps = self.defaults.thresholds["steps"].as_array()?;
        let is_reached = |step: &&Value| step["value"].as_f64().is_none_or(|least| value >= least);
        steps.iter().rev().find(is_reached)?["color"].as_str()
    }
}

/// What Grafana would ask with everything selected, and ranges of so many seconds.
pub fn filled(expression: &str, [rate, range]: [u32; 2]) -> String {
    let all = || ".*".to_owned();
    let values = [
        ("$netns", all()),
        ("$interface", all()),
        ("$__rate_interval", format!("{rate}s")),
        ("$__range", format!("{range}s")),
    ];
    values.into_iter().fold(expression.to_owned(), |text, (name, value)| text.replace(name, &value))
}
