//! Pushes the metrics to a receiver that speaks OTLP over HTTP.
//!
//! Every push has a connection of its own and says everything there is to say. So nothing is kept for
//! a receiver that does not answer, and one that comes back knows all.

use std::{convert::Infallible, fmt, str::FromStr, time::Duration};

use anyhow::{Result, anyhow, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Request, Uri,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST, USER_AGENT},
    http::uri::{Authority, PathAndQuery, Scheme},
};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message as _;
use tokio::{
    net::TcpStream,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{Ask, Snapshot, otlp::Origin, snapshots, table::Moment};
use crate::{event::printable, exchange::Ledger, say::say};

/// How long a push may take, from the look-up of the name to the last byte of the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The same for the last one, which the end waits for.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// How much of an answer is read, in bytes.
const LONGEST: usize = 64 * 1024;

/// Where receivers listen unless they say otherwise.
const PATH: &str = "/v1/metrics";

/// Where a receiver is: an address of HTTP, with a path.
#[derive(Clone, Debug)]
pub struct Endpoint(Uri);

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, Self::Err> {
        const WANTED: &str = "write it like http://127.0.0.1:4318";
        let given: Uri = given.parse().map_err(|error| format!("{error}; {WANTED}"))?;
        let authority = given.authority().map_or("", Authority::as_str);
        if given.scheme() != Some(&Scheme::HTTP) || authority.contains('@') {
            return Err(format!(
                "{WANTED}; for TLS or credentials push to a collector on this host, and let it pass \
                 them on"
            ));
        }
        if given.host().is_none_or(str::is_empty) {
            return Err(WANTED.to_owned());
        }
        if given.path_and_query().is_some_and(|path| path != "/") {
            return Ok(Self(given));
        }
        let mut parts = given.into_parts();
        parts.path_and_query = Some(PathAndQuery::from_static(PATH));
        Uri::from_parts(parts).map(Self).map_err(|error| error.to_string())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Pushes, again and again.
#[derive(Debug)]
pub struct Push {
    endpoint: Endpoint,
    pause: Duration,
    origin: Origin,
    /// Whether the last one failed: then it has been said.
    is_failing: bool,
}

impl Push {
    /// Nothing is pushed yet; what is pushed is counted from now on.
    pub fn new(endpoint: &Endpoint, pause: Duration) -> Self {
        Self { endpoint: endpoint.clone(), pause, origin: Origin::new(), is_failing: false }
    }

    /// Pushes at once, and then after every pause, for as long as it is polled.
    pub(super) async fn live(&mut self, ask: Ask, ledger: Ledger) -> Infallible {
        let mut turn = interval(self.pause);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let then = format!("; it is tried again every {} s", self.pause.as_secs());
        loop {
            turn.tick().await;
            if let Some(snapshots) = snapshots(&ask).await {
                self.push(&Moment::new(snapshots, &ledger), PATIENCE, &then).await;
            }
        }
    }

    /// Pushes what has been counted in the end.
    pub(super) async fn last(&mut self, snapshots: Vec<Snapshot>, ledger: &Ledger) {
        self.push(&Moment::new(snapshots, ledger), LAST_PATIENCE, "").await;
    }

    /// Pushes, and says when it begins to fail, and when it does not fail any more.
    async fn push(&mut self, moment: &Moment, patience: Duration, then: &str) {
        let endpoint = &self.endpoint;
        let sent = timeout(patience, endpoint.send(self.origin.message(moment))).await;
        let outcome = sent.unwrap_or_else(|_| {
            let patience = patience.as_secs();
            Err(anyhow!(
                "no answer within {patience} s (does a firewall, or its unit, keep fixer away?)"
            ))
        });
        let was_failing = std::mem::replace(&mut self.is_failing, outcome.is_err());
        match outcome {
            Err(error) if !was_failing => {
                say(format_args!("cannot push metrics to {endpoint}: {error:#}{then}"));
            }
            Ok(()) if was_failing => {
                say(format_args!("metrics are pushed to {endpoint} again"));
            }
            _ => {}
        }
    }
}

impl Endpoint {
    /// Sends a message, and reads the answer.
    async fn send(&self, message: Vec<u8>) -> Result<()> {
        let Self(uri) = self;
        // In brackets an address would be looked up like a name.
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(80))).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::post(uri.path_and_query().map_or(PATH, PathAndQuery::as_str))
            .header(HOST, uri.authority().map_or("", Authority::as_str))
            .header(USER_AGENT, concat!("fixer/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/x-protobuf")
            .body(Full::<Bytes>::from(message))?;
        let answer = async move {
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            ensure!(status.is_success(), "it answers {status}");
            let body = Limited::new(answer.into_body(), LONGEST).collect().await;
            understood(body.map_err(anyhow::Error::from_boxed)?.to_bytes())
        };
        // The connection goes on as long as somebody may still send or read.
        let (answer, _) = tokio::join!(answer, connection);
        answer
    }
}

/// Whether the receiver took everything.
fn understood(answer: Bytes) -> Result<()> {
    // Some answer with something else: they took it all the same.
    let answer = ExportMetricsServiceResponse::decode(answer).unwrap_or_default();
    let refused = answer.partial_success.unwrap_or_default();
    ensure!(
        refused.rejected_data_points == 0,
        "it refuses {} values: {}",
        refused.rejected_data_points,
        printable(refused.error_message.as_bytes())
    );
    Ok(())
}
