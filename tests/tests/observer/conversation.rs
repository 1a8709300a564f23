//! The exchanges that a reader of tcpdump's lines would tell of.
//!
//! It looks at one client after the other, with all of its messages before it, while fixer goes through all
//! messages as they come and knows no later ones.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::tcpdump::Packet;

/// After how long a silence an exchange is over, in nanoseconds.
pub const SILENCE: i64 = 3_000_000_000;

/// How far apart two clocks may be that look at the same packet on a busy machine, in nanoseconds.
pub const SLACK: i64 = 250_000_000;

/// How long it may take until a silence is noticed, in nanoseconds.
const LATE: i64 = 3_000_000_000;

/// A message and the interface where it came to be seen first.
#[derive(Clone, Debug)]
pub struct Message {
    /// The message.
    pub packet: Packet,
    /// The interface.
    pub interface: String,
}

/// An exchange that is over.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exchange {
    /// Where the client was seen.
    pub interface: String,
    /// How it ended.
    pub outcome: String,
    /// The client's last transaction.
    pub xid: String,
    /// The client.
    pub client_mac: String,
    /// Whether it boots over the network.
    pub pxe: bool,
    /// The type of the first message.
    pub began_with: String,
    /// How often a message was repeated.
    pub retries: u64,
    /// Who has offered an address.
    pub servers: Vec<String>,
    /// Who had the last word, or was asked last.
    pub server: Option<String>,
    /// What the client got.
    pub your_ip: Option<String>,
    /// When it began, in nanoseconds since 1970.
    pub began: i64,
    /// How long it took at least and at most, in nanoseconds.
    pub took: (i64, i64),
}

/// Every exchange in these messages of DHCPv4, in no order.
pub fn exchanges(messages: &[Message]) -> Result<Vec<Exchange>> {
    let mut clients: BTreeMap<&str, Vec<&Message>> = BTreeMap::new();
    for message in messages.iter().filter(|message| message.packet.checksum_at() == 40) {
        let mac = message.packet.dhcp("client_mac").as_str().context("a client")?;
        clients.entry(mac).or_default().push(message);
    }
    let mut told = Vec::new();
    for messages in clients.values_mut() {
        messages.sort_by_key(|message| message.packet.time);
        let mut rest = &messages[..];
        while let Some(from) = rest.iter().position(|message| !message.packet.is_reply()) {
            let (exchange, len) = first(&rest[from..])?;
            told.push(exchange);
            rest = &rest[from + len..];
        }
    }
    Ok(told)
}

fn word(message: &Message) -> &str {
    message.packet.dhcp("message_type").as_str().unwrap_or_default()
}

fn text(message: &Message, key: &str) -> Option<String> {
    message.packet.dhcp(key).as_str().map(str::to_owned)
}

/// The exchange that these messages begin with, and how many of them it takes.
fn first(messages: &[&Message]) -> Result<(Exchange, usize)> {
    let (mut xids, mut discovers, mut requests, mut last) = (BTreeSet::new(), 0, 0, 0);
    let mut told = Exchange {
        interface: messages[0].interface.clone(),
        began_with: word(messages[0]).to_owned(),
        client_mac: text(messages[0], "client_mac").unwrap_or_default(),
        began: messages[0].packet.time,
        ..Exchange::default()
    };
    for (number, message) in messages.iter().enumerate() {
        let (time, xid) = (message.packet.time, text(message, "xid").unwrap_or_default());
        if number > 0 && time - last > SILENCE {
            return Ok((silent(told, last, requests), number));
        }
        if message.packet.is_reply() {
            if !xids.contains(&xid) {
                continue;
            }
            let server = text(message, "server_id").context("a server")?;
            let outcome = match word(message) {
                "offer" if told.servers.contains(&server) => "",
                "offer" => {
                    told.servers.push(server.clone());
                    ""
                }
                "ack" if told.began_with == "inform" => "informed",
                "ack" => "lease",
                "nak" => "nak",
                other => bail!("a server says {other}"),
            };
            last = time;
            if !outcome.is_empty() {
                told.your_ip = text(message, "your_ip").filter(|_| outcome == "lease");
                return Ok((over(told, outcome, Some(server), time), number + 1));
            }
            continue;
        }
        match word(message) {
            // Once something is asked for, a DISCOVER is a new beginning.
            "discover" if requests > 0 => return Ok((silent(told, last, requests), number)),
            "discover" => discovers += 1,
            "request" | "inform" => requests += 1,
            "decline" | "release" => {
                ensure!(number == 0, "{} in the middle", message.packet.words);
                told.xid = xid;
                let outcome = format!("{}d", word(message));
                return Ok((over(told, &outcome, text(message, "server_id"), time), 1));
            }
            other => bail!("a client says {other}"),
        }
        let class = text(message, "vendor_class").unwrap_or_default();
        told.pxe |= class.starts_with("PXEClient");
        told.server = text(message, "server_id").or(told.server);
        told.retries = repeated(discovers) + repeated(requests);
        told.xid.clone_from(&xid);
        xids.insert(xid);
        last = time;
    }
    Ok((silent(told, last, requests), messages.len()))
}

fn repeated(count: u64) -> u64 {
    count.saturating_sub(1)
}

fn over(told: Exchange, outcome: &str, server: Option<String>, time: i64) -> Exchange {
    let took = time - told.began;
    Exchange { outcome: outcome.to_owned(), server, took: (took - SLACK, took + SLACK), ..told }
}

/// Nothing comes any more after this moment.
fn silent(told: Exchange, last: i64, requests: u64) -> Exchange {
    let outcome = match (requests, told.servers.is_empty()) {
        (1.., _) => "no_ack",
        (0, true) => "no_offer",
        (0, false) => "unanswered_offer",
    };
    let least = last - told.began + SILENCE;
    let took = (least - SLACK, least + LATE + SLACK);
    Exchange { outcome: outcome.to_owned(), took, ..told }
}

impl Exchange {
    /// Fails unless fixer's object of an exchange says the same.
    pub fn is_told_by(&self, told: &Value) -> Result<()> {
        let Self { interface, outcome, xid, client_mac, pxe, began_with, .. } = self;
        let exchange = &told["exchange"];
        let expected = [
            ("outcome", outcome.as_str().into()),
            ("xid", xid.as_str().into()),
            ("client_mac", client_mac.as_str().into()),
            ("pxe", (*pxe).into()),
            ("began_with", began_with.as_str().into()),
            ("retries", self.retries.into()),
            ("servers", self.servers.clone().into()),
            ("boot_servers", Value::Array(Vec::new())),
            ("server", self.server.clone().into()),
            ("your_ip", self.your_ip.clone().into()),
        ];
        for (key, value) in expected {
            ensure!(exchange[key] == value, "{key} is not {value} in {told}, by {self:#?}");
        }
        ensure!(told["interface"] == **interface && told["netns"] == "host", "{told}");
        self.takes(exchange["seconds"].as_f64().context("a duration")?)
    }

    /// Fails unless fixer's line of an exchange says the same. Returns the seconds in it.
    pub fn is_told_in(&self, line: &str) -> Result<f64> {
        let Self { interface, outcome, xid, client_mac, .. } = self;
        let pxe = if self.pxe { " (PXE)" } else { "" };
        let who =
            format!(" {interface} DHCP exchange xid {xid} client {client_mac}{pxe}: {outcome}: ");
        ensure!(line.contains(&who), "no '{who}' in {line}");
        let address = self.your_ip.iter().map(|address| format!(", {address}"));
        let server = self.server.iter().map(|server| format!(", server {server}"));
        let before: String = address.chain(server).collect();
        let (start, rest) = line.split_once(", in ").context("a duration")?;
        ensure!(start.ends_with(&before), "no '{before}' in {line}");
        let (seconds, rest) = rest.split_once(" s").context("a duration")?;
        let retries = match self.retries {
            0 => String::new(),
            1 => ", 1 retry".to_owned(),
            retries => format!(", {retries} retries"),
        };
        let offered = match &self.servers[..] {
            [] => String::new(),
            servers => format!(", offered by {}", servers.join(" and ")),
        };
        ensure!(rest == format!("{retries}{offered}"), "{line}, by {self:#?}");
        let seconds = seconds.parse()?;
        self.takes(seconds)?;
        Ok(seconds)
    }

    fn takes(&self, seconds: f64) -> Result<()> {
        let (least, most) = self.took;
        let took = (seconds * 1e9) as i64;
        ensure!((least..=most).contains(&took), "{seconds} s are wrong: {self:#?}");
        Ok(())
    }
}
