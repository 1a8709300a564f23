//! How many events a second `fixer run` delivers before the first is lost, or before the sender can no more.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader},
    path::Path,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use fixer_tests::{
    command::{Running, program},
    frames::Packet,
    http::{self, METRICS},
};
use fixer_user::{
    lab::{
        packet::{Message, PacketSocket},
        reply::PARTIAL,
        scene::{BRIDGE, Scene},
    },
    net::netns::NetNs,
};
use nix::sys::signal::Signal;
use pcap_file::pcapng::{Block, PcapNgReader};

use crate::figure;

/// A way to write events, and how what was written is counted.
struct Form {
    name: &'static str,
    /// What `--events` is given.
    events: &'static str,
    /// What every event's line has; `None`: events are in a capture file.
    mark: Option<&'static [u8]>,
}

/// Lines go into a pipe, at whose other end somebody reads and counts them; packets into a file.
const FORMS: [Form; 3] = [
    Form { name: "text", events: "text", mark: Some(b"bad udp cksum") },
    Form { name: "JSON", events: "json", mark: Some(b"\"verdict\"") },
    Form { name: "pcapng", events: "none", mark: None },
];

/// Replies a second at first.
const FIRST: f64 = 50_000.0;

/// Replies a second in a flood.
const FLOOD: f64 = 200_000.0;

/// What each rate is to the one before it.
const STEP: f64 = 1.2;

/// How long each rate is held: many times what fits into the ring buffer.
const HELD: Duration = Duration::from_secs(1);

/// How often a sender that is ahead of its time looks at the clock.
const BURST: Duration = Duration::from_millis(1);

/// How many replies were sent in how long, and how many of their events were lost.
struct Step {
    sent: u64,
    lost: u64,
    seconds: f64,
}

impl Step {
    fn sent(&self) -> f64 {
        self.sent as f64 / self.seconds
    }

    fn delivered(&self) -> f64 {
        (self.sent - self.lost) as f64 / self.seconds
    }
}

/// Steps the rate up until events are lost, for each form. What was not lost must have been written.
pub fn run(fixer: &str) -> Result<()> {
    for Form { name, events, mark } in FORMS {
        let scene = Scene::new()?;
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("events.pcapng");
        let path = file.to_str().context("a path in UTF-8")?;
        let mut arguments = vec!["run", "-i", BRIDGE, "--skip-selftest", "--events", events];
        arguments.extend(mark.is_none().then_some(["--pcapng", path]).into_iter().flatten());
        let (stdout, counter): (Stdio, _) = match mark {
            Some(mark) => {
                let (reader, writer) = io::pipe()?;
                (writer.into(), Some(thread::spawn(move || lines(reader, mark))))
            }
            None => (Stdio::null(), None),
        };
        let mut running = Running::start_into(&scene.host, program(fixer, &arguments), stdout)?;
        running.stderr.wait("attached to")?;
        let sender = PacketSocket::open(&scene.host, BRIDGE)?;

        let (mut rate, mut best, mut expected) = (FIRST, 0.0, 0);
        loop {
            let step = hold(&scene.host, &sender, rate)?;
            expected += step.sent - step.lost;
            if step.lost > 0 {
                break;
            }
            best = step.sent();
            // A sender that does not keep up finds nothing any more.
            if best < rate * 0.9 {
                break;
            }
            rate *= STEP;
        }
        about(&format!("{name}: most events, none of them lost"), best);
        let flood = hold(&scene.host, &sender, FLOOD)?;
        expected += flood.sent - flood.lost;
        about(&format!("{name}: replies in a flood"), flood.sent());
        about(&format!("{name}: events delivered of it"), flood.delivered());

        running.stop(Signal::SIGTERM)?.ok()?;
        let written = match counter {
            Some(counter) => counter.join().ok().context("the reader failed")??,
            None => packets(&file)?,
        };
        ensure!(written == expected, "{name}: {written} events were written, of {expected}");
    }
    Ok(())
}

/// How many lines have a mark.
fn lines(from: io::PipeReader, mark: &[u8]) -> io::Result<u64> {
    let (mut reader, mut line, mut count) = (BufReader::new(from), Vec::new(), 0);
    while reader.read_until(b'\n', &mut line)? > 0 {
        count += u64::from(line.windows(mark.len()).any(|bytes| bytes == mark));
        line.clear();
    }
    Ok(count)
}

/// How many packets a capture has.
fn packets(file: &Path) -> Result<u64> {
    let mut reader = PcapNgReader::new(File::open(file)?)?;
    let mut count = 0;
    while let Some(block) = reader.next_block() {
        count += u64::from(matches!(block?, (Block::EnhancedPacket(_), _)));
    }
    Ok(count)
}

fn about(what: &str, value: f64) {
    figure(&["beyond", what, "a second"], format!("{value:.0}"));
}

/// Sends replies at this rate.
fn hold(netns: &NetNs, sender: &PacketSocket, rate: f64) -> Result<Step> {
    let reply = Message::new(&Packet::reply(300).partial(), Some(PARTIAL));
    let before = lost(netns)?;
    let (began, mut sent) = (Instant::now(), 0);
    while began.elapsed() < HELD {
        let due = (began.elapsed() + BURST).as_secs_f64() * rate;
        while (sent as f64) < due && began.elapsed() < HELD {
            sender.send_ready(&reply)?;
            sent += 1;
        }
        // The other processors are for the reader; this one is for nobody else.
        while began.elapsed().as_secs_f64() * rate < sent as f64 && began.elapsed() < HELD {
            std::hint::spin_loop();
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    Ok(Step { sent, lost: lost(netns)? - before, seconds })
}

/// How many events were lost so far.
fn lost(netns: &NetNs) -> Result<u64> {
    let metrics = http::get(netns, METRICS, "/metrics")?.body;
    let name = "fixer_events_lost_total{netns=\"host\"} ";
    let value = metrics.lines().find_map(|line| line.strip_prefix(name));
    Ok(value.context("the loss is not among the metrics")?.parse()?)
}
