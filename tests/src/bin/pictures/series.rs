//! What Prometheus answers to a query of a panel.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use fixer_tests::{
    dashboard::{Target, filled},
    prometheus::Prometheus,
};
use serde_json::Value;

/// The range that rates are about, in seconds: ten scrapes.
const RATE: u32 = 10;

/// A series, with a name as the legend has it.
#[derive(Debug)]
pub struct Series {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    /// Seconds since 1970 and values; where there is none, it is no number.
    pub points: Vec<[f64; 2]>,
}

impl Series {
    /// What a target gives in the last seconds.
    pub fn ask(prometheus: &Prometheus, target: &Target, seconds: u32) -> Result<Vec<Self>> {
        let expression = filled(&target.expr, [RATE, seconds]);
        let found = match target.instant {
            true => prometheus.query(&expression)?,
            false => prometheus.range(&expression, seconds)?,
        };
        found.iter().map(|series| Self::of(series, &target.legend_format)).collect()
    }

    fn of(series: &Value, legend: &str) -> Result<Self> {
        let labels: BTreeMap<String, String> = serde_json::from_value(series["metric"].clone())?;
        let name = labels.iter().fold(legend.to_owned(), |name, (label, value)| {
            name.replace(&format!("{{{{{label}}}}}"), value)
        });
        let values = series["values"].as_array().cloned();
        let values = values.unwrap_or_else(|| vec![series["value"].clone()]);
        let point = |value: &Value| {
            let time = value[0].as_f64().context("no time")?;
            Ok([time, value[1].as_str().context("no value")?.parse()?])
        };
        let points = values.iter().map(point).collect::<Result<_>>()?;
        Ok(Self { name, labels, points })
    }

    /// The points that have a value, in pieces without a gap.
    pub fn pieces(&self) -> impl Iterator<Item = Vec<(f64, f64)>> {
        let pieces = self.points.split(|[_, value]| value.is_nan());
        let pairs =
            |piece: &[[f64; 2]]| piece.iter().map(|[time, value]| (*time, *value)).collect();
        pieces.filter(|piece| !piece.is_empty()).map(pairs)
    }

    fn values(&self) -> impl DoubleEndedIterator<Item = f64> {
        self.points.iter().map(|[_, value]| *value).filter(|value| !value.is_nan())
    }

    pub fn last(&self) -> Option<f64> {
        self.values().next_back()
    }

    pub fn max(&self) -> Option<f64> {
        self.values().reduce(f64::max)
    }
}
