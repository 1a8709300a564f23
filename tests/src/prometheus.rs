//! A real Prometheus that scrapes `fixer run`, in a sandbox.
//!
//! Debian's package starts a service when it is installed, so `cargo xtask test` unpacks it below
//! `target/prometheus/root` instead. Where Prometheus is installed already, that one is used.

use std::{
    env,
    fs::File,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::Receiver,
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, bail, ensure};
use fixer_user::{
    lab::{sandbox::Sandboxed, scene::lines},
    net::netns::NetNs,
};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde_json::Value;

use crate::{command::PATIENCE, http};

/// Where the package is unpacked, from the root of the repository.
const UNPACKED: &str = "target/prometheus/root/usr/bin";

/// How a program that answers queries is reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Server {
    /// Where it listens, in the namespace that it runs in.
    pub(crate) place: ([u8; 4], u16),
    /// What has to be asked before a query, so that all that it was told is known.
    pub(crate) refresh: Option<&'static str>,
}

const PROMETHEUS: Server = Server { place: ([127, 0, 0, 1], 9090), refresh: None };

/// How often it looks whether something has come, at most.
const TICK: Duration = Duration::from_millis(100);

/// It scrapes the fixer of its namespace every second, and follows our rules.
const CONFIGURATION: &str = "\
global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
rule_files: [/tmp/fixer.rules.yml]
scrape_configs: [{job_name: fixer, static_configs: [{targets: ['127.0.0.1:9767']}]}]
";

/// Makes the files that it reads, and becomes Prometheus.
const PREPARE: &str = r#"
printf %s "$1" >/tmp/prometheus.yml && printf %s "$2" >/tmp/fixer.rules.yml && shift 2 && exec "$@" 2>&1
"#;

/// A file of the repository, by its path from the root.
pub fn repository(path: &str) -> Result<PathBuf> {
    let here = env::var_os("CARGO_MANIFEST_DIR")
        .context("the repository is not known; start this with cargo")?;
    Ok(Path::new(&here).join("..").join(path))
}

/// Where a program of the package is.
pub fn find(name: &str) -> Result<PathBuf> {
    let unpacked = repository(UNPACKED)?;
    let path = env::var_os("PATH").unwrap_or_default();
    let mut places = env::split_paths(&path).chain([unpacked]).map(|place| place.join(name));
    places.find(|place| place.is_file()).with_context(|| {
        format!(
            "there is no {name} here: `cargo xtask test` fetches it (Debian's package prometheus)"
        )
    })
}

/// A Prometheus that runs, or what answers as one does; killed when this is dropped.
#[derive(Debug)]
pub struct Prometheus {
    netns: NetNs,
    server: Server,
    log: Receiver<String>,
    _process: Sandboxed,
}

impl Prometheus {
    /// Starts it in a namespace, with these rules, and waits until it answers.
    pub fn start(netns: &NetNs, rules: &str) -> Result<Self> {
        Self::launch(netns, &find("prometheus")?, PROMETHEUS, |program| {
            let mut command = Command::new("sh");
            command
                .args(["-c", PREPARE, "sh", CONFIGURATION, rules, program])
                .args(["--config.file=/tmp/prometheus.yml", "--storage.tsdb.path=/tmp/data"])
                .arg("--web.listen-address=127.0.0.1:9090");
            command
        })
    }

    /// Starts a program by the command that is made of its path, and waits until it answers. What it
    /// says it says on standard output.
    pub(crate) fn launch(
        netns: &NetNs,
        program: &Path,
        server: Server,
        command: impl FnOnce(&str) -> Command,
    ) -> Result<Self> {
        let name = program.display();
        let program = File::open(program)?;
        // The sandbox may hide the file: it covers `/tmp`, and a clone may lie there.
        fcntl(&program, FcntlArg::F_SETFD(FdFlag::empty()))?;
        let mut command = command(&format!("/proc/self/fd/{}", program.as_raw_fd()));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process =
            Sandboxed::spawn(netns, command).context(format!("cannot start {name}"))?;
        let stdout = process.child().stdout.take().context("it was piped above")?;
        let netns = netns.clone();
        let started = Self { netns, server, log: lines(stdout), _process: process };
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let answer = http::get(&started.netns, server.place, "/-/ready");
            if answer.is_ok_and(|answer| answer.is(200)) {
                return Ok(started);
            }
            thread::sleep(TICK); // poll: it says that it is ready a moment before it is
        }
        bail!("{name} does not start: {:#?}", started.said())
    }

    /// What its API answers: the `data` of it.
    pub fn api(&self, path: &str) -> Result<Value> {
        let answer = http::get(&self.netns, self.server.place, &format!("/api/v1/{path}"))?;
        let mut value: Value = serde_json::from_str(&answer.body)
            .with_context(|| format!("{path}: {}", answer.body))?;
        ensure!(value["status"] == "success" && value["warnings"].is_null(), "{path}: {value}");
        Ok(value["data"].take())
    }

    /// The series that an expression gives now, each with its labels and its value.
    pub fn query(&self, expression: &str) -> Result<Vec<Value>> {
        if let Some(refresh) = self.server.refresh {
            http::get(&self.netns, self.server.place, refresh)?;
        }
        let data = self.api(&format!("query?query={}", encoded(expression)))?;
        let result = data["result"].as_array().cloned();
        result.with_context(|| format!("{expression}: {data}"))
    }

    /// The series that an expression gives in each of the last seconds, with their values.
    pub fn range(&self, expression: &str, seconds: u32) -> Result<Vec<Value>> {
        let end = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        let (query, start) = (encoded(expression), end - u64::from(seconds));
        let path = format!("query_range?query={query}&start={start}&end={end}&step=1");
        let data = self.api(&path)?;
        data["result"].as_array().cloned().with_context(|| format!("{expression}: {data}"))
    }

    /// Waits until what an expression gives is as wanted, and hands it over.
    pub fn wait(&self, expression: &str, wanted: impl Fn(&[Value]) -> bool) -> Result<Vec<Value>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.query(expression)?;
            if wanted(&found) {
                return Ok(found);
            }
            ensure!(Instant::now() < deadline, "{expression} stays {found:#?}");
            thread::sleep(TICK); // poll: Prometheus tells nobody that it has scraped
        }
    }

    /// What it has said since it was asked last.
    pub fn said(&self) -> Vec<String> {
        self.log.try_iter().collect()
    }
}

/// The number that a series has.
pub fn number(series: &Value) -> Result<f64> {
    let value = series["value"][1].as_str().with_context(|| format!("no value in {series}"))?;
    Ok(value.parse()?)
}

/// An expression as a part of an address.
fn encoded(expression: &str) -> String {
    expression.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
