//! The table as OTLP has it.
//!
//! The SDK of OpenTelemetry is not asked to count: it would count everything a second time, it cannot
//! be given a histogram, and it throws series together when a metric has two thousand of them. So the
//! messages are filled from the table.

use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::utsname::uname;
use opentelemetry::KeyValue;
use opentelemetry_proto::{
    tonic::{
        collector::metrics::v1::ExportMetricsServiceRequest,
        common::v1::InstrumentationScope,
        metrics::v1::{
            AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
            ResourceMetrics, ScopeMetrics, Sum, metric::Data, number_data_point,
        },
        resource::v1::Resource,
    },
    transform::common::tonic::Attributes,
};
use opentelemetry_sdk::resource::{EnvResourceDetector, Resource as Described};
use prost::Message as _;

use super::table::{Family, Kind, Moment, Series, TABLE, Value};
use crate::exchange::{BOUNDS, Seconds};

const NAME: &str = "fixer";
const VERSION: &str = env!("CARGO_PKG_VERSION");
const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;

/// Who counts, and since when.
#[derive(Debug)]
pub(super) struct Origin {
    resource: Resource,
    start: u64,
}

impl Origin {
    /// This process, which starts to count now. `OTEL_RESOURCE_ATTRIBUTES` may say more about it, and
    /// has the last word.
    pub(super) fn new() -> Self {
        let host = uname().map(|names| names.nodename().to_string_lossy().into_owned());
        let host = host.unwrap_or_default();
        let known = [
            ("service.name", NAME.to_owned()),
            ("service.version", VERSION.to_owned()),
            // Without it, receivers take the counters of all hosts for one.
            ("service.instance.id", host.clone()),
            ("host.name", host),
        ];
        let described = Described::builder_empty()
            .with_attributes(known.map(|(name, value)| KeyValue::new(name, value)))
            .with_detector(Box::new(EnvResourceDetector::new()))
            .build();
        let all = described.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
        let resource = Resource { attributes: Attributes::from(all).0, ..Resource::default() };
        Self { resource, start: now() }
    }

    /// A moment as a message.
    pub(super) fn message(&self, moment: &Moment) -> Vec<u8> {
        let times = Times { start: self.start, now: now() };
        let scope = InstrumentationScope {
            name: NAME.to_owned(),
            version: VERSION.to_owned(),
            ..InstrumentationScope::default()
        };
        let of_scope = ScopeMetrics {
            scope: Some(scope),
            metrics: TABLE.iter().filter_map(|family| times.metric(family, moment)).collect(),
            ..ScopeMetrics::default()
        };
        let of_resource = ResourceMetrics {
            resource: Some(self.resource.clone()),
            scope_metrics: vec![of_scope],
            ..ResourceMetrics::default()
        };
        ExportMetricsServiceRequest { resource_metrics: vec![of_resource] }.encode_to_vec()
    }
}

/// From when to when it was counted, in nanoseconds since 1970.
#[derive(Clone, Copy)]
struct Times {
    start: u64,
    now: u64,
}

impl Times {
    /// A metric, if it has any series.
    fn metric(self, family: &Family, moment: &Moment) -> Option<Metric> {
        let series = (family.series)(moment);
        if series.is_empty() {
            return None;
        }
        let numbers = || series.iter().filter_map(|series| self.number(series)).collect();
        let data = match family.kind {
            Kind::Counter => Data::Sum(Sum {
                data_points: numbers(),
                aggregation_temporality: CUMULATIVE,
                is_monotonic: true,
            }),
            Kind::Gauge => Data::Gauge(Gauge { data_points: numbers() }),
            Kind::Histogram => Data::Histogram(Histogram {
                data_points: series.iter().filter_map(|series| self.seconds(series)).collect(),
                aggregation_temporality: CUMULATIVE,
            }),
        };
        Some(Metric {
            // Whoever translates names to those of Prometheus comes back to where this began.
            name: family.name.replace('_', "."),
            description: family.help.to_owned(),
            unit: family.unit.to_owned(),
            data: Some(data),
            ..Metric::default()
        })
    }

    fn number(self, series: &Series<'_>) -> Option<NumberDataPoint> {
        let Value::Number(value) = series.value else { return None };
        // A counter of packets does not reach the half of its range that is not to be had here.
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        Some(NumberDataPoint {
            attributes: attributes(series),
            start_time_unix_nano: self.start,
            time_unix_nano: self.now,
            value: Some(number_data_point::Value::AsInt(value)),
            ..NumberDataPoint::default()
        })
    }

    fn seconds(self, series: &Series<'_>) -> Option<HistogramDataPoint> {
        let Value::Seconds(seconds) = series.value else { return None };
        let Seconds { sum, counts } = seconds;
        Some(HistogramDataPoint {
            attributes: attributes(series),
            start_time_unix_nano: self.start,
            time_unix_nano: self.now,
            count: seconds.count(),
            sum: Some(*sum),
            bucket_counts: counts.to_vec(),
            explicit_bounds: BOUNDS.to_vec(),
            ..HistogramDataPoint::default()
        })
    }
}

fn attributes(series: &Series<'_>) -> Vec<opentelemetry_proto::tonic::common::v1::KeyValue> {
    let labels = series.labels.iter();
    Attributes::from(labels.map(|(name, value)| KeyValue::new(*name, (*value).to_owned()))).0
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
