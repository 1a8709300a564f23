//! The rules as `nft -j list ruleset` tells them. What is not understood is passed over here.

use std::io;

use serde::Deserialize;
use serde_json::Value;

use super::{Chain, Hook, Ruleset};

#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Value>,
}

#[derive(Deserialize)]
struct ChainEntry {
    family: String,
    table: String,
    name: String,
    hook: Option<String>,
    prio: Option<i64>,
    policy: Option<String>,
    dev: Option<Value>,
}

#[derive(Deserialize)]
struct RuleEntry {
    family: String,
    table: String,
    chain: String,
    #[serde(default)]
    expr: Vec<Value>,
}

#[derive(Deserialize)]
struct SetEntry {
    family: String,
    table: String,
    name: String,
    #[serde(default)]
    elem: Value,
}

/// Adds what a listing holds.
pub(super) fn read(listing: &str, ruleset: &mut Ruleset) -> io::Result<()> {
    if listing.trim().is_empty() {
        return Ok(());
    }
    let listing: Listing = serde_json::from_str(listing)
        .map_err(|error| io::Error::other(format!("nft's listing is not understood: {error}")))?;
    for entry in listing.nftables {
        let Value::Object(entry) = entry else { continue };
        for (kind, value) in entry {
            match kind.as_str() {
                "chain" => ruleset.chains.extend(understood(value).map(chain)),
                "rule" => {
                    if let Some(rule) = understood(value) {
                        add(ruleset, rule);
                    }
                }
                "set" | "map" => ruleset.sets.extend(
                    understood(value)
                        .map(|set: SetEntry| ([set.family, set.table, set.name], set.elem)),
                ),
                _ => {}
            }
        }
    }
    Ok(())
}

fn understood<T: for<'de> Deserialize<'de>>(value: Value) -> Option<T> {
    serde_json::from_value(value).ok()
}

fn chain(entry: ChainEntry) -> Chain {
    let hook = entry.hook.map(|name| Hook {
        name,
        priority: entry.prio.unwrap_or_default(),
        drops: entry.policy.as_deref() == Some("drop"),
        devices: devices(entry.dev.as_ref()),
    });
    let ChainEntry { family, table, name, .. } = entry;
    Chain { family, table, name, hook, ..Chain::default() }
}

/// One device is told by its name, several by a list of them.
fn devices(told: Option<&Value>) -> Option<Vec<String>> {
    let one = |name: &Value| name.as_str().map(str::to_owned);
    Some(match told? {
        Value::Array(many) => many.iter().filter_map(one).collect(),
        name => one(name).into_iter().collect(),
    })
}

/// Adds the devices of chains as `nft list chains netdev`, or `inet`, tells them: the JSON of nft 1.0.6
/// does not.
pub(super) fn read_devices(listing: &str, ruleset: &mut Ruleset) {
    let (mut family, mut table, mut name) = ("", "", "");
    for line in listing.lines().map(str::trim) {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["table", of, named, "{"] => (family, table) = (of, named),
            ["chain", of, "{"] => name = of,
            ["type", ..] => {
                let its = ruleset.chains.iter_mut().filter(|chain| {
                    (&*chain.family, &*chain.table, &*chain.name) == (family, table, name)
                });
                let hooks = its.filter_map(|chain| chain.hook.as_mut());
                for hook in hooks.filter(|hook| hook.is_of_devices()) {
                    hook.devices = devices_in(line);
                }
            }
            _ => {}
        }
    }
}

/// `type filter hook ingress device "br0" priority 0;`, or `devices = { br0, br1 }`.
fn devices_in(line: &str) -> Option<Vec<String>> {
    let list = match line.split_once(" devices = {") {
        Some((_, list)) => list.split('}').next()?,
        None => line.split_once(" device ")?.1.split_whitespace().next()?,
    };
    Some(list.split(',').map(|device| device.trim().trim_matches('"').to_owned()).collect())
}

fn add(ruleset: &mut Ruleset, rule: RuleEntry) {
    let its = |chain: &&mut Chain| {
        (&chain.family, &chain.table, &chain.name) == (&rule.family, &rule.table, &rule.chain)
    };
    if let Some(chain) = ruleset.chains.iter_mut().find(its) {
        chain.rules.push(rule.expr);
    }
}

/// Whether a rule has a match of iptables', of which nft tells the name and not what it matches.
pub(super) fn hides_match(rule: &[Value]) -> bool {
    let of_iptables = rule.iter().filter_map(|statement| statement.get("xt"));
    of_iptables.into_iter().any(|it| it["type"] != "target")
}
