//! What tcpdump hears and says: of what passes an interface, and of a capture file.

use std::{fmt, net::IpAddr, path::Path};

use anyhow::{Context as _, Result, bail, ensure};
use fixer_tests::command::{Running, output, program};
use fixer_user::net::netns::NetNs;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// What fixer looks at, in tcpdump's words: the replies of both protocols and the requests.
const FILTER: &str = "udp and ((src port 67 and dst port 68) or (src port 68 and dst port 67) \
                      or (src port 547 and dst port 546) or (src port 546 and dst port 547))";

/// Everything it knows, with times in nanoseconds and the bytes in hexadecimal.
const WORDY: [&str; 6] = ["-n", "-e", "-tt", "--time-stamp-precision=nano", "-vvv", "-xx"];

/// A packet in tcpdump's words.
#[derive(Clone)]
pub struct Packet {
    /// Nanoseconds since 1970.
    pub time: i64,
    /// Its bytes.
    pub frame: Vec<u8>,
    /// What is said of it, as an event of fixer says it: without what tcpdump cannot know.
    pub said: Value,
    /// The same in its own words.
    pub words: String,
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl Packet {
    /// Where the checksum lies: behind an Ethernet header, and an IP header without options.
    pub fn checksum_at(&self) -> usize {
        if self.said["src"].as_str().is_some_and(|src| src.contains(':')) { 60 } else { 40 }
    }

    /// The bytes with another checksum.
    pub fn with_checksum(&self, sum: u16) -> Vec<u8> {
        let (at, mut frame) = (self.checksum_at(), self.frame.clone());
        frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    /// Whether a server says it.
    pub fn is_reply(&self) -> bool {
        self.said["sport"] == 67 || self.said["sport"] == 547
    }

    /// Whether its sum is right.
    pub fn has_right_sum(&self) -> bool {
        self.words.contains(": [udp sum ok] ")
    }

    /// Whether its sum is wrong. One that has none is neither.
    pub fn has_bad_sum(&self) -> bool {
        self.words.contains(": [bad udp cksum ")
    }

    /// Whether it is of this transaction of DHCPv4.
    pub fn is_of(&self, xid: u32) -> bool {
        self.dhcp("xid") == &format!("{xid:#010x}")
    }

    /// A value in the DHCP message.
    pub fn dhcp(&self, key: &str) -> &Value {
        &self.said["dhcp"][key]
    }
}

/// A tcpdump at one side of an interface: `in` or `out`. It hears what comes in before the programs at
/// the hooks do, and what leaves after them.
pub struct Tap {
    running: Running,
}

impl Tap {
    /// Starts it, and waits until it listens.
    pub fn start(netns: &NetNs, interface: &str, side: &str) -> Result<Self> {
        let where_ = ["-i", interface, "-Q", side, "-l", "--immediate-mode"];
        let arguments = [&where_[..], &WORDY, &[FILTER]].concat();
        let mut running = Running::start(netns, program("tcpdump", &arguments))?;
        running.stderr.wait("listening on")?;
        Ok(Self { running })
    }

    /// Waits until it has heard of a transaction.
    pub fn hears(&mut self, xid: u32) -> Result<()> {
        self.running.stdout.wait(&format!("xid {xid:#x}")).map(drop)
    }

    /// Ends it. Hands over what it has heard.
    pub fn stop(self) -> Result<Vec<Packet>> {
        let ended = self.running.stop(Signal::SIGINT)?.ok()?;
        let none_lost = ended.stderr.iter().any(|line| line == "0 packets dropped by kernel");
        ensure!(none_lost, "tcpdump has lost packets: {:?}", ended.stderr);
        parse(ended.stdout.iter().map(String::as_str))
    }
}

/// What it says of a capture file.
pub fn read(netns: &NetNs, file: &Path) -> Result<Vec<Packet>> {
    let file = file.to_str().context("the path is text")?;
    let text = output(netns, "tcpdump", &[&WORDY[..], &["-r", file]].concat())?;
    parse(text.lines())
}

fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Vec<Packet>> {
    let mut packets: Vec<(String, String)> = Vec::new();
    for line in lines {
        let hex = line.strip_prefix("\t0x").and_then(|line| line.split_once(":  "));
        match (hex, packets.last_mut()) {
            (Some((_, digits)), Some((_, hex))) => hex.push_str(&digits.replace(' ', "")),
            (None, Some((words, _))) if line.starts_with([' ', '\t']) => {
                words.push(' ');
                words.push_str(line.trim());
            }
            _ => packets.push((line.to_owned(), String::new())),
        }
    }
    // Whoever is told to end may be in the middle of a packet; that comes after the last one.
    let whole = packets.into_iter().filter(|(_, hex)| !hex.is_empty());
    whole.map(|(words, hex)| packet(words, &hex)).collect()
}

fn packet(words: String, hex: &str) -> Result<Packet> {
    let frame = hex::decode(hex)?;
    let said = said(&words, &frame).with_context(|| words.clone())?;
    let (seconds, nanoseconds) = words[..20].split_once('.').context("a time")?;
    let time = seconds.parse::<i64>()? * 1_000_000_000 + nanoseconds.parse::<i64>()?;
    Ok(Packet { time, frame, said, words })
}

fn said(words: &str, frame: &[u8]) -> Result<Value> {
    let (headers, rest) = words.split_once(": [").context("a checksum")?;
    let (finding, message) = rest.split_once("] ").context("a message")?;
    let mut tokens = headers.split_whitespace();
    let src_mac = tokens.nth(1).context("a source")?;
    let dst_mac = tokens.nth(1).context("a destination")?.trim_end_matches(',');
    ensure!(between(headers, "length ", ":")?.parse() == Ok(frame.len()), "the frame's length");
    let dst = tokens.next_back().context("a destination")?;
    let src = tokens.nth_back(1).context("a source")?;
    let ((src, sport), (dst, dport)) = (endpoint(src)?, endpoint(dst)?);
    let (udp_len, mut dhcp) = match message.strip_prefix("dhcp6 ") {
        Some(message) => (between(headers, "payload length: ", ")")?.parse()?, six(message)?),
        None => (8 + between(message, "length ", ",")?.parse::<u16>()?, four(message)?),
    };
    let at = frame.len() - usize::from(udp_len) + 6;
    dhcp["client_id"] = json!(client_id(&frame[at + 2..], message.starts_with("dhcp6 ")));
    let [checksum, expected] = match finding.strip_prefix("bad udp cksum ") {
        Some(sums) => {
            let (stored, right) = sums.trim_end_matches('!').split_once(" -> ").context("sums")?;
            ensure!(stored == sum(frame, at), "another sum in {frame:?}");
            [stored, right].map(|sum| Some(sum.to_owned()))
        }
        None if finding == "udp sum ok" => [sum(frame, at), sum(frame, at)].map(Some),
        None if finding == "no cksum" => [Some(sum(frame, at)), None],
        None => bail!("not of the scene: {finding}"),
    };
    Ok(json!({
        "src_mac": src_mac, "dst_mac": dst_mac, "vlan": null,
        "src": src, "sport": sport, "dst": dst, "dport": dport, "udp_len": udp_len,
        "checksum": checksum, "expected": expected, "dhcp": dhcp,
    }))
}

fn endpoint(text: &str) -> Result<(IpAddr, u16)> {
    let (address, port) = text.rsplit_once('.').context("a port")?;
    Ok((address.parse()?, port.parse()?))
}

fn sum(frame: &[u8], at: usize) -> String {
    format!("0x{:02x}{:02x}", frame[at], frame[at + 1])
}

/// A message of DHCPv4. Of options in overloaded fields tcpdump says nothing, so what to boot and the
/// vendor class are told by [`super::tshark`].
fn four(text: &str) -> Result<Value> {
    let message_type = between(text, "DHCP-Message (53), length 1: ", " ")?.to_ascii_lowercase();
    let address = |name: &str| between(text, name, " ").ok();
    Ok(json!({
        "message_type": message_type.replace("nack", "nak"),
        "xid": xid(between(text, "xid 0x", ",")?, 8)?,
        "client_mac": address("Client-Ethernet-Address "),
        "your_ip": address("Your-IP "),
        "server_id": address("Server-ID (54), length 4: "),
        "next_server": address("Server-IP "),
        "boot_file": boot_file(text),
        "vendor_class": quoted(text, "Vendor-Class (60), length "),
    }))
}

/// How the client calls itself. tcpdump says it in words, and not all of it, so here it is read once more.
fn client_id(message: &[u8], is_six: bool) -> Option<String> {
    let (mut options, code, header) = match is_six {
        true => (&message[4..], 1, 4),
        false => (&message[240..], 61, 2),
    };
    while options.len() >= header {
        let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        let (found, len) = (number(&options[..header / 2]), number(&options[header / 2..header]));
        if found == code {
            let bytes = options[header..header + len].iter().map(|byte| format!("{byte:02x}"));
            return Some(bytes.collect::<Vec<_>>().join(":"));
        }
        match found {
            0 if !is_six => options = &options[1..],
            255 if !is_six => return None,
            _ => options = &options[header + len..],
        }
    }
    None
}

/// The option or else the field, unless that holds options.
fn boot_file(text: &str) -> Option<&str> {
    let field = || quoted(text, " file ").filter(|_| !text.contains("OO (52)"));
    quoted(text, "BF (67), length ").or_else(field)
}

/// What is in the quotes behind these words, without the NUL that some servers put at the end.
fn quoted<'a>(text: &'a str, before: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    let mut parts = rest.split('"').skip(1);
    parts.next().map(|text| text.trim_end_matches("^@"))
}

/// A message of DHCPv6. tcpdump does not say what is in a vendor class.
fn six(text: &str) -> Result<Value> {
    let (message_type, options) = text.split_once(" (xid=").context("a transaction")?;
    let message_type = message_type.replace("inf-req", "information-request");
    let digits = options.split([' ', ')']).next().context("a transaction")?;
    let client = between(options, "(client-ID ", ")").ok();
    let server = between(options, "(server-ID ", ")").ok().map(duid).transpose()?;
    Ok(json!({
        "message_type": message_type,
        "xid": xid(digits, 6)?,
        "client_mac": client.filter(|id| id.starts_with("hwaddr")).map(mac).transpose()?,
        "your_ip": between(options, "(IA_ADDR ", " ").ok(),
        "server_id": server,
        "next_server": null,
        "boot_file": null,
        "vendor_class": null,
    }))
}

/// `hwaddr type 1 0e46c7902e5e` as bytes with colons.
fn duid(text: &str) -> Result<String> {
    ensure!(text.starts_with("hwaddr type 1 "), "not of the scene: {text}");
    Ok(format!("00:03:00:01:{}", mac(text)?))
}

/// The address at the end of `hwaddr/time type 1 time 848652426 8a2542c26137`.
fn mac(text: &str) -> Result<String> {
    let digits = text.rsplit(' ').next().unwrap_or_default();
    ensure!(digits.len() == 12, "not of the scene: {text}");
    let bytes: Vec<_> = (0..6).map(|byte| &digits[2 * byte..2 * byte + 2]).collect();
    Ok(bytes.join(":"))
}

/// A number as fixer writes it, with all its digits: tcpdump writes no leading zeros.
fn xid(digits: &str, width: usize) -> Result<String> {
    ensure!(digits.len() <= width, "{digits}");
    Ok(format!("0x{digits:0>width$}"))
}

/// What stands between these words.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Result<&'a str> {
    let (_, rest) = text.split_once(before).with_context(|| format!("no '{before}'"))?;
    Ok(rest.split(after).next().unwrap_or(rest))
}
