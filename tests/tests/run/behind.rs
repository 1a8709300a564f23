//! A run that is behind: because nobody reads what it writes, or because it does not come to read what the
//! kernel says. It loses events, says how many and where, and tells nothing that is not so.

use std::{
    collections::BTreeMap,
    fs::File,
    io, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use dhcproto::{
    Encodable as _,
    v4::{DhcpOption, Message, MessageType, Opcode},
};
use fixer_tests::{
    client::frame_of,
    command::{PATIENCE, Running, attached, fixer},
};
use fixer_user::lab::{
    packet::PacketSocket,
    reply,
    scene::{BRIDGE, GUEST, SERVER, Scene, lines},
};
use nix::sys::signal::Signal;
use pcap_file::pcapng::{
    Block, PcapNgReader, blocks::enhanced_packet::EnhancedPacketOption,
    blocks::interface_statistics::InterfaceStatisticsOption,
};
use serde_json::Value;

use crate::{
    exchange::{exported, number, until},
    metrics::has,
    scene, send_partial,
};

/// More exchanges than can wait for whoever reads, in portions that the ring buffer holds.
const PORTIONS: u32 = 16;
const PORTION: u32 = 250;

/// More packets than the ring buffer holds events.
const MANY: u64 = 5000;

/// Both ends of a conversation on the bridge.
struct Talk {
    client: PacketSocket,
    server: PacketSocket,
}

impl Talk {
    fn new(scene: &Scene) -> Result<Self> {
        Ok(Self {
            client: PacketSocket::open(&scene.guest, GUEST)?,
            server: PacketSocket::open(&scene.host, BRIDGE)?,
        })
    }

    /// The client with this number says something.
    fn says(&self, number: u32, message_type: MessageType) -> Result<()> {
        let frame = frame_of(mac(number), message_type, number, [0; 4].into(), &[])?;
        Ok(self.client.send(&frame, None)?)
    }

    /// The server answers it.
    fn answers(&self, number: u32, message_type: MessageType) -> Result<()> {
        let (none, yours) = ([0; 4].into(), [10, 0, 3, 200].into());
        let mut message = Message::new_with_id(number, none, yours, none, none, &mac(number));
        message.set_opcode(Opcode::BootReply);
        message.opts_mut().insert(DhcpOption::MessageType(message_type));
        message.opts_mut().insert(DhcpOption::ServerIdentifier(SERVER));
        Ok(self.server.send(&reply::frame(&message.to_vec()?), None)?)
    }

    /// The client gets a lease.
    fn lease(&self, number: u32) -> Result<()> {
        self.says(number, MessageType::Discover)?;
        self.answers(number, MessageType::Offer)?;
        self.says(number, MessageType::Request)?;
        self.answers(number, MessageType::Ack)
    }
}

fn mac(number: u32) -> [u8; 6] {
    let [a, b, c, d] = number.to_be_bytes();
    [2, 1, a, b, c, d]
}

/// How a run is started that follows exchanges and shows everything.
const FOLLOWING: [&str; 8] =
    ["-i", BRIDGE, "--all", "--hook", "both", "--exchange-timeout", "2", "--skip-selftest"];

/// How often each outcome was counted, if it ever was.
fn outcomes(body: &str) -> Result<BTreeMap<String, u64>> {
    let rows = body.lines().filter_map(|line| line.strip_prefix("fixer_exchanges_total{"));
    let rows = rows.map(|row| -> Result<_> {
        let (labels, count) = row.rsplit_once(' ').context("a value")?;
        let outcome = labels.split("outcome=\"").nth(1).context("an outcome")?;
        Ok((outcome.trim_end_matches("\"}").to_owned(), count.parse()?))
    });
    let mut counts: BTreeMap<_, _> = rows.collect::<Result<_>>()?;
    counts.retain(|_, count| *count > 0);
    Ok(counts)
}

fn only(outcome: &str, count: u32) -> BTreeMap<String, u64> {
    [(outcome.to_owned(), u64::from(count))].into()
}

#[test]
fn a_stream_that_nobody_reads_loses_events_and_nothing_else() -> Result<()> {
    let scene = scene()?;
    let (reader, writer) = io::pipe()?;
    let run = [&["run", "--events", "json"], &FOLLOWING[..]].concat();
    let mut fixer = Running::start_into(&scene.host, fixer(&run)?, writer)?;
    fixer.stderr.wait("attached to")?;
    let (talk, mut leases) = (Talk::new(&scene)?, 0);
    for _ in 0..PORTIONS {
        (leases..leases + PORTION).try_for_each(|number| talk.lease(number))?;
        leases += PORTION;
        let all =
            ["ack", "discover", "offer", "request"].map(|name| (name.to_owned(), leases.into()));
        let all: BTreeMap<String, u64> = all.into();
        until(&scene, |body| Ok(exported(body)? == all)).context("the counters are behind")?;
    }
    let body = until(&scene, |body| Ok(number(body, "fixer_events_lost_total")? > 0))?;
    ensure!(outcomes(&body)? == only("lease", leases), "{body}");
    ensure!(number(&body, "fixer_exchanges_forgotten_total")? == 0, "{body}");
    for hook in ["ingress", "egress"] {
        let at = format!("netns=\"host\",interface=\"br0\",hook=\"{hook}\",verdict=\"valid\"");
        has(&body, &format!("fixer_packets_total{{{at}}} {}", 2 * leases))?;
    }
    // Now somebody reads, and hears of what comes from now on.
    let said = lines(reader);
    let mut told: Vec<Value> = Vec::new();
    let mut read_until = |words: &str| -> Result<()> {
        loop {
            let line = said.recv_timeout(PATIENCE).with_context(|| format!("no '{words}'"))?;
            told.push(serde_json::from_str(&line).with_context(|| line.clone())?);
            if line.contains(words) {
                return Ok(());
            }
        }
    };
    read_until("\"lost\":")?;
    talk.lease(leases)?;
    read_until("\"outcome\":\"lease\"")?;
    let ended = fixer.stop(Signal::SIGTERM)?.ok()?;
    ensure!(said.recv().is_err(), "more was said");

    let place = told.iter().position(|line| line["lost"].is_u64()).context("no loss")?;
    ensure!(told.iter().filter(|line| line["lost"].is_u64()).count() == 1, "more than one gap");
    let (lost, ends) = (told[place]["lost"].as_u64(), told[place]["exchanges"].as_u64());
    let lost = lost.context("how many")?;
    let is_event = |line: &&Value| line["verdict"].is_string();
    let is_end = |line: &&Value| line["exchange"].is_object();
    let all = u64::from(4 * (leases + 1));
    ensure!(told.iter().filter(is_event).count() as u64 + lost == all, "{lost} of {all} were lost");
    let ends = told.iter().filter(is_end).count() as u64 + ends.unwrap_or_default();
    ensure!(ends == u64::from(leases + 1), "{ends} exchanges");
    ensure!(told.iter().filter(is_end).all(|line| line["exchange"]["outcome"] == "lease"));
    ensure!(ended.stderr.iter().any(|line| line.starts_with(&format!("{lost} events were lost"))));
    // What was shown before the gap lacks nothing, and behind it there is the last exchange.
    let xids: Vec<_> =
        told.iter().filter(is_event).filter_map(|line| line["dhcp"]["xid"].as_str()).collect();
    let expected = (0..leases).flat_map(|xid| [xid; 4]).chain([leases; 4]);
    let before = told[..place].iter().filter(is_event).count();
    let expected =
        expected.clone().take(before).chain([leases; 4]).map(|xid| format!("{xid:#010x}"));
    ensure!(xids.into_iter().eq(expected), "{before} events before the gap");
    Ok(())
}

/// Stops a run that has heard clients ask, until their answers and more are lost.
#[test]
fn answers_that_the_kernel_lost_make_no_fault() -> Result<()> {
    const CLIENTS: u32 = 10;
    let scene = scene()?;
    let mut fixer = attached(&scene.host, &[&FOLLOWING[..], &["--events", "json"]].concat())?;
    let talk = Talk::new(&scene)?;
    (0..CLIENTS).try_for_each(|number| talk.says(number, MessageType::Discover))?;
    talk.answers(1, MessageType::Offer)?;
    talk.says(1, MessageType::Request)?;
    talk.says(2, MessageType::Request)?;
    for _ in 0..CLIENTS + 3 {
        fixer.stdout.wait("\"dhcp\":{")?;
    }
    fixer.signal(Signal::SIGSTOP)?;
    send_partial(&scene, BRIDGE, 2000)?;
    talk.answers(0, MessageType::Offer)?;
    talk.answers(1, MessageType::Ack)?;
    talk.answers(2, MessageType::Nak)?;
    (3..CLIENTS).try_for_each(|number| talk.answers(number, MessageType::Offer))?;
    fixer.signal(Signal::SIGCONT)?;
    fixer.stdout.wait("\"lost\":")?;
    // These two ask again, and one more asks for the first time; nobody answers them.
    talk.says(2, MessageType::Discover)?;
    talk.says(3, MessageType::Discover)?;
    talk.says(CLIENTS, MessageType::Discover)?;
    let mut told = Vec::new();
    for _ in 0..3 {
        let line = fixer.stdout.wait("\"exchange\":{")?;
        let exchange: Value = serde_json::from_str(&line)?;
        ensure!(exchange["exchange"]["outcome"] == "no_offer", "{line}");
        told.push(exchange["exchange"]["client_mac"].to_string());
    }
    told.sort();
    let expected = [2, 3, CLIENTS].map(|number| format!("\"02:01:00:00:00:{number:02x}\""));
    ensure!(told == expected, "{told:?}");
    let body = until(&scene, |_| Ok(true))?;
    ensure!(outcomes(&body)? == only("no_offer", 3), "{body}");
    ensure!(number(&body, "fixer_exchanges_forgotten_total")? == u64::from(CLIENTS), "{body}");
    let ended = fixer.stop(Signal::SIGTERM)?.ok()?;
    let ends = ended.stdout.iter().filter(|line| line.contains("\"exchange\":{")).count();
    ensure!(ends == 3, "{ends} exchanges");
    Ok(())
}

/// While it is stopped time passes, and what it has not read yet is no silence.
#[test]
fn answers_that_wait_to_be_read_are_answers() -> Result<()> {
    const CLIENTS: u32 = 10;
    let scene = scene()?;
    let mut fixer = attached(&scene.host, &[&FOLLOWING[..], &["--events", "json"]].concat())?;
    let talk = Talk::new(&scene)?;
    (0..CLIENTS).try_for_each(|number| talk.says(number, MessageType::Request))?;
    for _ in 0..CLIENTS {
        fixer.stdout.wait("\"dhcp\":{")?;
    }
    fixer.signal(Signal::SIGSTOP)?;
    let stopped = Instant::now();
    (0..CLIENTS).try_for_each(|number| talk.answers(number, MessageType::Ack))?;
    while stopped.elapsed() < Duration::from_secs(5) {
        thread::sleep(Duration::from_millis(50)); // poll: nothing tells that a while has passed
    }
    fixer.signal(Signal::SIGCONT)?;
    for _ in 0..CLIENTS {
        let line = fixer.stdout.wait("\"exchange\":{")?;
        ensure!(line.contains("\"outcome\":\"lease\""), "{line}");
    }
    fixer.stop(Signal::SIGTERM)?.ok()?;
    Ok(())
}

/// How many packets a capture file holds, and how many it says are missing.
fn captured(file: &File) -> Result<(u64, u64)> {
    let (mut packets, mut dropped) = (0, 0);
    let mut reader = PcapNgReader::new(file)?;
    while let Some(block) = reader.next_block() {
        match block?.0 {
            Block::EnhancedPacket(packet) => {
                packets += 1;
                dropped += packet.options.iter().fold(0, |sum, option| match option {
                    EnhancedPacketOption::DropCount(count) => sum + count,
                    _ => sum,
                });
            }
            Block::InterfaceStatistics(statistics) => {
                dropped += statistics.options.iter().fold(0, |sum, option| match option {
                    InterfaceStatisticsOption::IsbOsDrop(count) => sum + count,
                    _ => sum,
                });
            }
            _ => {}
        }
    }
    Ok((packets, dropped))
}

/// How many events a line says were lost.
fn lost(line: &str) -> Option<u64> {
    let words = line.split_once(' ').and_then(|(_, rest)| rest.strip_suffix(" events were lost"));
    let text = words.and_then(|number| number.parse().ok());
    text.or_else(|| serde_json::from_str::<Value>(line).ok()?["lost"].as_u64())
}

#[test]
fn what_the_kernel_has_lost_is_told_to_the_last_event() -> Result<()> {
    for (form, followed) in [("text", true), ("json", true), ("text", false)] {
        let scene = scene()?;
        let file = tempfile::NamedTempFile::new()?;
        let path = file.path().to_str().context("the path is text")?;
        let arguments = ["-i", BRIDGE, "--events", form, "--pcapng", path, "--skip-selftest"];
        let mut fixer = attached(&scene.host, &arguments)?;
        fixer.signal(Signal::SIGSTOP)?;
        send_partial(&scene, BRIDGE, MANY as usize)?;
        fixer.signal(Signal::SIGCONT)?;
        let body = until(&scene, |body| Ok(number(body, "fixer_events_lost_total")? > 0))?;
        let counted = number(&body, "fixer_events_lost_total")?;
        let at = "netns=\"host\",interface=\"br0\",hook=\"egress\",verdict=\"fixed\"";
        has(&body, &format!("fixer_packets_total{{{at}}} {MANY}"))?;
        if followed {
            fixer.stdout.wait(if form == "text" { "events were lost" } else { "\"lost\":" })?;
            send_partial(&scene, BRIDGE, 1)?;
            fixer.stdout.wait("fixed")?;
        }
        let ended = fixer.stop(Signal::SIGTERM)?.ok()?;
        let stream: Vec<_> = ended.stdout.iter().filter(|line| !line.starts_with("br0 ")).collect();
        // The text has the totals behind it.
        let stream = match form {
            "text" => &stream[..stream.len() - 1],
            _ => &stream,
        };
        let told: Vec<_> = stream.iter().filter_map(|line| lost(line)).collect();
        ensure!(told == [counted], "{form}: {told:?} were told, but {counted} counted");
        let (shown, sent) = (stream.len() as u64 - 1, MANY + u64::from(followed));
        ensure!(shown + counted == sent, "{form}: {shown} were shown and {counted} lost");
        let place = stream.iter().position(|line| lost(line).is_some()).unwrap_or_default() as u64;
        ensure!(place == shown - u64::from(followed), "{form}: the gap is at {place} of {shown}");
        let found = captured(&File::open(path)?)?;
        ensure!(found == (shown, counted), "{form}: the capture has {found:?}");
    }
    Ok(())
}
