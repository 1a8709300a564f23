//! Counters and attachments, for whoever asks over HTTP (OpenMetrics), and pushed to a receiver (OTLP).
//!
//! Nothing in a label comes from a packet, so there are never more series than interfaces and
//! verdicts make.

mod openmetrics;
#[cfg(feature = "otlp")]
mod otlp;
#[cfg(feature = "otlp")]
mod push;
#[cfg(not(feature = "otlp"))]
#[path = "metrics/without_push.rs"]
mod push;
mod server;
mod table;

use std::{convert::Infallible, fmt, future::pending, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use fixer_common::abi::Hook;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
};

pub use push::{Endpoint, Push};
use table::Moment;

use crate::{bpf::counters::Row, exchange::Ledger};

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
    /// The interfaces that were named and are not there.
    pub missing: Vec<String>,
    /// The interfaces that are selected, however, and are not attached.
    pub lacking: Vec<Arc<str>>,
}

/// Asks whoever holds the counters for a snapshot of every namespace.
pub type Ask = mpsc::Sender<oneshot::Sender<Vec<Snapshot>>>;

/// The ways on which metrics leave.
pub struct Exports {
    /// Where whoever asks is answered.
    pub listener: Option<TcpListener>,
    /// Who tells a receiver unasked.
    pub push: Option<Push>,
}

impl Exports {
    /// Exports for as long as it is polled.
    pub async fn live(&mut self, ask: Ask, ledger: Ledger) -> Infallible {
        let pushed = async {
            match &mut self.push {
                Some(push) => push.live(ask.clone(), ledger.clone()).await,
                None => pending().await,
            }
        };
        let served = async {
            match self.listener.take() {
                Some(listener) => serve(listener, ask.clone(), ledger.clone()).await,
                None => pending().await,
            }
        };
        tokio::select! {
            never = pushed => never,
            never = served => never,
        }
    }

    /// Tells what has been counted in the end to who would not ask any more.
    pub async fn finish(&mut self, snapshots: Vec<Snapshot>, ledger: &Ledger) {
        if let Some(push) = &mut self.push {
            push.last(snapshots, ledger).await;
        }
    }
}

/// Serves `/metrics` and `/healthz` for as long as it is polled.
async fn serve(listener: TcpListener, ask: Ask, ledger: Ledger) -> Infallible {
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
    match openmetrics::render(Moment::new(snapshots, &ledger)) {
        Ok(text) => ([(CONTENT_TYPE, openmetrics::CONTENT_TYPE)], text).into_response(),
        Err(fmt::Error) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn healthz(State((ask, _)): State<(Ask, Ledger)>) -> Response {
    let Some(snapshots) = snapshots(&ask).await else {
        return (StatusCode::SERVICE_UNAVAILABLE, "fixer is stopping\n").into_response();
    };
    let lacking = snapshots.iter().flat_map(|Snapshot { netns, missing, lacking, .. }| {
        let names = missing.iter().map(String::as_str).chain(lacking.iter().map(|name| &**name));
        names.map(move |name| format!("{netns}/{name}"))
    });
    let lacking: Vec<_> = lacking.collect();
    if lacking.is_empty() {
        "every selected interface is attached\n".into_response()
    } else {
        let text = format!("not attached: {}\n", lacking.join(", "));
        (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
    }
}

/// The release of the running kernel, as in `uname -r`.
pub fn kernel() -> String {
    nix::sys::utsname::uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_default()
}
