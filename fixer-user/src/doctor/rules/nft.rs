//! The rules as `nft -j list ruleset` tells them. What is not understood is passed over.

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
        device: entry.dev.as_ref().and_then(Value::as_str).map(str::to_owned),
    });
    let ChainEntry { family, table, name, .. } = entry;
    Chain { family, table, name, hook, ..Chain::default() }
}

fn add(ruleset: &mut Ruleset, rule: RuleEntry) {
    let its = |chain: &&mut Chain| {
        (&chain.family, &chain.table, &chain.name) == (&rule.family, &rule.table, &rule.chain)
    };
    if let Some(chain) = ruleset.chains.iter_mut().find(its) {
        chain.rules.push(rule.expr);
    }
}
