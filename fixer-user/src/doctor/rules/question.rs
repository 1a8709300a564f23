//! What a rule asks about a packet.
//!
//! Not everything that it may ask is known here, so the answer is yes, no or perhaps.

use std::{cmp::Ordering, net::Ipv4Addr};

use serde_json::Value;

use super::{Chain, Ruleset};

/// A UDP datagram over IPv4, the first of its kind, as firewalls see it.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Through which interface it came.
    pub iif: Option<&'a str>,
    /// Through which it leaves.
    pub oif: Option<&'a str>,
    /// The bridge that these are ports of.
    pub bridge: Option<&'a str>,
    /// Its addresses.
    pub addresses: [Ipv4Addr; 2],
    /// Its ports.
    pub ports: [u16; 2],
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Truth {
    No,
    Perhaps,
    Yes,
}

impl From<bool> for Truth {
    fn from(is_so: bool) -> Self {
        if is_so { Self::Yes } else { Self::No }
    }
}

/// A packet, and the rules' sets that it may be among.
pub(super) struct Question<'a> {
    pub(super) ruleset: &'a Ruleset,
    pub(super) packet: &'a Packet<'a>,
}

impl Question<'_> {
    /// Whether a rule is about the packet.
    pub(super) fn truth(&self, chain: &Chain, rule: &[Value]) -> Truth {
        rule.iter().map(|statement| self.asks(chain, statement)).min().unwrap_or(Truth::Yes)
    }

    /// Whether the packet is what a statement asks for.
    fn asks(&self, chain: &Chain, statement: &Value) -> Truth {
        let Some((kind, value)) = statement.as_object().and_then(|object| object.iter().next())
        else {
            return Truth::Yes;
        };
        match kind.as_str() {
            "match" => self.compare(chain, value),
            "limit" | "quota" => Truth::Perhaps,
            // Targets decide nothing here, and matches of iptables are not told.
            "xt" if value["type"] != "target" => Truth::Perhaps,
            _ => Truth::Yes,
        }
    }

    fn compare(&self, chain: &Chain, value: &Value) -> Truth {
        let answer = match self.known(&value["left"]) {
            None => Truth::Perhaps,
            Some(Known::Answer(answer)) => answer,
            Some(Known::Is(known)) => self.holds(chain, &known, &value["right"]),
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
    fn holds(&self, chain: &Chain, known: &Value, right: &Value) -> Truth {
        match right {
            Value::Array(many) => self.any(chain, known, many),
            Value::Object(object) => match object.iter().next() {
                Some((kind, Value::Array(many))) if kind == "set" => self.any(chain, known, many),
                Some((kind, Value::Array(ends))) if kind == "range" => in_range(known, ends),
                Some((kind, prefix)) if kind == "prefix" => in_prefix(known, prefix),
                Some((kind, element)) if kind == "elem" => {
                    self.holds(chain, known, &element["val"])
                }
                _ => Truth::Perhaps,
            },
            Value::String(set) if set.starts_with('@') => {
                let names = [chain.family.as_str(), chain.table.as_str(), &set[1..]];
                let found = self.ruleset.sets.iter().find(|(key, _)| key.iter().eq(names.iter()));
                found.map_or(Truth::Perhaps, |(_, elements)| match elements {
                    Value::Array(many) => self.any(chain, known, many),
                    _ => Truth::No,
                })
            }
            right => is(known, right),
        }
    }

    fn any(&self, chain: &Chain, known: &Value, many: &[Value]) -> Truth {
        many.iter().map(|one| self.holds(chain, known, one)).max().unwrap_or(Truth::No)
    }

    /// What a verdict map says about the packet.
    pub(super) fn lookup(&self, chain: &Chain, vmap: &Value) -> Option<(String, Value)> {
        let Some(Known::Is(known)) = self.known(&vmap["key"]) else { return None };
        let data = &vmap["data"];
        let elements = match data.as_str().and_then(|name| name.strip_prefix('@')) {
            Some(name) => {
                let names = [chain.family.as_str(), chain.table.as_str(), name];
                &self.ruleset.sets.iter().find(|(key, _)| key.iter().eq(names.iter()))?.1
            }
            None => &data["set"],
        };
        let pairs =
            elements.as_array()?.iter().filter_map(|pair| Some((pair.get(0)?, pair.get(1)?)));
        let (_, verdict) =
            pairs.into_iter().find(|(key, _)| self.holds(chain, &known, key) == Truth::Yes)?;
        let (kind, value) = verdict.as_object()?.iter().next()?;
        Some((kind.clone(), value.clone()))
    }
}

/// What is known of a packet.
enum Known {
    Is(Value),
    Answer(Truth),
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
