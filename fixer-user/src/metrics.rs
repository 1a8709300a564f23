//! Counters and attachments as OpenMetrics, over HTTP.
//!
//! Nothing in a label comes from a packet, so there are never more series than interfaces and
//! verdicts make.

mod conversation;
mod server;

use std::{convert::Infallible, fmt, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use fixer_common::abi::Hook;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, text::encode},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
};

use conversation::Conversation;

use crate::{bpf::counters::Row, exchange::Ledger};

/// What OpenMetrics text calls itself.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What one namespace looks like at the moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its label.
    pub netns: Arc<str>,
    /// The counters of its interfaces.
    pub counters: Vec<(Arc<str>, Row)>,
    /// Events that were lost.
    pub lost: u64,
    /// Where the programs are attached, and how.
    pub attached: Vec<(Arc<str>, Hook, &'static str)>,
    /// The interfaces that were named and are not attached.
    pub missing: Vec<String>,
}

/// Asks whoever holds the counters for a snapshot of every namespace.
pub type Ask = mpsc::Sender<oneshot::Sender<Vec<Snapshot>>>;

/// Serves `/metrics` and `/healthz` for as long as it is polled.
pub async fn serve(listener: TcpListener, ask: Ask, ledger: Ledger) -> Infallible {
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .with_state((ask, ledger));
    server::serve(listener, routes).await
}

async fn snapshots(ask: &Ask) -> Option<Vec<Snapshot>> {
    let (answer, snapshots) = oneshot::channel();
    ask.send(answer).await.ok()?;
    snapshots.await.ok()
}

async fn metrics(State((ask, ledger)): State<(Ask, Ledger)>) -> Response {
    let Some(snapshots) = snapshots(&ask).await else {
        return (StatusCode::SERVICE_UNAVAILABLE, "fixer is stopping\n").into_response();
    };
    match render(snapshots, ledger) {
        Ok(text) => ([(CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(fmt::Error) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn healthz(State((ask, _)): State<(Ask, Ledger)>) -> Response {
    let Some(snapshots) = snapshots(&ask).await else {
        return (StatusCode::SERVICE_UNAVAILABLE, "fixer is stopping\n").into_response();
    };
    let missing: Vec<String> = snapshots
        .iter()
        .flat_map(|snapshot| {
            snapshot.missing.iter().map(|name| format!("{}/{name}", snapshot.netns))
        })
        .collect();
    if missing.is_empty() {
        "every selected interface is attached\n".into_response()
    } else {
        let text = format!("not attached: {}\n", missing.join(", "));
        (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
    }
}

/// The snapshots, and what the stream has counted, as OpenMetrics text.
fn render(snapshots: Vec<Snapshot>, ledger: Ledger) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    let namespaces = snapshots.iter().map(|snapshot| Arc::clone(&snapshot.netns)).collect();
    registry.register_collector(Box::new(Conversation { ledger, namespaces }));
    registry.register_collector(Box::new(Exported(snapshots)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Exported(Vec<Snapshot>);

impl Collector for Exported {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        use prometheus_client::metrics::MetricType::{Counter, Gauge};

        let help = "Packets that a rule matched, by what became of them";
        let mut family = encoder.encode_descriptor("fixer_packets", help, None, Counter)?;
        for Snapshot { netns, counters, .. } in &self.0 {
            for (interface, row) in counters {
                for (verdict, count) in row.counts() {
                    let labels = [
                        ("netns", &**netns),
                        ("interface", interface),
                        ("hook", row.hook.name()),
                        ("verdict", verdict.name()),
                    ];
                    ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
                }
            }
        }
        let help =
            "Events that nobody took in time and were not shown; the counters are not affected";
        let mut family = encoder.encode_descriptor("fixer_events_lost", help, None, Counter)?;
        for Snapshot { netns, lost, .. } in &self.0 {
            let labels = [("netns", &**netns)];
            ConstCounter::new(*lost).encode(family.encode_family(&labels)?)?;
        }
        let help = "Where the programs are attached, and how";
        let mut family =
            encoder.encode_descriptor("fixer_interface_attached", help, None, Gauge)?;
        for Snapshot { netns, attached, .. } in &self.0 {
            for (interface, hook, mode) in attached {
                let labels = [
                    ("netns", &**netns),
                    ("interface", interface),
                    ("hook", hook.name()),
                    ("mode", mode),
                ];
                ConstGauge::new(1_i64).encode(family.encode_family(&labels)?)?;
            }
        }
        let help = "The version of fixer and of the kernel that it runs on";
        let mut family = encoder.encode_descriptor("fixer_build_info", help, None, Gauge)?;
        let kernel = kernel();
        let labels = [("version", env!("CARGO_PKG_VERSION")), ("kernel", &kernel)];
        ConstGauge::new(1_i64).encode(family.encode_family(&labels)?)
    }
}

/// The release of the running kernel, as in `uname -r`.
pub fn kernel() -> String {
    nix::sys::utsname::uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_its_name_help_and_labels() {
        let snapshot = Snapshot {
            netns: "host".into(),
            counters: Vec::new(),
            lost: 3,
            attached: vec![("br0".into(), Hook::Egress, "tcx")],
            missing: Vec::new(),
        };
        let text = render(vec![snapshot], Ledger::default()).unwrap();
        assert!(text.contains("# TYPE fixer_packets counter\n"), "{text}");
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
