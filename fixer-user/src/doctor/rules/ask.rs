//! What a rule asks about a packet. Not everything is known here, so the answer is yes, no or perhaps.

use std::{cmp::Ordering, net::Ipv4Addr};

use serde_json::Value;

use super::{
    Chain, Ruleset, Truth,
    known::{Packet, either_port, hardware},
};

/// Statements that ask nothing: they count, change the packet, or say what becomes of it.
const SILENT: [&str; 24] = [
    "accept",
    "comment",
    "counter",
    "ct expectation",
    "ct helper",
    "ct timeout",
    "dnat",
    "drop",
    "dup",
    "flow",
    "fwd",
    "goto",
    "jump",
    "last",
    "log",
    "mangle",
    "masquerade",
    "notrack",
    "queue",
    "redirect",
    "reject",
    "return",
    "snat",
    "vmap",
];

/// Statements, and matches of iptables, that a packet seldom meets: most of them bound a rate.
const SELDOM: [&str; 9] =
    ["connlimit", "ct count", "limit", "meter", "nth", "quota", "recent", "set", "statistic"];

/// Whether a rule is about few packets only, of those that its other statements are about: of one port of
/// a bridge, or of those that are too many.
pub(super) fn is_seldom(rule: &[Value]) -> bool {
    let mut parts = rule.iter().filter_map(|statement| statement.as_object()?.iter().next());
    parts.any(|(kind, value)| match kind.as_str() {
        "match" => value["left"].get("physdev").is_some(),
        "unknown" => value.as_str().is_some_and(|word| SELDOM.contains(&word)),
        kind => SELDOM.contains(&kind),
    })
}

/// A packet, and the chain whose rules ask.
pub(super) struct Question<'a> {
    pub(super) ruleset: &'a Ruleset,
    pub(super) packet: &'a Packet<'a>,
    pub(super) chain: &'a Chain,
}

/// What a verdict map says.
pub(super) enum Found {
    /// This verdict.
    Verdict(String, Value),
    /// Nothing: the packet is not in it.
    Nothing,
    /// It may be in it.
    Perhaps,
}

/// What is known of a packet.
pub(super) enum Known {
    /// This; of several things that are asked for together a list, with null for what is not known.
    Is(Value),
    Answer(Truth),
}

impl Question<'_> {
    /// Whether a rule is about the packet.
    pub(super) fn rule(&self, rule: &[Value]) -> Truth {
        rule.iter().map(|statement| self.statement(statement)).min().unwrap_or(Truth::Yes)
    }

    fn statement(&self, statement: &Value) -> Truth {
        let Some((kind, value)) = statement.as_object().and_then(|object| object.iter().next())
        else {
            return Truth::Yes;
        };
        match kind.as_str() {
            "match" => self.compare(value),
            // The first packet is within every limit.
            "limit" => (value["inv"] != true).into(),
            "xt" if value["type"] == "target" => Truth::Yes,
            kind if SILENT.contains(&kind) => Truth::Yes,
            // A quota, a match of iptables, or something newer.
            _ => Truth::Perhaps,
        }
    }

    /// Whether a rule names the packet's ports, and not many others with them.
    pub(super) fn names_ports(&self, rule: &[Value]) -> bool {
        const OTHERS: [u16; 2] = [1, 1];
        let others = Packet { ports: OTHERS, ..*self.packet };
        let of_others = Question { packet: &others, ..*self };
        let compares =
            |statement: &&Value| matches!(statement["match"]["op"].as_str(), Some("==" | "in"));
        rule.iter().filter(compares).any(|statement| {
            (self.statement(statement), of_others.statement(statement)) == (Truth::Yes, Truth::No)
        })
    }

    /// Whether a rule names the port of a bridge that the packet came in by.
    pub(super) fn names_port(&self, rule: &[Value]) -> bool {
        let is_on_bridge = self.packet.bridge.is_some();
        let names = |statement: &Value| {
            let asked = &statement["match"];
            let names = asked["op"] == "==" && asked["left"]["meta"]["key"] == "iifname";
            names && asked["right"].as_str() == self.packet.iif
        };
        is_on_bridge && rule.iter().any(names)
    }

    /// Whether all that is not known of a rule is whether it has the guest's hardware address right.
    pub(super) fn names_guest(&self, rule: &[Value]) -> bool {
        let mut unknown =
            rule.iter().filter(|statement| self.statement(statement) == Truth::Perhaps).peekable();
        unknown.peek().is_some()
            && unknown.all(|statement| {
                let asked = &statement["match"];
                let asks = &asked["left"]["payload"];
                asked["op"] == "=="
                    && (&asks["protocol"], &asks["field"]) == (&"ether".into(), &"saddr".into())
                    && hardware(&asked["right"]).is_some()
            })
    }

    fn compare(&self, value: &Value) -> Truth {
        let right = &value["right"];
        let ask = |left: &Value| match self.known(left) {
            None => Truth::Perhaps,
            Some(Known::Answer(answer)) => answer,
            Some(Known::Is(known)) => self.holds(&known, right),
        };
        let answer = match either_port(&value["left"]) {
            Some(ports) => ports.iter().map(ask).max().unwrap_or(Truth::Perhaps),
            None => ask(&value["left"]),
        };
        match (value["op"].as_str(), answer) {
            (Some("!="), Truth::Yes) => Truth::No,
            (Some("!="), Truth::No) => Truth::Yes,
            (Some("==" | "in" | "!="), answer) => answer,
            _ => Truth::Perhaps,
        }
    }

    /// Whether something known is among what a rule names.
    fn holds(&self, known: &Value, right: &Value) -> Truth {
        match right {
            Value::Array(many) => self.any(known, many),
            Value::Object(object) => match object.iter().next() {
                Some((kind, Value::Array(many))) if kind == "set" || kind == "|" => {
                    self.any(known, many)
                }
                Some((kind, Value::Array(ends))) if kind == "range" => in_range(known, ends),
                Some((kind, prefix)) if kind == "prefix" => in_prefix(known, prefix),
                Some((kind, element)) if kind == "elem" => self.holds(known, &element["val"]),
                Some((kind, Value::Array(parts))) if kind == "concat" => self.every(known, parts),
                _ => Truth::Perhaps,
            },
            Value::String(set) if set.starts_with('@') => {
                let found = self.ruleset.elements(self.chain, &set[1..]);
                found.map_or(Truth::Perhaps, |elements| match elements {
                    Value::Array(many) => self.any(known, many),
                    _ => Truth::No,
                })
            }
            right => is(known, right),
        }
    }

    fn any(&self, known: &Value, many: &[Value]) -> Truth {
        many.iter().map(|one| self.holds(known, one)).max().unwrap_or(Truth::No)
    }

    /// Things that are asked for together are each what they have to be.
    fn every(&self, known: &Value, parts: &[Value]) -> Truth {
        let Some(known) = known.as_array().filter(|known| known.len() == parts.len()) else {
            return Truth::Perhaps;
        };
        let pairs = known.iter().zip(parts);
        pairs.map(|(known, part)| self.holds(known, part)).min().unwrap_or(Truth::Perhaps)
    }

    /// What a verdict map says about the packet.
    pub(super) fn lookup(&self, vmap: &Value) -> Found {
        let data = &vmap["data"];
        let elements = match data.as_str().and_then(|name| name.strip_prefix('@')) {
            Some(name) => self.ruleset.elements(self.chain, name),
            None => Some(&data["set"]),
        };
        let known = match self.known(&vmap["key"]) {
            Some(Known::Is(known)) => known,
            Some(Known::Answer(Truth::No)) => return Found::Nothing,
            _ => return Found::Perhaps,
        };
        let Some(elements) = elements else { return Found::Perhaps };
        let mut found = Found::Nothing;
        for pair in elements.as_array().into_iter().flatten() {
            let verdict = pair[1].as_object().and_then(|verdict| verdict.iter().next());
            found = match (self.holds(&known, &pair[0]), verdict) {
                (Truth::No, _) => continue,
                (Truth::Yes, Some((kind, value))) => {
                    return Found::Verdict(kind.clone(), value.clone());
                }
                (Truth::Yes | Truth::Perhaps, _) => Found::Perhaps,
            };
        }
        found
    }
}

fn is(known: &Value, right: &Value) -> Truth {
    match (known, right) {
        // A glob is a name with a star at its end.
        (Value::String(known), Value::String(right)) => match right.strip_suffix('*') {
            Some(start) => known.starts_with(start).into(),
            None => (known == right).into(),
        },
        (Value::Number(known), Value::Number(right)) => (known == right).into(),
        (Value::Bool(known), Value::Bool(right)) => (known == right).into(),
        _ => Truth::Perhaps,
    }
}

fn in_range(known: &Value, ends: &[Value]) -> Truth {
    let [first, last] = ends else { return Truth::Perhaps };
    let order = |one: &Value, other: &Value| -> Option<Ordering> {
        match (address(one), address(other)) {
            (Some(one), Some(other)) => Some(one.cmp(&other)),
            _ => Some(one.as_u64()?.cmp(&other.as_u64()?)),
        }
    };
    match (order(first, known), order(known, last)) {
        (Some(from), Some(to)) => (from != Ordering::Greater && to != Ordering::Greater).into(),
        _ => Truth::Perhaps,
    }
}

fn in_prefix(known: &Value, prefix: &Value) -> Truth {
    let (Some(known), Some(network), Some(len)) =
        (address(known), address(&prefix["addr"]), prefix["len"].as_u64())
    else {
        return Truth::Perhaps;
    };
    let mask = u32::MAX.checked_shl(32 - len.min(32) as u32).unwrap_or(0);
    (known.to_bits() & mask == network.to_bits() & mask).into()
}

fn address(value: &Value) -> Option<Ipv4Addr> {
    value.as_str()?.parse().ok()
}
