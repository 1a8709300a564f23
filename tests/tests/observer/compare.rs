//! Everything that was said, beside what it should have been.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};
use fixer_common::verdict::TABLE;
use serde_json::Value;

use super::{
    capture::{self, Event, Place},
    conversation::{Exchange, SLACK},
    metrics,
    setting::{Seen, Shown},
    stage,
    tcpdump::Packet,
};

/// How far apart two processes may read the clock, in nanoseconds.
const CLOCK: i64 = 1_000_000;

/// Compares everything that holds in every setting. Says how much that was.
pub fn everything(seen: &Seen) -> Result<String> {
    let mut exchanges: Vec<_> = seen.exchanges.iter().collect();
    exchanges.sort_by_key(|exchange| (&exchange.client_mac, exchange.began));
    let mut both = Vec::new();
    for shown in &seen.shown {
        let events = capture::read(&seen.host, &shown.capture, seen.setting.mended)?;
        for place in seen.setting.places() {
            at_a_place(seen, &events, &place)
                .with_context(|| format!("{} {}", place.0, place.1))?;
        }
        let seconds = stream(seen, shown, &events, &exchanges)?;
        both.push((events, seconds));
    }
    let [(events, Some(seconds)), (_, None)] = &both[..] else {
        bail!("exchanges are for run to tell, and not for watch");
    };
    metrics::compare(seen, events, &exchanges, seconds)?;
    status(seen, events)?;
    top(seen, events)?;
    let (packets, places, exchanges) = (events.len(), seen.setting.places().len(), exchanges.len());
    Ok(format!("{packets} packets at {places} hooks, {exchanges} exchanges: as tcpdump has them"))
}

/// The packets of one place are those that tcpdump has heard there.
fn at_a_place(seen: &Seen, events: &[Event], place: &Place) -> Result<()> {
    let mut seen_here: Vec<_> = events.iter().filter(|event| event.place == *place).collect();
    let mut heard: Vec<_> = seen.tap(&place.0, place.1)?.iter().collect();
    ensure!(
        seen_here.len() == heard.len(),
        "{} packets, but tcpdump has heard {}",
        seen_here.len(),
        heard.len()
    );
    ensure!(!heard.is_empty(), "nothing was heard");
    // On several processors packets may change places, and a client may repeat itself to the letter.
    let is_ingress = place.1 == "ingress";
    let bytes =
        |event: &Event| if is_ingress { Ok(event.packet.frame.clone()) } else { event.after() };
    seen_here.sort_by_cached_key(|event| (bytes(event).ok(), event.packet.time));
    heard.sort_by_key(|packet| (&packet.frame, packet.time));
    for (event, packet) in seen_here.into_iter().zip(heard) {
        ensure!(bytes(event)? == packet.frame, "{event:#?}, but tcpdump has heard {packet:#?}");
        // The words are the same too, but for the sum that was mended.
        let mut said = event.packet.said.clone();
        if !is_ingress && event.verdict == "fixed" {
            said["checksum"] = said["expected"].clone();
        }
        for key in ["boot_file", "vendor_class"] {
            said["dhcp"][key] = packet.dhcp(key).clone();
        }
        ensure!(said == packet.said, "{said:#}, but tcpdump says {:#}", packet.said);
        // A program hears later than tcpdump what comes in, and sooner what leaves.
        let later = event.packet.time - packet.time;
        let range = if is_ingress { -CLOCK..SLACK } else { -SLACK..CLOCK };
        ensure!(range.contains(&later), "{later} ns between {event:#?} and {packet:#?}");
    }
    Ok(())
}

/// Each line of the stream says what its packet in the capture file is, in the same order. Returns how
/// long each exchange took, by what was told, if exchanges were told.
fn stream(
    seen: &Seen,
    shown: &Shown,
    events: &[Event],
    exchanges: &[&Exchange],
) -> Result<Option<Vec<f64>>> {
    let is_text = shown.how == "text";
    let of_exchange = if is_text { " DHCP exchange " } else { "\"exchange\":{" };
    let summary = summary(seen, events);
    let mut lines = shown.ended.stdout.clone();
    let last = if is_text {
        lines.split_off(lines.len().saturating_sub(summary.len()))
    } else {
        let is_ours = |line: &&String| !line.starts_with("fixer: ");
        shown.ended.stderr.iter().filter(is_ours).cloned().collect()
    };
    let found: BTreeSet<_> = last.into_iter().collect();
    ensure!(found == summary, "{found:#?} at the end, but it should be {summary:#?}");
    let (told, lines): (Vec<_>, Vec<_>) =
        lines.into_iter().partition(|line| line.contains(of_exchange));
    ensure!(lines.len() == events.len(), "{} lines for {} packets", lines.len(), events.len());
    for (line, event) in lines.iter().zip(events) {
        if is_text {
            ensure!(*line == event.text(), "{line}\nshould be\n{}", event.text());
        } else {
            object(seen, line, event)?;
        }
    }
    if told.is_empty() {
        return Ok(None);
    }
    ensure!(told.len() == exchanges.len(), "{told:#?}, but tcpdump tells {exchanges:#?}");
    if is_text { told_in_text(told, exchanges) } else { told_in_json(&told, exchanges) }.map(Some)
}

fn object(seen: &Seen, line: &str, event: &Event) -> Result<()> {
    let mut object: Value = serde_json::from_str(line)?;
    let time = object.as_object_mut().and_then(|keys| keys.remove("time")).context("a time")?;
    let nanoseconds = event.packet.time % 1_000_000_000;
    let text = event.text();
    let (of_day, _) = text.split_once('.').context("a time")?;
    let expected = format!("T{of_day}.{nanoseconds:09}Z");
    ensure!(time.as_str().is_some_and(|time| time.ends_with(&expected)), "{line}: {expected}");
    let expected = event.json(&seen.host)?;
    ensure!(object == expected, "{object:#} should be {expected:#}");
    Ok(())
}

/// Those of a client are told in their order.
fn told_in_json(told: &[String], exchanges: &[&Exchange]) -> Result<Vec<f64>> {
    let told: Result<Vec<Value>, _> = told.iter().map(|line| serde_json::from_str(line)).collect();
    let mut told = told?;
    told.sort_by_key(|told| told["exchange"]["client_mac"].to_string());
    for (told, exchange) in told.iter().zip(exchanges) {
        exchange.is_told_by(told)?;
    }
    let seconds = told.iter().map(|told| told["exchange"]["seconds"].as_f64());
    seconds.collect::<Option<_>>().context("a duration")
}

fn told_in_text(mut told: Vec<String>, exchanges: &[&Exchange]) -> Result<Vec<f64>> {
    told.sort_by_key(|line| line.split(" client ").nth(1).map(|client| client[..17].to_owned()));
    let both = told.iter().zip(exchanges);
    both.map(|(line, exchange)| exchange.is_told_in(line)).collect()
}

/// How many packets of each verdict there were at each place.
fn counts(events: &[Event]) -> BTreeMap<&Place, BTreeMap<&str, u64>> {
    let mut counts: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for event in events {
        *counts.entry(&event.place).or_default().entry(event.verdict).or_default() += 1;
    }
    counts
}

/// The lines that end a run and a watch.
fn summary(seen: &Seen, events: &[Event]) -> BTreeSet<String> {
    let counts = counts(events);
    let line = |(interface, hook): &Place| {
        let here = &counts[&(interface.clone(), *hook)];
        let words =
            TABLE.iter().filter_map(|row| Some(format!("{} {}", here.get(row.name)?, row.name)));
        format!("{interface} {hook}: {}", words.collect::<Vec<_>>().join(", "))
    };
    seen.setting.places().iter().map(line).collect()
}

fn status(seen: &Seen, events: &[Event]) -> Result<()> {
    let counts = counts(events);
    ensure!(seen.status.len() == counts.len(), "{:#?}", seen.status);
    for entry in &seen.status {
        let interface = entry["interface"].as_str().unwrap_or_default();
        let place =
            counts.iter().find(|((name, hook), _)| name == interface && entry["hook"] == *hook);
        let (_, counts) = place.with_context(|| format!("nothing was seen at {entry}"))?;
        for row in &TABLE {
            let right = counts.get(row.name).copied().unwrap_or_default();
            ensure!(entry["packets"][row.name] == right, "{}: {right}, but {entry}", row.name);
        }
        ensure!(entry["mode"] == seen.setting.mode && entry["held_by"] == "run", "{entry}");
    }
    Ok(())
}

/// The total in the row of each hook is that of all verdicts.
fn top(seen: &Seen, events: &[Event]) -> Result<()> {
    for ((interface, hook), counts) in counts(events) {
        let total = counts.values().sum::<u64>().to_string();
        let rows = seen.top.iter().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let is_its = |row: &Vec<&str>| row.windows(2).any(|cells| cells == [interface, *hook]);
        let row = rows.clone().find(is_its).with_context(|| format!("{:#?}", seen.top))?;
        ensure!(row.contains(&&*total), "{total} packets at {interface} {hook}: {:#?}", seen.top);
    }
    Ok(())
}

/// Every reply that a port has mended left the bridge as fixer says that it has seen it, and came to
/// the guest behind it as it left.
pub fn mended_on_the_way(seen: &Seen) -> Result<()> {
    let events = capture::read(&seen.host, &seen.shown[0].capture, seen.setting.mended)?;
    let sent: BTreeSet<_> = seen.tap("br0", "egress")?.iter().map(|packet| &packet.frame).collect();
    let right = seen.tap("br0", "egress")?.iter().find(|packet| packet.has_right_sum());
    ensure!(right.is_none(), "nothing was wrong with {right:#?}");
    for event in events.iter().filter(|event| event.packet.is_reply()) {
        ensure!(sent.contains(&event.packet.frame), "the bridge has never sent {event:#?}");
    }
    for (interface, guest) in seen.setting.interfaces().into_iter().zip(&seen.guests) {
        let frames = |packets: &[Packet]| {
            let mut frames: Vec<_> = packets.iter().map(|packet| packet.frame.clone()).collect();
            frames.sort();
            frames
        };
        let left = frames(seen.tap(interface, "egress")?);
        ensure!(left == frames(guest), "{interface}: not what left came to the guest");
    }
    right_at_the_guests(seen)
}

/// tcpdump finds no bad sum in any reply that has come to a guest, but in the one that was sent so, and at
/// least one guest has heard each that was sent.
pub fn right_at_the_guests(seen: &Seen) -> Result<()> {
    let replies = replies_at_guests(seen);
    let bad = replies.iter().find(|packet| packet.has_bad_sum() && !packet.is_of(stage::CORRUPT));
    ensure!(bad.is_none(), "a guest has got {bad:#?}");
    all_were_heard(seen, &replies)
}

/// Where nothing is mended, nothing is right: only what no program left to the kernel may be.
pub fn wrong_at_the_guests(seen: &Seen) -> Result<()> {
    let replies = replies_at_guests(seen);
    let right = replies.iter().find(|packet| packet.has_right_sum());
    ensure!(right.is_none(), "nothing is wrong with {right:#?}");
    all_were_heard(seen, &replies)
}

fn replies_at_guests(seen: &Seen) -> Vec<&Packet> {
    seen.guests.iter().flatten().filter(|packet| packet.is_reply()).collect()
}

fn all_were_heard(seen: &Seen, replies: &[&Packet]) -> Result<()> {
    let heard: BTreeSet<_> = replies.iter().map(|packet| packet.with_checksum(0)).collect();
    let sent = seen.tap("br0", "egress")?.iter().map(|packet| packet.with_checksum(0));
    ensure!(heard == sent.collect(), "not what was sent was heard");
    Ok(())
}
