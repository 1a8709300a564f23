//! What is shown, beside what tcpdump shows of the same packets.

use anyhow::{Context as _, Result, ensure};
use fixer_tests::command::{Running, on_bridge, output, program};
use fixer_user::lab::{
    packet::PacketSocket,
    reply,
    scene::{BRIDGE, GUEST, SERVER, Scene},
};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{MAC, Stage, scene, send_partial};

/// The keys of an event, in the order of the interface's description.
const KEYS: [&str; 17] = [
    "time",
    "netns",
    "interface",
    "ifindex",
    "hook",
    "verdict",
    "src_mac",
    "dst_mac",
    "vlan",
    "src",
    "sport",
    "dst",
    "dport",
    "udp_len",
    "checksum",
    "expected",
    "dhcp",
];

/// The keys of the DHCP message in it.
const DHCP_KEYS: [&str; 9] = [
    "message_type",
    "xid",
    "client_mac",
    "your_ip",
    "server_id",
    "boot_file",
    "next_server",
    "vendor_class",
    "client_id",
];

/// A tcpdump that tells the replies of the server on an interface.
fn tcpdump(scene: &Scene) -> Result<Running> {
    let arguments =
        ["-vvv", "-n", "-l", "--immediate-mode", "-i", GUEST, "udp", "src", "port", "67"];
    let mut running = Running::start(&scene.guest, program("tcpdump", &arguments))?;
    running.stderr.wait("listening on")?;
    Ok(running)
}

/// What tcpdump says about the addresses and the checksum of each packet: the lines are
/// `    10.0.3.1.67 > 10.0.3.129.68: [bad udp cksum 0x1bc7 -> 0x072b!] BOOTP/DHCP, Reply, …`.
fn told(lines: &[String]) -> Vec<String> {
    let lines = lines.iter().map(|line| line.trim());
    let about = lines.filter(|line| line.contains(" > ") && line.contains("udp"));
    about.filter_map(|line| Some(line.split_once(" BOOTP/DHCP")?.0.to_owned())).collect()
}

/// The same about an event, as tcpdump would say it.
fn as_tcpdump(event: &Value) -> Result<String> {
    let text = |key: &str| event[key].as_str().with_context(|| format!("{key} in {event}"));
    // tcpdump writes no leading zeros.
    let sum = |key: &str| -> Result<String> {
        let digits = text(key)?.strip_prefix("0x").context("no hexadecimal number")?;
        ensure!(digits.len() == 4, "{event}");
        Ok(format!("0x{digits}"))
    };
    Ok(format!(
        "{}.{} > {}.{}: [bad udp cksum {} -> {}!]",
        text("src")?,
        event["sport"],
        text("dst")?,
        event["dport"],
        sum("checksum")?,
        sum("expected")?,
    ))
}

/// The events of a stream of JSON lines, after a look at their keys.
fn parsed(lines: &[String]) -> Result<Vec<Value>> {
    let mut events = Vec::new();
    for line in lines {
        let event: Value = serde_json::from_str(line).with_context(|| line.clone())?;
        // The parsed object has no order; the text does.
        let places: Vec<_> = KEYS.iter().map(|key| line.find(&format!("\"{key}\":"))).collect();
        ensure!(places.is_sorted() && places[0].is_some(), "{line}");
        ensure!(event.as_object().is_some_and(|keys| keys.len() == KEYS.len()), "{line}");
        let dhcp = event["dhcp"].as_object().with_context(|| line.clone())?;
        ensure!(dhcp.len() == DHCP_KEYS.len(), "{line}");
        let places: Vec<_> =
            DHCP_KEYS.iter().map(|key| line.find(&format!("\"{key}\":"))).collect();
        ensure!(places.is_sorted() && places[0].is_some(), "{line}");
        events.push(event);
    }
    Ok(events)
}

/// What every event of the scene has in common.
fn is_of_the_scene(event: &Value, verdict: &str, message_type: &str) -> Result<()> {
    let expected = [
        ("netns", Value::from("host")),
        ("interface", BRIDGE.into()),
        ("hook", "egress".into()),
        ("verdict", verdict.into()),
        ("dst_mac", "02:00:00:00:00:77".into()),
        ("vlan", Value::Null),
        ("src", SERVER.to_string().into()),
        ("sport", 67.into()),
        ("dport", 68.into()),
    ];
    for (key, value) in expected {
        ensure!(event[key] == value, "{key} in {event}");
    }
    let dhcp = &event["dhcp"];
    ensure!(dhcp["message_type"] == message_type, "{event}");
    ensure!(dhcp["client_mac"] == "02:00:00:00:00:77", "{event}");
    ensure!(dhcp["server_id"] == SERVER.to_string(), "{event}");
    ensure!(dhcp["your_ip"] == event["dst"], "{event}");
    ensure!(event["udp_len"].as_u64().is_some_and(|len| len > 240), "{event}");
    let time = event["time"].as_str().unwrap_or_default();
    ensure!(time.len() == "2026-11-21T10:15:53.015772001Z".len() && time.ends_with('Z'), "{time}");
    Ok(())
}

#[test]
fn observed_events_say_what_tcpdump_says_at_the_guest() -> Result<()> {
    let stage = Stage::new()?;
    let mut fixer = on_bridge(&stage.scene.host, &["--observe-only", "--events", "json"])?;
    let mut tcpdump = tcpdump(&stage.scene)?;
    stage.no_lease()?;
    fixer.stdout.wait("\"offer\"")?;
    let ended = fixer.stop(Signal::SIGINT)?.ok()?;
    let events = parsed(&ended.stdout)?;
    for event in &events {
        is_of_the_scene(event, "partial", "offer")?;
    }
    let said: Vec<_> = events.iter().map(as_tcpdump).collect::<Result<_>>()?;
    // One for one: a tcpdump that is told to end forgets what it has not read.
    let heard = said.iter().map(|_| tcpdump.stdout.wait(" BOOTP/DHCP"));
    let heard = told(&heard.collect::<Result<Vec<_>>>()?);
    ensure!(!said.is_empty() && said == heard, "{said:#?}, but tcpdump {heard:#?}");
    let summary = format!("{BRIDGE} egress: {} partial", events.len());
    ensure!(ended.stderr.contains(&summary), "no '{summary}' in {ended:?}");
    Ok(())
}

#[test]
fn fixed_events_and_their_capture_show_the_fault_and_the_guest_sees_the_cure() -> Result<()> {
    let stage = Stage::new()?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("dhcp.pcapng");
    let file = file.to_str().context("the path is text")?;
    let fixer = on_bridge(&stage.scene.host, &["--events", "json", "--pcapng", file])?;
    let mut tcpdump = tcpdump(&stage.scene)?;
    stage.lease()?;
    let mut guest = Vec::new();
    for _ in ["offer", "ack"] {
        guest.push(tcpdump.stdout.wait(" > ")?);
    }
    ensure!(guest.iter().all(|line| line.contains("[udp sum ok] BOOTP/DHCP, Reply")), "{guest:?}");

    let ended = fixer.stop(Signal::SIGINT)?.ok()?;
    let events = parsed(&ended.stdout)?;
    ensure!(events.len() == 2, "{ended:?}");
    is_of_the_scene(&events[0], "fixed", "offer")?;
    is_of_the_scene(&events[1], "fixed", "ack")?;
    let said: Vec<_> = events.iter().map(as_tcpdump).collect::<Result<_>>()?;
    let read = output(&stage.scene.host, "tcpdump", &["-vvv", "-n", "-r", file])?;
    let captured = told(&read.lines().map(str::to_owned).collect::<Vec<_>>());
    ensure!(said == captured, "{said:#?}, but the capture has {captured:#?}: {read}");
    // The transaction is in both, as tcpdump writes it.
    for event in &events {
        let xid = event["dhcp"]["xid"].as_str().context("no transaction")?;
        let xid = xid.trim_start_matches("0x").trim_start_matches('0');
        ensure!(read.contains(&format!("xid 0x{xid}")), "no {xid} in {read}");
        ensure!(guest.iter().any(|line| line.contains(xid)), "no {xid} in {guest:?}");
    }
    Ok(())
}

#[test]
fn text_reads_as_tcpdump_does() -> Result<()> {
    let stage = Stage::new()?;
    let mut fixer = on_bridge(&stage.scene.host, &[])?;
    stage.lease()?;
    for message in ["offer", "ack"] {
        let line = fixer.stdout.wait(&format!("DHCP {message} "))?;
        let (time, rest) = line.split_once(' ').context("a time")?;
        ensure!(time.len() == "10:15:53.015772".len(), "{line}");
        let addresses = format!("{BRIDGE} egress IP {SERVER}.67 > 10.0.3.");
        ensure!(rest.starts_with(&addresses), "{line}");
        ensure!(rest.contains(".68: bad udp cksum 0x"), "{line}");
        ensure!(rest.contains("! fixed, DHCP "), "{line}");
        ensure!(rest.contains("client 02:00:00:00:00:77 your-ip 10.0.3."), "{line}");
        ensure!(!line.contains('\x1b'), "colour without a terminal: {line:?}");
    }
    let ended = fixer.stop(Signal::SIGTERM)?.ok()?;
    ensure!(ended.stdout.last().is_some_and(|line| line == "br0 egress: 2 fixed"), "{ended:?}");
    Ok(())
}

/// Sends a valid reply, and then a partial one.
fn valid_then_partial(scene: &Scene) -> Result<()> {
    let mut frame = reply::frame(&[9; 300]);
    frame[6..12].copy_from_slice(&MAC);
    PacketSocket::open(&scene.host, BRIDGE)?.send(&frame, None)?;
    send_partial(scene, BRIDGE, 1)
}

#[test]
fn valid_packets_are_shown_on_demand_and_counted_always() -> Result<()> {
    for (arguments, shown) in
        [(&[][..], &["fixed"][..]), (&["--all"], &["cksum ok valid", "fixed"])]
    {
        let scene = scene()?;
        let fixer = on_bridge(&scene.host, arguments)?;
        valid_then_partial(&scene)?;
        let ended = fixer.stop(Signal::SIGINT)?.ok()?;
        let (summary, lines) = ended.stdout.split_last().context("nothing was said")?;
        ensure!(summary == "br0 egress: 1 fixed, 1 valid", "{ended:?}");
        ensure!(lines.len() == shown.len(), "{arguments:?}: {ended:?}");
        for (line, word) in lines.iter().zip(shown) {
            ensure!(line.ends_with(word), "{arguments:?}: {ended:?}");
        }
    }
    Ok(())
}

#[test]
fn without_events_only_the_summary_is_said() -> Result<()> {
    let stage = Stage::new()?;
    let fixer = on_bridge(&stage.scene.host, &["--events", "none"])?;
    stage.lease()?;
    let ended = fixer.stop(Signal::SIGINT)?.ok()?;
    ensure!(ended.stdout == ["br0 egress: 2 fixed"], "{ended:?}");
    ensure!(ended.stderr == ["fixer: attached to egress of br0 (tcx)"], "{ended:?}");
    Ok(())
}
