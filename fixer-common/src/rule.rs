//! Which packets are ours: a transport and two ports, each of them exact or any.

use crate::wire::{tcp, udp};

/// Kinds of transport over IP, as a set: a rule asks for some, a packet is of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds(u8);

impl Kinds {
    /// No kind at all.
    pub const NONE: Self = Self(0);
    /// UDP over IPv4.
    pub const UDP4: Self = Self(1);
    /// TCP over IPv4.
    pub const TCP4: Self = Self(2);
    /// UDP over IPv6.
    pub const UDP6: Self = Self(4);
    /// TCP over IPv6.
    pub const TCP6: Self = Self(8);
    /// UDP over either.
    pub const UDP: Self = Self::UDP4.union(Self::UDP6);
    /// TCP over either.
    pub const TCP: Self = Self::TCP4.union(Self::TCP6);
    /// Either over IPv6.
    pub const IPV6: Self = Self::UDP6.union(Self::TCP6);

    /// The kind of a packet over IPv4 with this protocol.
    #[inline(always)]
    pub const fn over_ipv4(protocol: u8) -> Self {
        match protocol {
            udp::PROTOCOL => Self::UDP4,
            tcp::PROTOCOL => Self::TCP4,
            _ => Self::NONE,
        }
    }

    /// The kind of a packet over IPv6 with this protocol.
    #[inline(always)]
    pub const fn over_ipv6(protocol: u8) -> Self {
        match protocol {
            udp::PROTOCOL => Self::UDP6,
            tcp::PROTOCOL => Self::TCP6,
            _ => Self::NONE,
        }
    }

    /// The set with these bits, as the configuration carries it.
    #[inline(always)]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// The bits of the set, as the configuration carries them.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether a kind is in both sets.
    #[inline(always)]
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The kinds that are in either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Source and destination port side by side, as a header holds them: one number to compare at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports(u32);

impl Ports {
    /// The ports at the start of a UDP or TCP header.
    #[inline(always)]
    pub const fn from_wire(bytes: [u8; 4]) -> Self {
        Self(u32::from_ne_bytes(bytes))
    }
}

/// A packet matches a rule if it is of one of its kinds and its ports, masked, are the wanted ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The kinds of transport the rule is about.
    pub kinds: Kinds,
    /// Which bits of the two ports count, laid out like [`Ports`].
    pub mask: u32,
    /// What those bits must be; 0 wherever the mask is 0.
    pub wanted: u32,
}

impl Rule {
    /// The replies of a DHCP server to a client (RFC 2131, section 4.1): UDP over IPv4, 67 to 68.
    pub const DHCP: Self = Self::new(Kinds::UDP4, Some(67), Some(68));

    /// The replies of a DHCPv6 server to a client (RFC 8415, section 7.2): UDP over IPv6, 547 to 546.
    pub const DHCPV6: Self = Self::new(Kinds::UDP6, Some(547), Some(546));

    /// A rule for a source and a destination port; `None` is any.
    pub const fn new(kinds: Kinds, source: Option<u16>, destination: Option<u16>) -> Self {
        let (source_mask, source) = exact_or_any(source);
        let (destination_mask, destination) = exact_or_any(destination);
        Self {
            kinds,
            mask: side_by_side(source_mask, destination_mask),
            wanted: side_by_side(source, destination),
        }
    }

    /// Whether a packet of this kind with these ports matches. A packet whose ports cannot be seen
    /// (`None`: a later fragment) matches a rule that asks for none.
    #[inline(always)]
    pub const fn matches(self, kind: Kinds, ports: Option<Ports>) -> bool {
        self.kinds.meets(kind)
            && match ports {
                Some(Ports(ports)) => ports & self.mask == self.wanted,
                None => self.mask == 0,
            }
    }
}

const fn exact_or_any(port: Option<u16>) -> (u16, u16) {
    match port {
        Some(port) => (u16::MAX, port),
        None => (0, 0),
    }
}

const fn side_by_side(source: u16, destination: u16) -> u32 {
    let ([a, b], [c, d]) = (source.to_be_bytes(), destination.to_be_bytes());
    u32::from_ne_bytes([a, b, c, d])
}

/// The most rules that a configuration can hold.
pub const MOST: usize = 8;

/// The rules of a configuration: a slice in userspace, constants of the loaded program in the kernel.
pub trait Rules {
    /// The kinds that at least one rule asks for.
    fn kinds(&self) -> Kinds;

    /// How many rules there are; at most [`MOST`].
    fn count(&self) -> usize;

    /// The rule at this place, below [`count`](Rules::count).
    fn rule(&self, place: usize) -> Rule;

    /// Whether any rule matches.
    #[inline(always)]
    fn match_any(&self, kind: Kinds, ports: Option<Ports>) -> bool {
        // Unrolled by the compiler and cut by the verifier: behind the last rule nothing is left.
        for place in 0..MOST {
            if place >= self.count() {
                return false;
            }
            if self.rule(place).matches(kind, ports) {
                return true;
            }
        }
        false
    }
}

impl Rules for [Rule] {
    fn kinds(&self) -> Kinds {
        self.iter().fold(Kinds::default(), |kinds, rule| kinds.union(rule.kinds))
    }

    fn count(&self) -> usize {
        self.len()
    }

    fn rule(&self, place: usize) -> Rule {
        self[place]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(source: u16, destination: u16) -> Option<Ports> {
        Some(Ports(side_by_side(source, destination)))
    }

    #[test]
    fn a_port_is_exact_or_any() {
        let dhcp = Rule::DHCP;
        assert!(dhcp.matches(Kinds::UDP4, ports(67, 68)));
        assert!(!dhcp.matches(Kinds::UDP4, ports(68, 67)));
        assert!(!dhcp.matches(Kinds::from_bits(2), ports(67, 68)));
        let from_4011 = Rule::new(Kinds::UDP4, Some(4011), None);
        assert!(from_4011.matches(Kinds::UDP4, ports(4011, 1)));
        assert!(!from_4011.matches(Kinds::UDP4, ports(1, 4011)));
    }

    #[test]
    fn hidden_ports_match_only_a_rule_that_asks_for_none() {
        assert!(!Rule::DHCP.matches(Kinds::UDP4, None));
        assert!(Rule::new(Kinds::UDP4, None, None).matches(Kinds::UDP4, None));
    }

    #[test]
    fn any_of_the_rules_will_do() {
        let rules = [Rule::DHCP, Rule::new(Kinds::UDP4, Some(4011), None)];
        assert!(rules.match_any(Kinds::UDP4, ports(4011, 9)));
        assert!(rules.match_any(Kinds::UDP4, ports(67, 68)));
        assert!(!rules.match_any(Kinds::UDP4, ports(67, 69)));
        assert!(!rules[..0].match_any(Kinds::UDP4, ports(67, 68)));
    }
}
