//! One play: fixer and a watcher at work, tcpdump at every side, and everybody who asks.

use std::{collections::BTreeMap, path::PathBuf, time::Instant};

use anyhow::{Context as _, Result, ensure};
use fixer_tests::{
    command::{Ended, PATIENCE, Running, attached, fixer},
    http::{self, METRICS},
    kernel::require_root,
    mounts::private_mounts,
};
use fixer_user::{
    lab::scene::{BRIDGE, GUEST},
    net::netns::NetNs,
};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::{
    capture::Place,
    conversation::{self, Exchange, Message, SILENCE},
    metrics::Metrics,
    stage::{LAST, PORTS, Stage},
    tcpdump::{Packet, Tap},
};

/// Where fixer is, and what it does.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Whether it is at the guests' ports, and not at the bridge.
    pub at_ports: bool,
    /// How it is attached: `tcx` or `clsact`.
    pub mode: &'static str,
    /// What becomes of a packet whose sum is partial: `fixed` or `partial`.
    pub mended: &'static str,
    /// How `fixer run` and `fixer watch` show events: one as text, one as JSON.
    pub shows: [&'static str; 2],
}

impl Setting {
    /// The interfaces that it is at.
    pub fn interfaces(&self) -> Vec<&'static str> {
        if self.at_ports { PORTS.to_vec() } else { vec![BRIDGE] }
    }

    /// The hooks that it is at.
    pub fn places(&self) -> Vec<Place> {
        let each = |name: &str| ["ingress", "egress"].map(|hook| (name.to_owned(), hook));
        self.interfaces().into_iter().flat_map(each).collect()
    }

    /// How often the last request and what answers it are seen.
    fn last_seen(&self) -> usize {
        // At the ports the request comes in once and leaves at the two others, the answer at all.
        if self.at_ports { 1 + 2 + 3 } else { 1 + 1 }
    }
}

/// What `fixer run` or `fixer watch` has said and written.
#[derive(Debug)]
pub struct Shown {
    /// How it shows events: `text` or `json`.
    pub how: &'static str,
    /// Its capture file.
    pub capture: PathBuf,
    /// All that it said.
    pub ended: Ended,
}

/// All that was seen and said.
pub struct Seen {
    /// What it was.
    pub setting: Setting,
    /// The namespace where fixer was.
    pub host: NetNs,
    /// What tcpdump has heard at interfaces of the host.
    pub taps: BTreeMap<Place, Vec<Packet>>,
    /// What it has heard of what came to each guest.
    pub guests: Vec<Vec<Packet>>,
    /// The exchanges in that.
    pub exchanges: Vec<Exchange>,
    /// What fixer has served at last.
    pub metrics: Metrics,
    /// What `fixer status --json` said at the end.
    pub status: Vec<Value>,
    /// What `fixer top --once` said at the end.
    pub top: Vec<String>,
    /// What `fixer run` and what `fixer watch` have shown.
    pub shown: [Shown; 2],
    _stage: Stage,
    _directory: TempDir,
}

impl Seen {
    /// Plays everything in this setting.
    pub fn play(setting: Setting) -> Result<Self> {
        require_root()?;
        private_mounts(true)?;
        let stage = Stage::set(setting.mended == "fixed")?;
        let directory = tempfile::tempdir()?;
        let captures = ["run", "watch"].map(|name| directory.path().join(format!("{name}.pcapng")));
        let mut run = run(&stage.host, setting, &captures[0])?;
        let mut watch = watch(&stage.host, setting, &captures[1])?;
        let (mut taps, mut guests) = (start_taps(&stage, setting)?, Vec::new());
        for guest in &stage.guests {
            guests.push(Tap::start(guest, GUEST, "in")?);
        }
        stage.play()?;
        end(&stage, &mut taps, &mut guests)?;
        for _ in 0..setting.last_seen() {
            run.stdout.wait("0xfeed0002")?;
            watch.stdout.wait("0xfeed0002")?;
        }
        let taps: BTreeMap<_, _> =
            taps.into_iter().map(|(place, tap)| Ok((place, tap.stop()?))).collect::<Result<_>>()?;
        let guests = guests.into_iter().map(Tap::stop).collect::<Result<_>>()?;
        let exchanges = conversation::exchanges(&messages(setting, &taps))?;
        let metrics = last_metrics(&stage.host, exchanges.len())?;
        let said = |arguments| -> Result<Vec<String>> {
            Ok(Running::start(&stage.host, fixer(arguments)?)?.end()?.ok()?.stdout)
        };
        let (status, top) = (said(&["status", "--json"])?, said(&["top", "--once"])?);
        let status = serde_json::from_str(&status.join(""))?;
        let [by_watch, by_run] = [watch, run].map(|running| running.stop(Signal::SIGTERM));
        let ([first, second], [capture, other]) = (setting.shows, captures);
        let shown = [
            Shown { how: first, capture, ended: by_run?.ok()? },
            Shown { how: second, capture: other, ended: by_watch?.ok()? },
        ];
        let host = stage.host.clone();
        let (_stage, _directory) = (stage, directory);
        Ok(Self {
            setting,
            host,
            taps,
            guests,
            exchanges,
            metrics,
            status,
            top,
            shown,
            _stage,
            _directory,
        })
    }

    /// What a tap in the host has heard.
    pub fn tap(&self, interface: &str, hook: &'static str) -> Result<&[Packet]> {
        let place = (interface.to_owned(), hook);
        Ok(self.taps.get(&place).context("nobody has listened there")?)
    }
}

fn run(host: &NetNs, setting: Setting, capture: &std::path::Path) -> Result<Running> {
    let patience = (SILENCE / 1_000_000_000).to_string();
    let interface = if setting.at_ports { "guest*" } else { BRIDGE };
    let capture = capture.to_str().context("the path is text")?;
    let mut arguments = vec!["-i", interface, "--all", "--hook", "both"];
    arguments.extend(["--attach-mode", setting.mode]);
    arguments.extend(["--match", "dhcp,dhcpv6,udp:546:547", "--exchange-timeout", &patience]);
    arguments.extend(["--events", setting.shows[0], "--pcapng", capture]);
    arguments.extend((setting.mended == "partial").then_some("--observe-only"));
    let mut run = attached(host, &arguments)?;
    for _ in 1..setting.interfaces().len() {
        run.stderr.wait("attached to")?;
    }
    Ok(run)
}

fn watch(host: &NetNs, setting: Setting, capture: &std::path::Path) -> Result<Running> {
    let capture = capture.to_str().context("the path is text")?;
    let arguments = ["watch", "--all", "--events", setting.shows[1], "--pcapng", capture];
    let mut watch = Running::start(host, fixer(&arguments)?)?;
    for _ in setting.places() {
        watch.stderr.wait("watching ")?;
    }
    Ok(watch)
}

/// A tap at every hook that fixer is at, and in any case at both sides of the bridge.
fn start_taps(stage: &Stage, setting: Setting) -> Result<BTreeMap<Place, Tap>> {
    let mut taps = BTreeMap::new();
    let bridge = ["ingress", "egress"].map(|hook| (BRIDGE.to_owned(), hook));
    for (interface, hook) in setting.places().into_iter().chain(bridge) {
        let side = if hook == "ingress" { "in" } else { "out" };
        let tap = Tap::start(&stage.host, &interface, side)?;
        taps.insert((interface, hook), tap);
    }
    Ok(taps)
}

/// Each guest in turn says a last word, and every tap hears of it.
fn end(stage: &Stage, taps: &mut BTreeMap<Place, Tap>, guests: &mut [Tap]) -> Result<()> {
    for (number, xid) in LAST.into_iter().enumerate() {
        stage.last(number)?;
        for ((interface, hook), tap) in &mut *taps {
            let port = PORTS.iter().position(|port| port == interface);
            let times = match (port, *hook) {
                (Some(port), "ingress") => usize::from(port == number),
                (Some(port), _) => 1 + usize::from(port != number),
                (None, _) => 1,
            };
            (0..times).try_for_each(|_| tap.hears(xid))?;
        }
        for (guest, tap) in guests.iter_mut().enumerate() {
            (0..1 + usize::from(guest != number)).try_for_each(|_| tap.hears(xid))?;
        }
    }
    Ok(())
}

/// Every message once: a client's where fixer has seen it first, a server's where it leaves the bridge.
fn messages(setting: Setting, taps: &BTreeMap<Place, Vec<Packet>>) -> Vec<Message> {
    let mut messages = Vec::new();
    for ((interface, hook), packets) in taps {
        let is_first = match *hook {
            "ingress" => setting.interfaces().contains(&interface.as_str()),
            _ => interface == BRIDGE,
        };
        let message =
            |packet: &Packet| Message { packet: packet.clone(), interface: interface.clone() };
        messages.extend(packets.iter().filter(|_| is_first).map(message));
    }
    messages
}

/// The metrics, once as many exchanges as there are have ended, or when it has become too late.
fn last_metrics(host: &NetNs, exchanges: usize) -> Result<Metrics> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = http::get(host, METRICS, "/metrics")?;
        ensure!(answer.is(200), "{}", answer.head);
        let metrics = Metrics::parse(&answer.body)?;
        if metrics.sum("fixer_exchanges_total{") == exchanges as f64 || Instant::now() > deadline {
            return Ok(metrics);
        }
        std::thread::sleep(std::time::Duration::from_millis(100)); // poll: metrics tell nobody
    }
}
