//! A dnsmasq that was there before: the network's subnet has changed, the agent has started a new one,
//! and the old one still answers.

use anyhow::{Context as _, Result, ensure};

use super::{Act, BRIDGE, INTERFACE, NAMESPACE, PORT, attached, bridged, dnsmasq};
use crate::scenario::{
    guest::Guest,
    host::{Host, until},
    story,
};

/// The address of dnsmasq in the subnet that the network had before.
const OLD: &str = "192.168.6.2";

/// Its address now.
const NEW: &str = "192.168.7.2";

/// fixer where both servers are; it also sees what clients ask.
const WATCHING: &[&str] = &["run", "--netns", NAMESPACE, "-i", "ns-*", "--all", "--hook", "both"];

/// Two servers answer, until one is ended as the doctor says.
pub fn act() -> Result<Act> {
    let host = bridged()?;
    host.sh(&format!("ip -n {NAMESPACE} address add {OLD}/24 dev {INTERFACE}"))?;
    let old = dnsmasq(&host, INTERFACE, "192.168.6.10,192.168.6.90")?;
    let _new = dnsmasq(&host, INTERFACE, "192.168.7.10,192.168.7.90")?;
    let guest = Guest::behind(&host.netns, BRIDGE, PORT, 1)?;

    let mut fault = None;
    // One may be so slow that the client has its lease from the other before.
    until("both servers have answered", || {
        let (_, exchanges) = watch(&host, &guest)?;
        fault = exchanges.into_iter().find(|line| line.contains(OLD) && line.contains(NEW));
        Ok(fault.is_some())
    })?;

    let doctor = host.run("fixer", &["doctor", "--netns", NAMESPACE, "-i", "ns-*"])?;
    let told = doctor.stdout.iter().filter_map(|line| line.trim_start().strip_prefix("do:"));
    let mut commands = told.map(str::trim);
    let kill = commands.find(|command| command.starts_with("kill "));
    let kill = kill.context("the doctor names no server")?.to_owned();
    let found = story::finding(doctor, "servers answer")?;
    host.sh(&kill)?;
    old.end().context("the doctor named another server")?;

    let (client, exchanges) = watch(&host, &guest)?;
    ensure!(!exchanges.concat().contains(OLD), "the old server still answers: {exchanges:?}");
    Ok(Act {
        setting: "a dnsmasq left over from the subnet that the network had before".to_owned(),
        fault: format!("two servers answer: {}", fault.unwrap_or_default()),
        fixer: vec![
            format!("fixer {}", WATCHING.join(" ")),
            format!("doctor: {found}"),
            kill,
            format!("then {}", exchanges.join("; ")),
        ],
        client,
    })
}

/// What a client gets, and which exchanges there are, up to the one that gives it its lease.
fn watch(host: &Host, guest: &Guest) -> Result<(String, Vec<String>)> {
    let fixer = attached(host, WATCHING)?;
    let client = story::cure(&guest.ask()?)?;
    let ended = host.stop(fixer)?.ok()?;
    // How it ended, and who offered an address: `nak, offered by 10.0.0.1 and 10.0.0.2`.
    let exchange = |line: &String| {
        let (_, exchange) = line.split_once("DHCP exchange ")?;
        let (_, servers) = exchange.split_once("offered by ")?;
        Some(format!("{}, offered by {servers}", exchange.split(": ").nth(1)?))
    };
    Ok((client, ended.stdout.iter().filter_map(exchange).collect()))
}
