//! What is known of a packet, by the names that rules have for it.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::{
    Truth,
    ask::{Known, Question},
};

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

/// The hardware address of everybody.
const EVERYBODY: u64 = 0xffff_ffff_ffff;

impl Packet<'_> {
    /// Whether the rules for routed packets see it between ports of a bridge.
    fn is_bridged(&self) -> bool {
        self.bridge.is_none() && self.iif.is_some() && self.iif == self.oif
    }

    /// Where it comes from. A client has no address yet; a server without one is not known.
    fn source(&self) -> Option<Ipv4Addr> {
        let [from, _] = self.addresses;
        (self.ports[0] == 68 || !from.is_unspecified()).then_some(from)
    }

    /// Where it goes. A client asks everybody; a server answers everybody, or the address that it offers,
    /// as the client wants it.
    fn target(&self) -> Option<Ipv4Addr> {
        let [_, to] = self.addresses;
        (self.ports[1] == 67).then_some(to)
    }

    /// Whether it is known to go to everybody.
    fn is_broadcast(&self) -> bool {
        self.target().is_some_and(|to| to.is_broadcast())
    }

    /// Whether it has an Ethernet header, where rules of a family see it.
    fn has_frame(&self, family: &str) -> bool {
        self.iif.is_some() || ["bridge", "netdev"].contains(&family)
    }
}

fn text(text: &str) -> Known {
    Known::Is(text.into())
}

impl Question<'_> {
    /// What is known of the packet under such a name.
    pub(super) fn known(&self, left: &Value) -> Option<Known> {
        let (kind, value) = left.as_object()?.iter().next()?;
        let key = value["key"].as_str().unwrap_or_default();
        match kind.as_str() {
            "concat" => {
                let known = |part: &Value| match self.known(part) {
                    Some(Known::Is(known)) => known,
                    Some(Known::Answer(_)) | None => Value::Null,
                };
                let parts = value.as_array()?.iter();
                Some(Known::Is(parts.map(known).collect()))
            }
            "meta" => self.meta(key),
            // The first packet of a connection: of it nothing is settled.
            "ct" => match key {
                "state" => Some(text("new")),
                "status" => Some(text("none")),
                "direction" => Some(text("original")),
                _ => None,
            },
            "fib" => self.route(&value["result"], &value["flags"]),
            "physdev" => self.port(key),
            "payload" => self.header(value["protocol"].as_str()?, value["field"].as_str()?),
            "&" => self.masked(value),
            _ => None,
        }
    }

    fn meta(&self, key: &str) -> Option<Known> {
        let name = |name: Option<&str>| text(name.unwrap_or_default());
        let packet = self.packet;
        Some(match key {
            "iifname" | "iif" => name(packet.iif),
            "oifname" | "oif" => name(packet.oif),
            "ibrname" | "obrname" | "ibridgename" | "obridgename" => name(packet.bridge),
            "l4proto" => text("udp"),
            "protocol" => text("ip"),
            "nfproto" => text("ipv4"),
            // The kernel looks at the frame when it comes in.
            "pkttype" if packet.iif.is_some() && packet.is_broadcast() => text("broadcast"),
            _ => return None,
        })
    }

    /// What the routes say of its addresses.
    fn route(&self, result: &Value, flags: &Value) -> Option<Known> {
        let asks =
            |flag: &str| flags.as_array().is_some_and(|flags| flags.iter().any(|it| it == flag));
        let source = self.packet.source();
        match result.as_str()? {
            // The kernel looks up no route for a client without an address.
            "oif" => (asks("saddr") && source.is_some_and(|from| from.is_unspecified()))
                .then_some(Known::Answer(Truth::No)),
            "type" if asks("daddr") => self.packet.is_broadcast().then(|| text("broadcast")),
            "type" if asks("saddr") => match source? {
                Ipv4Addr::UNSPECIFIED => Some(text("broadcast")),
                _ => self.packet.iif.is_none().then(|| text("local")),
            },
            _ => None,
        }
    }

    /// Through which ports of a bridge it comes and goes, where iptables asks for them.
    fn port(&self, key: &str) -> Option<Known> {
        let packet = self.packet;
        let never = Some(Known::Answer(Truth::No));
        match key {
            "is-bridged" => Some(Known::Is(packet.is_bridged().into())),
            "in" | "is-in" if packet.iif.is_none() => never,
            "out" | "is-out" if !packet.is_bridged() => never,
            _ => None,
        }
    }

    fn header(&self, protocol: &str, field: &str) -> Option<Known> {
        let [source, target] = self.packet.ports;
        Some(match (protocol, field) {
            ("udp" | "th", "sport") => Known::Is(source.into()),
            ("udp" | "th", "dport") => Known::Is(target.into()),
            ("ip", "saddr") => text(&self.packet.source()?.to_string()),
            ("ip", "daddr") => text(&self.packet.target()?.to_string()),
            ("ip", "protocol") => text("udp"),
            ("ip", "fragment") => Known::Is(false.into()),
            ("ether", "type") => text("ip"),
            ("ether", "daddr")
                if self.packet.is_broadcast() && self.packet.has_frame(&self.chain.family) =>
            {
                text(&spelled(EVERYBODY))
            }
            ("tcp" | "icmp" | "icmpv6" | "ip6" | "arp" | "sctp", _) => Known::Answer(Truth::No),
            _ => return None,
        })
    }

    /// A part of a hardware address. What is never there has no part that is.
    fn masked(&self, value: &Value) -> Option<Known> {
        match self.known(&value[0])? {
            Known::Is(known) => Some(text(&spelled(hardware(&known)? & hardware(&value[1])?))),
            Known::Answer(Truth::No) => Some(Known::Answer(Truth::No)),
            Known::Answer(_) => None,
        }
    }
}

/// A hardware address as a number.
pub(super) fn hardware(value: &Value) -> Option<u64> {
    let mut parts = value.as_str()?.split(':');
    let number = parts.by_ref().try_fold((0, 0), |(number, count), part| {
        Some(((number << 8) | u64::from(u8::from_str_radix(part, 16).ok()?), count + 1))
    });
    number.filter(|(_, count)| *count == 6).map(|(number, _)| number)
}

fn spelled(address: u64) -> String {
    let bytes = address.to_be_bytes();
    bytes[2..].iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// What a rule asks that is about either of two ports.
pub(super) fn either_port(left: &Value) -> Option<[Value; 2]> {
    (left["payload"]["field"] == "ports").then(|| {
        ["sport", "dport"].map(|field| json!({"payload": {"protocol": "udp", "field": field}}))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_are_numbers() {
        assert_eq!(hardware(&"ff:ff:ff:ff:ff:ff".into()), Some(EVERYBODY));
        // ebtables has written them so.
        assert_eq!(hardware(&"52:54:0:1:2:3".into()), Some(0x5254_0001_0203));
        for other in ["", "ff:ff", "ff:ff:ff:ff:ff:ff:ff", "fg:ff:ff:ff:ff:ff", "100:0:0:0:0:0"] {
            assert_eq!(hardware(&other.into()), None, "{other}");
        }
        assert_eq!(spelled(0x5254_0001_0203), "52:54:00:01:02:03");
    }
}
