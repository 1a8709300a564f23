//! What `/metrics` says, and what it should say by tcpdump's account.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use fixer_common::verdict::TABLE;
use fixer_user::metrics::kernel;

use super::{
    capture::Event,
    conversation::{Exchange, SLACK},
    setting::Seen,
};

/// Every way that an exchange may end.
const OUTCOMES: [&str; 8] =
    ["lease", "nak", "no_offer", "unanswered_offer", "no_ack", "informed", "declined", "released"];

/// The values by name and labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Reads a page.
    pub fn parse(page: &str) -> Result<Self> {
        let value = |line: &str| -> Result<(String, f64)> {
            let (name, value) = line.rsplit_once(' ').with_context(|| line.to_owned())?;
            Ok((name.to_owned(), value.parse()?))
        };
        page.lines()
            .filter(|line| !line.starts_with('#'))
            .map(value)
            .collect::<Result<_>>()
            .map(Self)
    }

    /// The sum of the values whose names begin so.
    pub fn sum(&self, start: &str) -> f64 {
        self.0.iter().filter(|(name, _)| name.starts_with(start)).map(|(_, value)| value).sum()
    }

    fn add(&mut self, name: String, value: f64) {
        *self.0.entry(name).or_default() += value;
    }

    /// Takes the values out whose names begin so.
    fn take(&mut self, start: &str) -> Self {
        let taken = self.0.iter().filter(|(name, _)| name.starts_with(start));
        let taken: BTreeMap<_, _> = taken.map(|(name, value)| (name.clone(), *value)).collect();
        self.0.retain(|name, _| !taken.contains_key(name));
        Self(taken)
    }
}

/// Fails unless every value is as it must be: the counters as these events and exchanges make them, the
/// histogram as tcpdump's times do. `seconds` is what fixer has told of each exchange, in their order.
pub fn compare(
    seen: &Seen,
    events: &[Event],
    exchanges: &[&Exchange],
    seconds: &[f64],
) -> Result<()> {
    let mut found = seen.metrics.clone();
    let histograms = found.take("fixer_exchange_seconds");
    let expected = expected(seen, events);
    for (name, value) in &found.0 {
        let right =
            expected.0.get(name).with_context(|| format!("nothing makes {name} {value}"))?;
        ensure!(right == value, "{name} is {value}, but should be {right}");
    }
    let missing = expected.0.keys().find(|name| !found.0.contains_key(*name));
    ensure!(missing.is_none(), "no {missing:?} in {found:?}");
    for interface in seen.setting.interfaces() {
        let leases = exchanges.iter().zip(seconds).filter(|(exchange, _)| {
            let Exchange { outcome, began_with, .. } = exchange;
            exchange.interface == interface && outcome == "lease" && began_with == "discover"
        });
        let (leases, seconds): (Vec<_>, Vec<_>) = leases.unzip();
        histogram(&histograms, interface, &leases, &seconds)?;
    }
    Ok(())
}

fn expected(seen: &Seen, events: &[Event]) -> Metrics {
    let mut expected = Metrics::default();
    for (interface, hook) in seen.setting.places() {
        let at = format!("netns=\"host\",interface=\"{interface}\",hook=\"{hook}\"");
        for row in &TABLE {
            expected.add(format!("fixer_packets_total{{{at},verdict=\"{}\"}}", row.name), 0.0);
        }
        let mode = seen.setting.mode;
        expected.add(format!("fixer_interface_attached{{{at},mode=\"{mode}\"}}"), 1.0);
    }
    for Event { packet, place: (interface, hook), verdict } in events {
        let at = format!("netns=\"host\",interface=\"{interface}\"");
        expected
            .add(format!("fixer_packets_total{{{at},hook=\"{hook}\",verdict=\"{verdict}\"}}"), 1.0);
        let message_type = packet.dhcp("message_type").as_str().unwrap_or_default();
        let name = format!("fixer_dhcp_messages_total{{{at},message_type=\"{message_type}\"}}");
        expected.add(name, 1.0);
    }
    for interface in seen.setting.interfaces() {
        for outcome in OUTCOMES {
            let at = format!("netns=\"host\",interface=\"{interface}\",outcome=\"{outcome}\"");
            let count = seen
                .exchanges
                .iter()
                .filter(|exchange| exchange.interface == interface && exchange.outcome == outcome);
            expected.add(format!("fixer_exchanges_total{{{at}}}"), count.count() as f64);
        }
    }
    expected.add("fixer_events_lost_total{netns=\"host\"}".to_owned(), 0.0);
    expected.add("fixer_exchanges_forgotten_total{netns=\"host\"}".to_owned(), 0.0);
    let (version, kernel) = (env!("CARGO_PKG_VERSION"), kernel());
    expected.add(format!("fixer_build_info{{version=\"{version}\",kernel=\"{kernel}\"}}"), 1.0);
    expected
}

/// The histogram of an interface, beside these leases.
fn histogram(
    found: &Metrics,
    interface: &str,
    leases: &[&&Exchange],
    seconds: &[&f64],
) -> Result<()> {
    let at = format!("netns=\"host\",interface=\"{interface}\"");
    let value = |part: &str, labels: &str| {
        let name = format!("fixer_exchange_seconds_{part}{{{labels}{at}}}");
        found.0.get(&name).copied().with_context(|| format!("no {name} in {found:?}"))
    };
    let (count, sum) = (value("count", "")?, value("sum", "")?);
    ensure!(count == leases.len() as f64, "{count} leases, but by tcpdump {leases:#?}");
    // By tcpdump's clock, and by the exchanges that were told, which may be rounded to milliseconds.
    let middle = |lease: &&&Exchange| (lease.took.0 + lease.took.1) as f64 / 2e9;
    let by_tcpdump: f64 = leases.iter().map(middle).sum();
    let slack = count * SLACK as f64 / 1e9;
    ensure!((sum - by_tcpdump).abs() <= slack, "{sum} s, but by tcpdump {by_tcpdump} s");
    let told: f64 = seconds.iter().copied().sum();
    ensure!((sum - told).abs() <= 0.0006 * count, "{sum} s, but {told} s were told");
    let mut below = 0.0;
    for (name, held) in &found.0 {
        let Some((_, le)) = name.split_once("le=\"").filter(|_| name.contains(&at)) else {
            continue;
        };
        let bound = le.split('"').next().unwrap_or_default();
        let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse()? };
        let within = |edge: f64| seconds.iter().filter(|taken| ***taken <= edge).count() as f64;
        let range = within(bound - 0.0006)..=within(bound + 0.0006);
        ensure!(range.contains(held), "{name} is {held}, but should be {range:?}: {seconds:?}");
        below += 1.0;
    }
    ensure!(below == 14.0, "{below} buckets: {found:?}");
    Ok(())
}
