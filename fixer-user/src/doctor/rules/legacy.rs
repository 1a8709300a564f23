//! The rules as `iptables-save` and `ebtables-save` tell them: the old iptables has no other way to be
//! asked, and of the new ones nft does not tell what they match. They are put into the words of
//! nftables, so that packets walk through all alike.

use serde_json::{Value, json};

use super::{
    Chain, Hook, Ruleset,
    options::{EBTABLES, Given, IPTABLES, SILENT, TOLD, left, sides},
};

/// Adds what a listing holds of a family: `ip` is that of iptables, `bridge` that of ebtables.
pub(super) fn read(listing: &str, family: &str, is_legacy: bool, ruleset: &mut Ruleset) {
    let mut table = String::new();
    let first = ruleset.chains.len();
    let mut policies = Vec::new();
    for line in listing.lines() {
        let chains = &mut ruleset.chains[first..];
        if let Some(name) = line.strip_prefix('*') {
            name.clone_into(&mut table);
        } else if let Some(line) = line.strip_prefix(':') {
            let mut words = line.split_whitespace();
            let (name, policy) = (words.next().unwrap_or_default(), words.next());
            let hook = hook((family, &table), name, policy == Some("DROP"));
            let [family, table, name] = [family, &table, name].map(str::to_owned);
            policies.push(policy.filter(|_| hook.is_none()).and_then(verdict));
            ruleset.chains.push(Chain { family, table, name, hook, is_legacy, rules: Vec::new() });
        } else if let Some(line) = line.strip_prefix("-A ") {
            let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
            // Every chain is told before the first rule; another target is an extension.
            let is_chain = |name: &str| {
                chains.iter().any(|chain| (&*chain.table, &*chain.name) == (&*table, name))
            };
            let rule = rule(rest, family, is_chain);
            let its = |chain: &&mut Chain| chain.table == table && chain.name == name;
            if let Some(chain) = chains.iter_mut().find(its) {
                chain.rules.push(rule);
            }
        }
    }
    // A chain of ebtables that nothing enters by itself has a policy nevertheless.
    for (chain, policy) in ruleset.chains[first..].iter_mut().zip(policies) {
        chain.rules.extend(policy.map(|verdict| vec![verdict]));
    }
}

/// The hook of a built-in chain, and at which priority its table is there.
fn hook((family, table): (&str, &str), chain: &str, drops: bool) -> Option<Hook> {
    const BUILT_IN: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
    if !BUILT_IN.contains(&chain) {
        return None;
    }
    let priority = match (family, table) {
        ("bridge", "filter") => -200,
        ("bridge", _) if chain == "PREROUTING" => -300,
        ("bridge", _) => 100,
        (_, "raw") => -300,
        (_, "mangle") => -150,
        (_, "security") => 50,
        _ => 0,
    };
    Some(Hook { name: chain.to_lowercase(), priority, drops, devices: None })
}

fn verdict(target: &str) -> Option<Value> {
    let known = ["ACCEPT", "DROP", "REJECT", "RETURN"].contains(&target);
    known.then(|| json!({target.to_lowercase(): null}))
}

fn rule(line: &str, family: &str, is_chain: impl Fn(&str) -> bool) -> Vec<Value> {
    let options = if family == "bridge" { EBTABLES } else { IPTABLES };
    let mut statements = Vec::new();
    let mut words = line.split_whitespace();
    let mut is_negated = false;
    while let Some(word) = words.next() {
        if word == "!" {
            is_negated = true;
            continue;
        }
        let mut is_not = std::mem::take(&mut is_negated);
        let mut compare = |is_not: bool, (left, right): (Value, Value)| {
            let operator = if is_not { "!=" } else { "==" };
            statements.push(json!({"match": {"op": operator, "left": left, "right": right}}));
        };
        if let Some((_, asked, kind)) = options.iter().find(|(names, ..)| names.contains(&word)) {
            let mut given = if *kind == Given::Nothing { None } else { words.next() };
            // iptables negates before an option, ebtables behind it.
            if given == Some("!") {
                (is_not, given) = (true, words.next());
            }
            compare(is_not, sides(asked, *kind, given.unwrap_or_default()));
            continue;
        }
        match word {
            "-j" | "-g" => {
                let target = words.next().unwrap_or_default();
                let kind = if word == "-g" { "goto" } else { "jump" };
                match verdict(target) {
                    Some(verdict) => statements.push(verdict),
                    None if is_chain(target) => statements.push(json!({kind: {"target": target}})),
                    None if (family, target) == ("bridge", "CONTINUE") => {}
                    None => statements.push(json!({"xt": {"type": "target", "name": target}})),
                }
                // What follows belongs to the target.
                break;
            }
            "-m" if words.clone().next() == Some("rpfilter") => {
                words.next();
                // What nftables asks is whether the way back is missing.
                let is_missing = words.clone().any(|word| word == "--invert");
                let mut asked = left("fib saddr");
                asked["fib"]["result"] = "oif".into();
                compare(!is_missing, (asked, false.into()));
            }
            "-m" if words.clone().next().is_some_and(|name| TOLD.contains(&name)) => {
                words.next();
            }
            "--comment" => skip_quoted(&mut words),
            "--limit" | "--hashlimit-upto" | "--hashlimit-above" => {
                words.next();
                let is_over = is_not != (word == "--hashlimit-above");
                statements.push(json!({"limit": {"inv": is_over}}));
            }
            word if word == "--limit-burst" || word.starts_with("--hashlimit-") => {
                words.next();
            }
            word if SILENT.contains(&word) => {}
            word => statements.push(json!({"unknown": word})),
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
