//! How exchanges between real clients and servers are told and counted, beside what tcpdump and
//! dnsmasq tell of the same ones.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use dhcproto::v4::{DhcpOption, MessageType};
use fixer_tests::{
    client::frame,
    command::{PATIENCE, Running, attached, on_bridge, program},
};
use fixer_user::lab::{
    packet::PacketSocket,
    reply::{self, PARTIAL},
    scene::{BRIDGE, Dnsmasq, GUEST, PORT, SERVER, Scene},
    strict,
};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    MAC, Stage,
    metrics::{get, has},
    scene,
};

/// `fixer run` on the bridge that follows exchanges. They end after two seconds of silence.
fn following(scene: &Scene, arguments: &[&str]) -> Result<Running> {
    let follow = ["-i", BRIDGE, "--all", "--hook", "both", "--exchange-timeout", "2"];
    attached(&scene.host, &[&follow[..], arguments].concat())
}

/// The next exchange that is over.
fn next(fixer: &mut Running) -> Result<Value> {
    let line = fixer.stdout.wait("\"exchange\":{")?;
    let mut ending: Value = serde_json::from_str(&line)?;
    let keys: Vec<_> = ending.as_object().context("an object")?.keys().collect();
    ensure!(
        keys.len() == 5 && ending["netns"] == "host" && ending["interface"] == BRIDGE,
        "{line}"
    );
    ensure!(ending["ifindex"].is_u64() && ending["time"].is_string(), "{line}");
    Ok(ending["exchange"].take())
}

/// Fails unless the exchange has these values.
fn is(exchange: &Value, expected: &[(&str, Value)]) -> Result<()> {
    for (key, value) in expected {
        ensure!(exchange[key] == *value, "{key} is not {value} in {exchange}");
    }
    Ok(())
}

fn mac() -> String {
    MAC.map(|byte| format!("{byte:02x}")).join(":")
}

/// Sends what a client would.
fn say(scene: &Scene, message_type: MessageType, options: &[DhcpOption]) -> Result<()> {
    let frame = frame(MAC, message_type, options)?;
    Ok(PacketSocket::open(&scene.guest, GUEST)?.send(&frame, None)?)
}

#[test]
fn a_lease_is_told_with_its_server_and_its_duration() -> Result<()> {
    let stage = Stage::new()?;
    let mut fixer = following(&stage.scene, &["--events", "json"])?;
    let asked = strict::ask(&stage.scene.guest, GUEST, MAC, PATIENCE)?;
    let lease = asked.lease.context("no lease")?;
    let exchange = next(&mut fixer)?;
    is(
        &exchange,
        &[
            ("outcome", "lease".into()),
            ("client_mac", mac().into()),
            ("began_with", "discover".into()),
            ("pxe", false.into()),
            ("servers", vec![SERVER.to_string()].into()),
            ("server", lease.server.to_string().into()),
            ("your_ip", lease.address.to_string().into()),
        ],
    )?;
    let seconds = exchange["seconds"].as_f64().context("no duration")?;
    ensure!(seconds > 0.0 && seconds < PATIENCE.as_secs_f64(), "{exchange}");
    let body = get(&stage.scene.host, "/metrics")?.body;
    let at = "netns=\"host\",interface=\"br0\"";
    has(&body, &format!("fixer_exchanges_total{{{at},outcome=\"lease\"}} 1"))?;
    has(&body, &format!("fixer_exchanges_total{{{at},outcome=\"nak\"}} 0"))?;
    has(&body, &format!("fixer_exchange_seconds_count{{{at}}} 1"))?;
    has(&body, &format!("fixer_exchange_seconds_sum{{{at}}} {seconds:?}"))?;
    has(&body, &format!("fixer_exchange_seconds_bucket{{le=\"+Inf\",{at}}} 1"))?;
    has(&body, "fixer_exchanges_forgotten_total{netns=\"host\"} 0")?;
    fixer.stop(Signal::SIGINT)?.ok()?;
    Ok(())
}

#[test]
fn a_nak_tells_which_server_refused() -> Result<()> {
    let scene = scene()?;
    let mut dnsmasq = Dnsmasq::start(&scene)?;
    let mut fixer = following(&scene, &["--events", "json", "--metrics", "off"])?;
    let foreign = DhcpOption::RequestedIpAddress(Ipv4Addr::new(192, 168, 99, 9));
    say(&scene, MessageType::Request, &[foreign])?;
    is(
        &next(&mut fixer)?,
        &[
            ("outcome", "nak".into()),
            ("xid", "0x6ce6e42e".into()),
            ("client_mac", mac().into()),
            ("began_with", "request".into()),
            ("server", SERVER.to_string().into()),
            ("your_ip", Value::Null),
        ],
    )?;
    ensure!(dnsmasq.says("DHCPNAK", PATIENCE), "dnsmasq has refused nothing");
    fixer.stop(Signal::SIGINT)?.ok()?;
    Ok(())
}

/// The ISC failover fault, as far as a client sees it: there are servers, and none answers.
#[test]
fn a_pxe_client_that_no_server_answers_is_told_in_a_line() -> Result<()> {
    let scene = scene()?;
    let mut dnsmasq = Dnsmasq::with_range(&scene, "10.0.3.100,10.0.3.100,255.255.255.0,1h")?;
    let mut fixer = following(&scene, &["--metrics", "off"])?;
    let other = [2, 0, 0, 0, 0, 0x78];
    ensure!(strict::ask(&scene.guest, GUEST, other, PATIENCE)?.lease.is_some());
    fixer.stdout.wait(": lease: the client has an address, 10.0.3.100, server 10.0.3.1, in ")?;
    let class = DhcpOption::ClassIdentifier(b"PXEClient:Arch:00000:UNDI:002001".to_vec());
    for _ in 0..2 {
        say(&scene, MessageType::Discover, std::slice::from_ref(&class))?;
    }
    ensure!(dnsmasq.says("no address available", PATIENCE), "dnsmasq has an address");
    let line = fixer.stdout.wait("no_offer")?;
    let (time, rest) = line.split_once(' ').context("a time")?;
    ensure!(time.len() == "10:15:53.015772".len(), "{line}");
    let begin = format!(
        "br0 DHCP exchange xid 0x6ce6e42e client {} (PXE): no_offer: no server offered an address, \
         in ",
        mac()
    );
    ensure!(rest.starts_with(&begin) && rest.ends_with(" s, 1 retry"), "{line}");
    fixer.stop(Signal::SIGINT)?.ok()?;
    Ok(())
}

#[test]
fn where_there_is_no_server_a_client_gets_no_offer() -> Result<()> {
    let scene = scene()?;
    let mut fixer = following(&scene, &["--events", "json"])?;
    let asked = strict::ask(&scene.guest, GUEST, MAC, Duration::from_secs(3))?;
    ensure!(asked.lease.is_none() && asked.replies == 0, "{asked:?}");
    let exchange = next(&mut fixer)?;
    is(
        &exchange,
        &[
            ("outcome", "no_offer".into()),
            ("client_mac", mac().into()),
            ("servers", Value::Array(Vec::new())),
            ("server", Value::Null),
        ],
    )?;
    // The client asks with another transaction every time, and that is one exchange.
    ensure!(exchange["retries"].as_u64().is_some_and(|retries| retries > 0), "{exchange}");
    let at = "netns=\"host\",interface=\"br0\"";
    let body = get(&scene.host, "/metrics")?.body;
    has(&body, &format!("fixer_exchanges_total{{{at},outcome=\"no_offer\"}} 1"))?;
    has(&body, &format!("fixer_exchange_seconds_count{{{at}}} 0"))?;
    fixer.stop(Signal::SIGINT)?.ok()?;
    Ok(())
}

/// A request whose sum is partial goes the way of every packet; that it is told apart from the
/// replies, the hook says.
#[test]
fn a_client_that_takes_no_offer_is_told() -> Result<()> {
    let stage = Stage::new()?;
    let mut fixer = following(&stage.scene, &["--events", "json"])?;
    let mut frame = frame(MAC, MessageType::Discover, &[])?;
    reply::make_partial(&mut frame);
    PacketSocket::open(&stage.scene.guest, GUEST)?.send(&frame, Some(PARTIAL))?;
    is(
        &next(&mut fixer)?,
        &[
            ("outcome", "unanswered_offer".into()),
            ("client_mac", mac().into()),
            ("servers", vec![SERVER.to_string()].into()),
            ("retries", 0.into()),
        ],
    )?;
    let body = get(&stage.scene.host, "/metrics")?.body;
    for hook in ["ingress", "egress"] {
        let at = format!("netns=\"host\",interface=\"br0\",hook=\"{hook}\",verdict=\"fixed\"");
        has(&body, &format!("fixer_packets_total{{{at}}} 1"))?;
    }
    fixer.stop(Signal::SIGINT)?.ok()?;
    Ok(())
}

/// Half of a conversation would be told as one that nobody answers.
#[test]
fn exchanges_are_told_only_where_both_sides_are_seen() -> Result<()> {
    let half = [
        &["--all"][..],
        &["--all", "--hook", "ingress"],
        &["--all", "--hook", "both", "--match", "udp:68:67"],
    ];
    let short = ["--exchange-timeout", "1", "--metrics", "off"];
    let mut all = Vec::new();
    for arguments in half {
        let stage = Stage::new()?;
        let silent = on_bridge(&stage.scene.host, &[&short[..2], arguments].concat())?;
        let beside = ["-i", PORT, "--all", "--hook", "both"];
        let telling = attached(&stage.scene.host, &[&short[..], &beside].concat())?;
        all.push((stage, silent, telling));
    }
    // By the time that the one beside has told it twice, the other could have, too.
    for _ in 0..2 {
        for (stage, ..) in &all {
            say(&stage.scene, MessageType::Discover, &[])?;
        }
        for (.., telling) in &mut all {
            telling.stdout.wait(": unanswered_offer: ")?;
        }
    }
    for ((_stage, silent, telling), arguments) in all.into_iter().zip(half) {
        let ended = silent.stop(Signal::SIGINT)?.ok()?;
        let seen = ended.stdout.iter().filter(|line| line.contains(", DHCP ")).count();
        ensure!(seen >= 2, "{arguments:?} has seen only {ended:?}");
        ensure!(!ended.stdout.iter().any(|line| line.contains("exchange")), "{ended:?}");
        telling.stop(Signal::SIGINT)?.ok()?;
    }
    Ok(())
}

/// What tcpdump calls the messages, and how often it has seen each.
fn counted(lines: &[String]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for line in lines.iter().filter(|line| line.contains("DHCP-Message")) {
        let name = line.rsplit(": ").next().unwrap_or_default().to_ascii_lowercase();
        *counts.entry(name.replace("nack", "nak")).or_default() += 1;
    }
    counts
}

/// What the metrics say of the messages.
pub fn exported(body: &str) -> Result<BTreeMap<String, u64>> {
    let mut counts = BTreeMap::new();
    for line in body.lines().filter(|line| line.starts_with("fixer_dhcp_messages_total{")) {
        let (labels, count) = line.rsplit_once(' ').context("a value")?;
        ensure!(labels.contains("{netns=\"host\",interface=\"br0\","), "{line}");
        let name = labels.split("message_type=\"").nth(1).context("a type")?;
        counts.insert(name.trim_end_matches("\"}").to_owned(), count.parse()?);
    }
    Ok(counts)
}

/// Asks for the metrics until they are as they must be.
pub fn until(scene: &Scene, is_so: impl Fn(&str) -> Result<bool>) -> Result<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let body = get(&scene.host, "/metrics")?.body;
        if is_so(&body)? {
            return Ok(body);
        }
        if Instant::now() > deadline {
            bail!("they never were; at last they were:\n{body}");
        }
    }
}

#[test]
fn every_message_is_counted_that_tcpdump_sees() -> Result<()> {
    let stage = Stage::new()?;
    let filter =
        ["-vvv", "-n", "-l", "--immediate-mode", "-i", BRIDGE, "udp port 67 or udp port 68"];
    let mut tcpdump = Running::start(&stage.scene.host, program("tcpdump", &filter))?;
    tcpdump.stderr.wait("listening on")?;
    let fixer = following(&stage.scene, &["--events", "none"])?;
    for _ in 0..3 {
        stage.lease()?;
    }
    say(&stage.scene, MessageType::Discover, &[])?;
    say(&stage.scene, MessageType::Inform, &[])?;
    let server = DhcpOption::ServerIdentifier(SERVER);
    say(&stage.scene, MessageType::Decline, std::slice::from_ref(&server))?;
    say(&stage.scene, MessageType::Release, &[server])?;
    // dnsmasq answers in order, so nothing comes after the answer to the last message.
    let foreign = DhcpOption::RequestedIpAddress(Ipv4Addr::new(192, 168, 99, 9));
    say(&stage.scene, MessageType::Request, &[foreign])?;
    tcpdump.stdout.wait("NACK")?;
    let told = tcpdump.stop(Signal::SIGINT)?.ok()?.stdout;
    let expected = counted(&told);
    for name in ["discover", "offer", "request", "ack", "nak", "decline", "release", "inform"] {
        ensure!(expected.contains_key(name), "tcpdump has seen no {name}: {told:#?}");
    }
    until(&stage.scene, |body| Ok(exported(body)? == expected))
        .with_context(|| format!("tcpdump counted {expected:?}"))?;
    fixer.stop(Signal::SIGINT)?.ok()?;
    Ok(())
}

/// The number of a metric without an interface.
pub fn number(body: &str, name: &str) -> Result<u64> {
    let start = format!("{name}{{netns=\"host\"}} ");
    let line = body.lines().find_map(|line| line.strip_prefix(&start));
    Ok(line.with_context(|| format!("no {name} in {body}"))?.parse()?)
}

#[test]
fn a_flood_of_clients_is_forgotten_and_counted() -> Result<()> {
    const CLIENTS: u32 = 6000;
    let scene = scene()?;
    let run = ["-i", BRIDGE, "--all", "--hook", "both", "--events", "none"];
    let fixer = attached(&scene.host, &run)?;
    let sender = PacketSocket::open(&scene.guest, GUEST)?;
    for client in 0..CLIENTS {
        let [a, b, c, d] = client.to_be_bytes();
        sender.send(&frame([2, 1, a, b, c, d], MessageType::Discover, &[])?, None)?;
    }
    let seen = |body: &str| -> Result<u64> {
        Ok(exported(body)?.get("discover").copied().unwrap_or_default())
    };
    let all = |body: &str| -> Result<bool> {
        Ok(seen(body)? + number(body, "fixer_events_lost_total")? == u64::from(CLIENTS))
    };
    let body = until(&scene, all)?;
    let forgotten = number(&body, "fixer_exchanges_forgotten_total")?;
    ensure!(forgotten > 0 && forgotten + 4096 == seen(&body)?, "{body}");
    fixer.stop(Signal::SIGINT)?.ok()?;
    Ok(())
}
