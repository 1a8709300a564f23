//! Which packets are ours: a transport and two ports, each of them exact or any.

use zerocopy::{Immutable, IntoBytes};

use crate::wire::{tcp, udp};

/// What a packet's addresses are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// Both, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    /// The kinds of transport over it.
    const fn kinds(self) -> Kinds {
        match self {
            Self::Ipv4 => Kinds::of(&[Kind::Udp4, Kind::Tcp4]),
            Self::Ipv6 => Kinds::of(&[Kind::Udp6, Kind::Tcp6]),
        }
    }
}

/// A kind of transport over IP. Every packet that can match is of one. Its number is its bit in
/// [`Kinds`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// UDP over IPv4.
    Udp4 = 1,
    /// TCP over IPv4.
    Tcp4 = 2,
    /// UDP over IPv6.
    Udp6 = 4,
    /// TCP over IPv6.
    Tcp6 = 8,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Udp4, Self::Tcp4, Self::Udp6, Self::Tcp6];

    /// The kind of a packet over IPv4 with this protocol.
    #[inline(always)]
    pub const fn over_ipv4(protocol: u8) -> Option<Self> {
        match protocol {
            udp::PROTOCOL => Some(Self::Udp4),
            tcp::PROTOCOL => Some(Self::Tcp4),
            _ => None,
        }
    }

    /// The kind of a packet over IPv6 with this protocol.
    #[inline(always)]
    pub const fn over_ipv6(protocol: u8) -> Option<Self> {
        match protocol {
            udp::PROTOCOL => Some(Self::Udp6),
            tcp::PROTOCOL => Some(Self::Tcp6),
            _ => None,
        }
    }

    /// Whether the transport is UDP.
    #[inline(always)]
    pub const fn is_udp(self) -> bool {
        matches!(self, Self::Udp4 | Self::Udp6)
    }

    /// What it travels over.
    #[inline(always)]
    pub const fn family(self) -> Family {
        match self {
            Self::Udp4 | Self::Tcp4 => Family::Ipv4,
            Self::Udp6 | Self::Tcp6 => Family::Ipv6,
        }
    }
}

/// Kinds of transport, as a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(transparent)]
pub struct Kinds(u32);

impl Kinds {
    /// No kind.
    const NONE: Self = Self(0);
    /// UDP over either network.
    pub const UDP: Self = Self::of(&[Kind::Udp4, Kind::Udp6]);
    /// TCP over either network.
    pub const TCP: Self = Self::of(&[Kind::Tcp4, Kind::Tcp6]);
    /// Every kind.
    pub const ALL: Self = Self::of(&Kind::ALL);

    /// The set of these kinds.
    pub const fn of(kinds: &[Kind]) -> Self {
        let (mut set, mut at) = (0, 0);
        while at < kinds.len() {
            set |= kinds[at] as u32;
            at += 1;
        }
        Self(set)
    }

    /// Whether a kind is in the set.
    #[inline(always)]
    pub const fn has(self, kind: Kind) -> bool {
        self.0 & kind as u32 != 0
    }

    /// Whether the two sets have a kind in common.
    const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
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

/// What a rule wants of the ports of a packet: some of their bits, masked, are those wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
pub struct Filter {
    /// Which bits of the two ports count, laid out like [`Ports`].
    pub mask: u32,
    /// What those bits must be; 0 wherever the mask is 0.
    pub wanted: u32,
}

impl Filter {
    /// For a source and a destination port; `None` is any.
    const fn new(source: Option<u16>, destination: Option<u16>) -> Self {
        let (source_mask, source) = exact_or_any(source);
        let (destination_mask, destination) = exact_or_any(destination);
        Self {
            mask: side_by_side(source_mask, destination_mask),
            wanted: side_by_side(source, destination),
        }
    }

    /// Whether these ports are wanted. Ports that cannot be seen (`None`: a later fragment) are if
    /// the rule asks for none.
    #[inline(always)]
    pub const fn matches(self, ports: Option<Ports>) -> bool {
        match ports {
            Some(Ports(ports)) => ports & self.mask == self.wanted,
            None => self.mask == 0,
        }
    }
}

/// A packet matches a rule if it is of one of its kinds and its ports are the wanted ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
pub struct Rule {
    /// The kinds of transport the rule is about.
    pub kinds: Kinds,
    /// What it wants of the ports.
    pub filter: Filter,
}

impl Rule {
    /// No packet at all.
    pub const NONE: Self = Self { kinds: Kinds::NONE, filter: Filter { mask: 0, wanted: 0 } };

    /// The replies of a DHCP server to a client (RFC 2131, section 4.1): UDP over IPv4, 67 to 68.
    pub const DHCP: Self = Self::new(Kinds::of(&[Kind::Udp4]), Some(67), Some(68));

    /// The replies of a DHCPv6 server to a client (RFC 8415, section 7.2): UDP over IPv6, 547 to 546.
    pub const DHCPV6: Self = Self::new(Kinds::of(&[Kind::Udp6]), Some(547), Some(546));

    /// A rule for a source and a destination port; `None` is any.
    pub const fn new(kinds: Kinds, source: Option<u16>, destination: Option<u16>) -> Self {
        Self { kinds, filter: Filter::new(source, destination) }
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

/// The rules of a configuration, sorted by the family they are about: a slice in userspace, constants
/// of the loaded program in the kernel.
pub trait Rules {
    /// How many rules are about packets of this family; at most [`MOST`].
    fn count(&self, family: Family) -> usize;

    /// What the rule at this place, below [`count`](Rules::count), wants of the ports.
    fn filter(&self, family: Family, place: usize) -> Filter;

    /// The kinds that the rule at this place is about.
    fn kinds(&self, family: Family, place: usize) -> Kinds;

    /// Whether any rule about this family wants these ports.
    #[inline(always)]
    fn want(&self, family: Family, ports: Ports) -> bool {
        self.any(family, |place| self.filter(family, place).matches(Some(ports)))
    }

    /// Whether any rule matches a packet of this kind with these ports.
    #[inline(always)]
    fn match_any(&self, kind: Kind, ports: Option<Ports>) -> bool {
        let family = kind.family();
        self.any(family, |place| {
            self.filter(family, place).matches(ports) && self.kinds(family, place).has(kind)
        })
    }

    /// Whether this is so for the place of any rule about the family.
    #[inline(always)]
    fn any(&self, family: Family, is_so: impl Fn(usize) -> bool) -> bool {
        let count = self.count(family);
        // Written out, for the verifier cuts it: behind the last rule of a configuration nothing is left.
        macro_rules! any {
            ($($place:literal)*) => {$(
                if count == $place {
                    return false;
                }
                if is_so($place) {
                    return true;
                }
            )*};
        }
        any!(0 1 2 3 4 5 6 7);
        const _: () = assert!(MOST == 8);
        false
    }
}

impl Rules for [Rule] {
    fn count(&self, family: Family) -> usize {
        about(self, family).count()
    }

    fn filter(&self, family: Family, place: usize) -> Filter {
        at(self, family, place).filter
    }

    fn kinds(&self, family: Family, place: usize) -> Kinds {
        at(self, family, place).kinds
    }
}

/// Just [`Rule::DHCP`], which most hosts have: known when the program is compiled, it costs a stranger
/// less than the same rule out of a configuration.
pub struct OnlyDhcp;

impl Rules for OnlyDhcp {
    #[inline(always)]
    fn count(&self, family: Family) -> usize {
        (family == Family::Ipv4).into()
    }

    #[inline(always)]
    fn filter(&self, _: Family, _: usize) -> Filter {
        Rule::DHCP.filter
    }

    #[inline(always)]
    fn kinds(&self, _: Family, _: usize) -> Kinds {
        Rule::DHCP.kinds
    }
}

/// The rules about this family.
fn about(rules: &[Rule], family: Family) -> impl Iterator<Item = Rule> {
    rules.iter().copied().filter(move |rule| rule.kinds.meets(family.kinds()))
}

fn at(rules: &[Rule], family: Family, place: usize) -> Rule {
    about(rules, family).nth(place).unwrap_or(Rule::NONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(source: u16, destination: u16) -> Option<Ports> {
        Some(Ports(side_by_side(source, destination)))
    }

    const FROM_4011: Rule = Rule::new(Kinds::UDP, Some(4011), None);

    #[test]
    fn a_port_is_exact_or_any() {
        let dhcp = Rule::DHCP.filter;
        assert!(dhcp.matches(ports(67, 68)));
        assert!(!dhcp.matches(ports(68, 67)));
        assert!(FROM_4011.filter.matches(ports(4011, 1)));
        assert!(!FROM_4011.filter.matches(ports(1, 4011)));
    }

    #[test]
    fn hidden_ports_match_only_a_rule_that_asks_for_none() {
        assert!(!Rule::DHCP.filter.matches(None));
        assert!(Rule::new(Kinds::UDP, None, None).filter.matches(None));
    }

    #[test]
    fn dhcp_as_a_constant_is_dhcp_in_a_list() {
        let list = [Rule::DHCP];
        for kind in Kind::ALL {
            for ports in [ports(67, 68), ports(68, 67), None] {
                assert_eq!(OnlyDhcp.match_any(kind, ports), list.match_any(kind, ports));
            }
        }
        for family in Family::ALL {
            assert_eq!(OnlyDhcp.count(family), list.count(family));
        }
    }

    #[test]
    fn any_of_the_rules_about_its_kind_will_do() {
        let rules = [Rule::DHCP, FROM_4011];
        assert!(rules.match_any(Kind::Udp4, ports(4011, 9)));
        assert!(rules.match_any(Kind::Udp6, ports(4011, 9)));
        assert!(rules.match_any(Kind::Udp4, ports(67, 68)));
        assert!(!rules.match_any(Kind::Udp6, ports(67, 68)));
        assert!(!rules.match_any(Kind::Tcp4, ports(67, 68)));
        assert!(!rules.match_any(Kind::Udp4, ports(67, 69)));
        assert!(!rules[..0].match_any(Kind::Udp4, ports(67, 68)));
        assert!(rules.want(Family::Ipv4, Ports(side_by_side(67, 68))));
        assert!(!rules.want(Family::Ipv6, Ports(side_by_side(67, 68))));
    }
}
