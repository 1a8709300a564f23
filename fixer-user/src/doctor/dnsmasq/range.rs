//! The addresses that dnsmasq has to give, and whom it passes requests on to.

use std::{fmt, net::Ipv4Addr};

use crate::net::inspect::{Interface, share_network};

/// What may stand before the first address.
const TAGS: [&str; 4] = ["tag:", "set:", "net:", "interface:"];

/// Addresses, as `--dhcp-range` tells them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    first: Ipv4Addr,
    last: Ipv4Addr,
    /// How many bits the network has, if it was told.
    len: Option<u8>,
    /// Whether it gives none of them, and only tells what to boot.
    pub is_proxy: bool,
}

impl Range {
    /// `[set:TAG,]FIRST[,LAST|,MODE][,NETMASK[,BROADCAST]][,TIME]`. `None`: it is of IPv6.
    pub fn parse(value: &str) -> Option<Self> {
        let is_tag = |word: &&str| TAGS.iter().any(|tag| word.starts_with(tag));
        let mut words = value.split(',').map(str::trim).skip_while(is_tag);
        let first = words.next()?.parse().ok()?;
        let second = words.next().unwrap_or_default();
        let mask = words.next().and_then(|word| word.parse::<Ipv4Addr>().ok());
        Some(Self {
            first,
            last: second.parse().unwrap_or(first),
            len: mask.map(|mask| mask.to_bits().leading_ones() as u8),
            is_proxy: second == "proxy",
        })
    }

    /// Whether an interface has an address in its network, as dnsmasq wants it.
    pub fn is_of(&self, interface: &Interface) -> bool {
        interface.addresses.iter().any(|(own, len)| {
            let len = self.len.unwrap_or(*len);
            share_network(*own, self.first, len) && share_network(*own, self.last, len)
        })
    }

    /// Whether another has some of the same addresses.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_proxy {
            true => write!(f, "{} (proxy)", self.first),
            false if self.first == self.last => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

/// Whom requests are passed on to, as `--dhcp-relay` tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// The own address on the interface whose requests these are.
    local: Ipv4Addr,
    /// The other server; `None`: everybody beyond an interface.
    pub server: Option<Ipv4Addr>,
}

impl Relay {
    /// `LOCAL[,SERVER[#PORT]][,INTERFACE]`. `None`: it is of IPv6.
    pub fn parse(value: &str) -> Option<Self> {
        let mut words = value.split(',').map(str::trim);
        let local = words.next()?.parse().ok()?;
        let server = words.next().and_then(|word| word.split('#').next()?.parse().ok());
        Some(Self { local, server })
    }

    /// Whether it takes the requests of an interface.
    pub fn is_of(&self, interface: &Interface) -> bool {
        interface.addresses.iter().any(|(own, _)| *own == self.local)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: [u8; 4], len: u8) -> Interface {
        Interface { addresses: vec![(address.into(), len)], ..Interface::default() }
    }

    #[test]
    fn a_range_is_told_in_many_ways() {
        let range = |value: &str| Range::parse(value).unwrap();
        let told = |value: &str| range(value).to_string();
        assert_eq!(told("10.0.3.9,10.0.3.20"), "10.0.3.9-10.0.3.20");
        assert_eq!(told("tag:a, set:b, 10.0.3.9 ,10.0.3.20,1h"), "10.0.3.9-10.0.3.20");
        assert_eq!(told("10.0.3.0,static,255.255.255.0"), "10.0.3.0");
        assert_eq!(told("10.0.3.0,proxy"), "10.0.3.0 (proxy)");
        assert_eq!(Range::parse("::1,ra-only"), None);
        assert_eq!(Range::parse("set:a"), None);
    }

    /// The range's own netmask counts; without one, the interface's.
    #[test]
    fn a_range_is_of_the_interface_that_has_an_address_in_its_network() {
        let is_of = |value: &str, interface| Range::parse(value).unwrap().is_of(&interface);
        assert!(is_of("10.0.3.9,10.0.3.20", at([10, 0, 3, 1], 24)));
        assert!(!is_of("10.0.3.9,10.0.4.20", at([10, 0, 3, 1], 24)));
        assert!(is_of("10.0.3.9,10.0.4.20", at([10, 0, 3, 1], 16)));
        assert!(is_of("10.0.3.9,10.0.3.20,255.255.255.0", at([10, 0, 3, 1], 32)));
        assert!(!is_of("10.0.3.9,10.0.3.20,255.255.255.0", at([10, 0, 4, 1], 16)));
        assert!(is_of("10.0.3.0,static,255.255.255.0", at([10, 0, 3, 1], 24)));
        assert!(!is_of("10.0.3.9", Interface::default()));
    }

    #[test]
    fn a_relay_has_an_address_of_its_interface() {
        let relay = Relay::parse("10.0.3.1,192.0.2.1#1067,eth0").unwrap();
        assert_eq!(relay.server, Some([192, 0, 2, 1].into()));
        assert!(relay.is_of(&at([10, 0, 3, 1], 24)) && !relay.is_of(&at([10, 0, 3, 2], 24)));
        assert_eq!(Relay::parse("10.0.3.1,eth0").unwrap().server, None);
        assert_eq!(Relay::parse("fd00::1,fd00::2"), None);
    }
}
