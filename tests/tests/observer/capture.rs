//! The events that a capture file of fixer tells of, read by tcpdump and tshark and not by fixer.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use fixer_tests::tshark;
use fixer_user::net::netns::NetNs;
use nix::net::if_::if_nametoindex;
use serde_json::{Value, json};

use super::{
    stage::CORRUPT,
    tcpdump::{self, Packet},
};

/// Where a packet was seen: an interface and a hook.
pub type Place = (String, &'static str);

/// An event as the capture file has it.
#[derive(Clone, Debug)]
pub struct Event {
    /// The packet as it was seen, before it was fixed, in the words of tcpdump.
    pub packet: Packet,
    /// Where.
    pub place: Place,
    /// What fixer should have made of it.
    pub verdict: &'static str,
}

/// What tshark is asked.
const FIELDS: [&str; 10] = [
    "frame.interface_name",
    "frame.packet_flags_direction",
    "frame.comment",
    "frame.time_epoch",
    "frame.len",
    "dhcp.option.bootfile_name",
    "dhcp.file",
    "dhcp.option.vendor_class_id",
    "dhcpv6.vendorclass.data",
    "udp.checksum_calculated",
];

/// The events of a capture file. What is `bad` is called so by tcpdump; `mended` is what fixer calls that.
pub fn read(netns: &NetNs, file: &Path, mended: &'static str) -> Result<Vec<Event>> {
    let packets = tcpdump::read(netns, file)?;
    let rows = tshark::read(file, FIELDS)?;
    ensure!(packets.len() == rows.len(), "{} packets, but {}", packets.len(), rows.len());
    let both = packets.into_iter().zip(rows);
    both.map(|(packet, row)| event(packet, &row, mended)).collect()
}

fn event(mut packet: Packet, row: &[String; 10], mended: &'static str) -> Result<Event> {
    let [interface, direction, comment, time, len, option, field, class, class6, sum] = row;
    let said = &mut packet.said;
    // Two opinions on the time, the length and the sum, of the same bytes.
    let seconds = format!("{}.{:09}", packet.time / 1_000_000_000, packet.time % 1_000_000_000);
    ensure!(*time == seconds, "{time}, but tcpdump says {seconds}");
    ensure!(len.parse() == Ok(packet.frame.len()), "{len} in {packet:?}");
    let computed = said["expected"].as_str().unwrap_or_default();
    ensure!(computed == sum, "tshark computes {sum}, but tcpdump says {said}");
    let filled = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    // What tcpdump says of these has to be the same, where it says something.
    let dhcp = &mut said["dhcp"];
    for (key, told) in [
        ("boot_file", filled(option).or_else(|| filled(field))),
        ("vendor_class", filled(class).or_else(|| filled(class6))),
    ] {
        ensure!(dhcp[key].is_null() || dhcp[key].as_str() == told.as_deref(), "{told:?}: {dhcp}");
        dhcp[key] = json!(told);
    }
    let hook = match direction.as_str() {
        "0x00000001" => "ingress",
        "0x00000002" => "egress",
        direction => anyhow::bail!("no direction is {direction}"),
    };
    let verdict = match (packet.has_bad_sum(), packet.has_right_sum()) {
        (true, _) if packet.is_of(CORRUPT) => "corrupt",
        (true, _) => mended,
        (_, true) => "valid",
        _ => "unchecked",
    };
    let event = Event { packet, place: (interface.clone(), hook), verdict };
    let finding = event.finding();
    ensure!(*comment == finding, "the comment is '{comment}' and not '{finding}'");
    Ok(event)
}

impl Event {
    /// The bytes as they leave the hook.
    pub fn after(&self) -> Result<Vec<u8>> {
        if self.verdict != "fixed" {
            return Ok(self.packet.frame.clone());
        }
        let right = self.packet.said["expected"].as_str().unwrap_or_default();
        let right = u16::from_str_radix(right.trim_start_matches("0x"), 16).context("a sum")?;
        Ok(self.packet.with_checksum(right))
    }

    /// The object that fixer should have written, but for the time.
    pub fn json(&self, netns: &NetNs) -> Result<Value> {
        let (interface, hook) = &self.place;
        let mut event = self.packet.said.clone();
        event["netns"] = "host".into();
        event["interface"] = interface.as_str().into();
        event["ifindex"] = netns.run(|| if_nametoindex(interface.as_str()))??.into();
        event["hook"] = (*hook).into();
        event["verdict"] = self.verdict.into();
        Ok(event)
    }

    /// What fixer should have found.
    fn finding(&self) -> String {
        let sum = |key: &str| self.packet.said[key].as_str().unwrap_or_default();
        match self.verdict {
            "valid" => "udp cksum ok valid".to_owned(),
            "unchecked" => "no cksum unchecked".to_owned(),
            bad => format!("bad udp cksum {} -> {}! {bad}", sum("checksum"), sum("expected")),
        }
    }

    /// The line that fixer should have written.
    pub fn text(&self) -> String {
        let Self { packet, place: (interface, hook), .. } = self;
        let finding = self.finding();
        let said = &packet.said;
        let word = |key: &str| said[key].as_str().unwrap_or_default();
        let [ip, dhcp] =
            if packet.checksum_at() == 60 { ["IP6", "DHCPv6"] } else { ["IP", "DHCP"] };
        let mut line = format!(
            "{} {interface} {hook} {ip} {}.{} > {}.{}: {finding}, {dhcp}",
            time_of_day(packet.time),
            word("src"),
            said["sport"],
            word("dst"),
            said["dport"],
        );
        for (name, key) in [
            ("", "message_type"),
            ("xid ", "xid"),
            ("client ", "client_mac"),
            ("client-id ", if packet.dhcp("client_mac").is_null() { "client_id" } else { "" }),
            ("your-ip ", "your_ip"),
            ("server ", "server_id"),
            ("next-server ", "next_server"),
        ] {
            if let Some(value) = packet.dhcp(key).as_str() {
                line.push_str(&format!(" {name}{value}"));
            }
        }
        for (name, key) in [("boot-file", "boot_file"), ("vendor-class", "vendor_class")] {
            if let Some(value) = packet.dhcp(key).as_str() {
                line.push_str(&format!(" {name} {value:?}"));
            }
        }
        line
    }
}

/// `10:15:53.015772`, UTC.
fn time_of_day(time: i64) -> String {
    let (seconds, micros) = (time / 1_000_000_000, time % 1_000_000_000 / 1000);
    format!("{:02}:{:02}:{:02}.{micros:06}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}
