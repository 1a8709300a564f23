//! A real receiver of OTLP, in a sandbox: VictoriaMetrics, which gives names as Prometheus has them and
//! answers queries as Prometheus does. Debian's Prometheus is built without OTLP.
//!
//! `cargo xtask test` takes it out of Debian's package. What it was told is gone with it.

use std::process::Command;

use anyhow::{Result, ensure};
use fixer_user::net::netns::NetNs;

use crate::prometheus::{Prometheus, Server, repository};

/// Where it is, from the root of the repository.
const PROGRAM: &str = "target/receiver/victoria-metrics";

/// It listens on every address.
const PORT: u16 = 8428;
const SERVER: Server =
    Server { place: ([127, 0, 0, 1], PORT), refresh: Some("/internal/force_flush") };

/// Where it is told something.
const PATH: &str = "/opentelemetry/v1/metrics";

/// How it is started.
const ARGUMENTS: [&str; 6] = [
    "-storageDataPath=/tmp/data",
    "-httpListenAddr=:8428",
    "-opentelemetry.usePrometheusNaming",
    // What it was told a moment ago it is not to keep to itself.
    "-search.latencyOffset=0s",
    "-search.disableCache",
    "-memory.allowedBytes=64MB",
];

/// Starts it in a namespace, and waits until it answers.
pub fn start(netns: &NetNs) -> Result<Prometheus> {
    let program = repository(PROGRAM)?;
    ensure!(
        program.is_file(),
        "there is no {} here: `cargo xtask test` fetches it (Debian's package victoria-metrics)",
        program.display()
    );
    Prometheus::launch(netns, &program, SERVER, |program| {
        let mut command = Command::new("sh");
        command.args(["-c", r#"exec "$@" 2>&1"#, "sh", program]).args(ARGUMENTS);
        command
    })
}

/// Where to push to, at this address of the namespace.
pub fn url(address: &str) -> String {
    format!("http://{address}:{PORT}{PATH}")
}
