//! The rules as `iptables-save` tells them: the old iptables has no other way to be asked. They are
//! put into the words of nftables, so that packets walk through both alike.

use serde_json::{Value, json};

use super::{Chain, Hook, Ruleset};

/// Adds what a listing holds.
pub(super) fn read(listing: &str, is_legacy: bool, ruleset: &mut Ruleset) {
    let mut table = String::new();
    for line in listing.lines() {
        if let Some(name) = line.strip_prefix('*') {
            name.clone_into(&mut table);
        } else if let Some(line) = line.strip_prefix(':') {
            let mut words = line.split_whitespace();
            let (name, policy) = (words.next().unwrap_or_default(), words.next());
            let hook = hook(&table, name, policy == Some("DROP"));
            let (family, table, name) = ("ip".to_owned(), table.clone(), name.to_owned());
            ruleset.chains.push(Chain { family, table, name, hook, is_legacy, rules: Vec::new() });
        } else if let Some(line) = line.strip_prefix("-A ") {
            let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
            let its = |chain: &&mut Chain| {
                chain.is_legacy == is_legacy && chain.table == table && chain.name == name
            };
            // Every chain is told before the first rule; another target is an extension.
            let is_chain = |name: &str| {
                ruleset.chains.iter().any(|chain| {
                    (chain.is_legacy, &*chain.table, &*chain.name) == (is_legacy, &*table, name)
                })
            };
            let rule = rule(rest, is_chain);
            if let Some(chain) = ruleset.chains.iter_mut().rev().find(its) {
                chain.rules.push(rule);
            }
        }
    }
}

/// The hook of a built-in chain, and at which priority its table is there.
fn hook(table: &str, chain: &str, drops: bool) -> Option<Hook> {
    const BUILT_IN: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
    if !BUILT_IN.contains(&chain) {
        return None;
    }
    let priority = match table {
        "raw" => -300,
        "mangle" => -150,
        "security" => 50,
        _ => 0,
    };
    Some(Hook { name: chain.to_lowercase(), priority, drops, devices: None })
}

fn rule(line: &str, is_chain: impl Fn(&str) -> bool) -> Vec<Value> {
    let mut statements = Vec::new();
    let mut words = line.split_whitespace();
    let mut is_negated = false;
    while let Some(word) = words.next() {
        let operator = if std::mem::take(&mut is_negated) { "!=" } else { "==" };
        let mut compare = |left: Value, right: Option<Value>| {
            statements.push(json!({"match": {"op": operator, "left": left, "right": right}}));
        };
        match word {
            "!" => is_negated = true,
            "-i" => compare(json!({"meta": {"key": "iifname"}}), name(words.next())),
            "-o" => compare(json!({"meta": {"key": "oifname"}}), name(words.next())),
            "-p" => compare(json!({"meta": {"key": "l4proto"}}), words.next().map(Value::from)),
            "-s" => compare(field("ip", "saddr"), words.next().map(network)),
            "-d" => compare(field("ip", "daddr"), words.next().map(network)),
            "--dport" => compare(field("udp", "dport"), words.next().map(ports)),
            "--sport" => compare(field("udp", "sport"), words.next().map(ports)),
            "--ctstate" => compare(json!({"ct": {"key": "state"}}), words.next().map(states)),
            "-j" | "-g" => {
                let target = words.next().unwrap_or_default();
                statements.push(match target {
                    "ACCEPT" => json!({"accept": null}),
                    "DROP" => json!({"drop": null}),
                    "REJECT" => json!({"reject": null}),
                    "RETURN" => json!({"return": null}),
                    _ if is_chain(target) => {
                        json!({(if word == "-g" { "goto" } else { "jump" }): {"target": target}})
                    }
                    _ => json!({"xt": {"type": "target", "name": target}}),
                });
                // What follows belongs to the target.
                break;
            }
            // The name of a match says nothing by itself; these are told by their options.
            "-m" if matches!(words.clone().next(), Some("udp" | "conntrack" | "comment")) => {
                words.next();
            }
            "--comment" => skip_quoted(&mut words),
            _ => statements.push(json!({"xt": {"type": "match", "name": word}})),
        }
    }
    statements
}

fn skip_quoted<'a>(words: &mut impl Iterator<Item = &'a str>) {
    let quoted = words.next().is_some_and(|word| word.starts_with('"') && !is_end(word));
    if quoted {
        words.find(|word| word.ends_with('"'));
    }
}

fn is_end(word: &str) -> bool {
    word.len() > 1 && word.ends_with('"')
}

fn name(given: Option<&str>) -> Option<Value> {
    // iptables writes a glob with a plus.
    given.map(|name| name.strip_suffix('+').map_or_else(|| name.into(), |s| format!("{s}*").into()))
}

fn field(protocol: &str, field: &str) -> Value {
    json!({"payload": {"protocol": protocol, "field": field}})
}

fn network(given: &str) -> Value {
    let (address, len) = given.split_once('/').unwrap_or((given, "32"));
    json!({"prefix": {"addr": address, "len": len.parse::<u8>().unwrap_or(32)}})
}

fn ports(given: &str) -> Value {
    let number = |given: &str| given.parse::<u16>().unwrap_or_default();
    match given.split_once(':') {
        Some((first, last)) => json!({"range": [number(first), number(last)]}),
        None => number(given).into(),
    }
}

fn states(given: &str) -> Value {
    given.to_lowercase().split(',').map(str::to_owned).collect::<Vec<_>>().into()
}
