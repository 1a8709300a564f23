//! What a rule asks about a packet. Not everything is known here, so the answer is yes, no or perhaps.

use std::{cmp::Ordering, net::Ipv4Addr};

use serde_json::Value;

use super::{Chain, Ruleset, Truth, walk::Packet};

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
enum Known {
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
            "xt" if value["type"] == "target" => Truth::Yes,
            kind if SILENT.contains(&kind) => Truth::Yes,
            // A limit, a quota, a match of iptables, or something newer.
            _ => Truth::Perhaps,
        }
    }

    fn compare(&self, value: &Value) -> Truth {
        let answer = match self.known(&value["left"]) {
            None => Truth::Perhaps,
            Some(Known::Answer(answer)) => answer,
            Some(Known::Is(known)) => self.holds(&known, &value["right"]),
        };
        match (value["op"].as_str(), answer) {
            (Some("!="), Truth::Yes) => Truth::No,
            (Some("!="), Truth::No) => Truth::Yes,
            (Some("==" | "in" | "!="), answer) => answer,
            _ => Truth::Perhaps,
        }
    }

    /// What is known of the packet under such a name.
    fn known(&self, left: &Value) -> Option<Known> {
        let text = |text: &str| Known::Is(text.into());
        let Packet { iif, oif, bridge, addresses: [from, to], ports: [source, target] } =
            self.packet;
        if let Some(parts) = left["concat"].as_array() {
            let known = |part: &Value| match self.known(part) {
                Some(Known::Is(known)) => known,
                Some(Known::Answer(_)) | None => Value::Null,
            };
            return Some(Known::Is(parts.iter().map(known).collect()));
        }
        let name = |name: &Option<&str>| text(name.unwrap_or_default());
        if let Some(key) = left["meta"]["key"].as_str() {
            return Some(match key {
                "iifname" | "iif" => name(iif),
                "oifname" | "oif" => name(oif),
                "ibrname" | "obrname" | "ibridgename" | "obridgename" => name(bridge),
                "l4proto" => text("udp"),
                "protocol" => text("ip"),
                "nfproto" => text("ipv4"),
                "pkttype" if to.is_broadcast() => text("broadcast"),
                _ => return None,
            });
        }
        if left["ct"]["key"] == "state" {
            return Some(text("new"));
        }
        if let Some(flags) = left["fib"]["flags"].as_array() {
            // The kernel looks up no route for a client without an address.
            let is_reverse =
                left["fib"]["result"] == "oif" && flags.iter().any(|flag| flag == "saddr");
            return (is_reverse && from.is_unspecified()).then_some(Known::Answer(Truth::No));
        }
        let (protocol, field) =
            (left["payload"]["protocol"].as_str()?, left["payload"]["field"].as_str()?);
        Some(match (protocol, field) {
            ("udp" | "th", "sport") => Known::Is((*source).into()),
            ("udp" | "th", "dport") => Known::Is((*target).into()),
            ("ip", "saddr") => text(&from.to_string()),
            ("ip", "daddr") => text(&to.to_string()),
            ("ip", "protocol") => text("udp"),
            ("ether", "type") => text("ip"),
            ("tcp" | "icmp" | "icmpv6" | "ip6" | "arp" | "sctp", _) => Known::Answer(Truth::No),
            _ => return None,
        })
    }

    /// Whether something known is among what a rule names.
    fn holds(&self, known: &Value, right: &Value) -> Truth {
        match right {
            Value::Array(many) => self.any(known, many),
            Value::Object(object) => match object.iter().next() {
                Some((kind, Value::Array(many))) if kind == "set" => self.any(known, many),
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
