//! The table as OpenMetrics text.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, NoLabelSet, text::encode},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{self, Registry},
};

use super::table::{Kind, Moment, SECONDS, TABLE, Value};

/// What the text calls itself.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A moment as text.
pub(super) fn render(moment: Moment) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(moment));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

impl Collector for Moment {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for metric in &TABLE {
            let unit = (metric.unit == SECONDS).then_some(&registry::Unit::Seconds);
            let kind = match metric.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            let mut family = encoder.encode_descriptor(metric.name, metric.help, unit, kind)?;
            for series in (metric.series)(self) {
                let mut encoder = family.encode_family(&series.labels)?;
                match series.value {
                    Value::Number(count) if matches!(metric.kind, Kind::Gauge) => {
                        ConstGauge::new(count).encode(encoder)?;
                    }
                    Value::Number(count) => ConstCounter::new(count).encode(encoder)?,
                    Value::Seconds(seconds) => {
                        let (sum, count) = (seconds.sum, seconds.count());
                        let buckets: Vec<_> = seconds.buckets().collect();
                        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use fixer_common::abi::Hook;

    use super::*;
    use crate::{exchange::Ledger, metrics::Snapshot};

    #[test]
    fn every_metric_has_its_name_help_and_labels() {
        let snapshot = Snapshot {
            netns: "host".into(),
            counters: Vec::new(),
            lost: 3,
            attached: vec![("br0".into(), Hook::Egress, "tcx")],
            missing: Vec::new(),
            lacking: Vec::new(),
        };
        let text = render(Moment::new(vec![snapshot], &Ledger::default())).unwrap();
        assert!(text.contains("# TYPE fixer_packets counter\n"), "{text}");
        assert!(text.contains("# TYPE fixer_exchange_seconds histogram\n"), "{text}");
        assert!(text.contains("fixer_events_lost_total{netns=\"host\"} 3\n"), "{text}");
        let attached = "fixer_interface_attached{netns=\"host\",interface=\"br0\",hook=\"egress\",mode=\"tcx\"} 1\n";
        assert!(text.contains(attached), "{text}");
        let forgotten = "fixer_exchanges_forgotten_total{netns=\"host\"} 0\n";
        assert!(text.contains(forgotten), "{text}");
        assert!(text.contains("fixer_build_info{version=\""), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
        for line in text.lines().filter(|line| line.starts_with("# TYPE ")) {
            let name = line.split(' ').nth(2).unwrap();
            assert!(text.contains(&format!("# HELP {name} ")), "{name} has no help");
        }
    }
}
