//! Pushes the metrics to a receiver that speaks OTLP over HTTP.
//!
//! Every push has a connection of its own and says everything there is to say. So nothing is kept for
//! a receiver that does not answer, and one that comes back knows all.

use std::{convert::Infallible, fmt, str::FromStr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Request, Uri,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST, USER_AGENT},
    http::uri::{PathAndQuery, Scheme},
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

/// Where a receiver is.
#[derive(Clone, Debug)]
pub struct Endpoint {
    given: Uri,
    host: String,
    port: u16,
    path: PathAndQuery,
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, Self::Err> {
        const WANTED: &str = "write it like http://127.0.0.1:4318";
        let given: Uri = given.parse().map_err(|error| format!("{error}; {WANTED}"))?;
        if given.scheme() != Some(&Scheme::HTTP) || given.to_string().contains('@') {
            return Err(format!(
                "{WANTED}; for TLS or credentials push to a collector on this host, and let it pass \
                 them on"
            ));
        }
        let host = given.host().filter(|host| !host.is_empty()).ok_or(WANTED)?;
        let path = given.path_and_query().filter(|path| *path != "/").cloned();
        Ok(Self {
            // As a name it would be looked up.
            host: host.trim_matches(['[', ']']).to_owned(),
            port: given.port_u16().unwrap_or(80),
            path: path.unwrap_or(PathAndQuery::from_static(PATH)),
            given,
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.given.authority().map_or("", |authority| authority.as_str());
        write!(f, "http://{authority}{}", self.path)
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
        let then = format!("; it is tried again every {} seconds", self.pause.as_secs());
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
            Err(anyhow::anyhow!("it did not answer within {} seconds", patience.as_secs()))
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
        let stream = TcpStream::connect((&*self.host, self.port)).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let authority = self.given.authority().context("it was parsed with one")?;
        let request = Request::post(self.path.as_str())
            .header(HOST, authority.as_str())
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
