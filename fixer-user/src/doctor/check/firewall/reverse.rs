//! The reverse path filter, which drops what comes in elsewhere than an answer would go out.

use std::{collections::BTreeSet, net::Ipv4Addr};

use crate::{
    doctor::{
        facts::Facts,
        finding::{Finding, Likelihood},
        network::Network,
    },
    net::{
        inspect::{Interface, share_network},
        route::toward,
    },
};

/// A strict reverse path filter, where the way back leads elsewhere. The first request has no address
/// and is let through; a renewal is not.
pub fn reverse_path(facts: &Facts) -> Vec<Finding> {
    let (mut found, mut told) = (Vec::new(), BTreeSet::new());
    for serving in &facts.serving {
        let Some((network, interface)) = facts.origin(serving) else { continue };
        let setting = |name: &str| network.setting(&format!("ipv4/conf/{name}/rp_filter"));
        let strictest = setting("all").max(setting(&interface.name));
        if strictest != Some(1) || !told.insert((serving.network, serving.ifindex)) {
            continue;
        }
        let Some((guest, rival)) = elsewhere(network, interface) else { continue };
        let place = network.place(&interface.name);
        let name = &interface.name;
        found.push(
            Finding::new(
                facts.at_most(serving, Likelihood::Possible),
                &place,
                format!("rp_filter may drop what guests on {place} send from their addresses"),
            )
            .seen(format!(
                "net.ipv4.conf.{name}.rp_filter is 1 (strict), and the way to {guest} leads through {}",
                rival.name
            ))
            .means("a first lease is given, and its renewal is dropped where the route leads elsewhere")
            .remedy(network.command("sysctl -w net/ipv4/conf/{}/rp_filter=2", &[name])),
        );
    }
    found
}

/// An address of a guest to which packets would go through another interface, and that interface.
fn elsewhere<'a>(network: &'a Network, interface: &Interface) -> Option<(Ipv4Addr, &'a Interface)> {
    // In a VRF the kernel looks at other routes than it would tell us of.
    let above = interface.controller.and_then(|above| network.interface(above));
    if above.is_some_and(|above| above.kind.as_deref() == Some("vrf")) {
        return None;
    }
    let through = |own: Ipv4Addr, guest: Ipv4Addr| {
        let ifindex = toward(&network.netns, own, guest).ok().flatten()?;
        network.interface(ifindex).filter(|other| other.ifindex != interface.ifindex)
    };
    interface.addresses.iter().find_map(|own| {
        let stretches = stretches(network, *own);
        stretches.into_iter().find_map(|stretch| {
            // A route of its own for one address is no rival of the network.
            let is_free = |guest: &Ipv4Addr| {
                let mut all = network.interfaces.iter().flat_map(|it| &it.addresses);
                !all.any(|(address, _)| address == guest)
            };
            let mut guests = stretch.filter(is_free);
            let (one, other) = (guests.next()?, guests.next()?);
            let rival = through(own.0, one)?;
            (through(own.0, other)?.ifindex == rival.ifindex).then_some((one, rival))
        })
    })
}

/// Addresses in a network at which to ask for the way: at its start, in its middle, and in each smaller
/// network within it that the host has an address of.
fn stretches(
    network: &Network,
    (own, len): (Ipv4Addr, u8),
) -> Vec<impl Iterator<Item = Ipv4Addr> + use<>> {
    const ENOUGH: u32 = 8;
    let hosts = |len: u8| u32::MAX.checked_shr(len.into()).unwrap_or(0);
    let first = own.to_bits() & !hosts(len);
    let smaller = network
        .interfaces
        .iter()
        .filter(|other| other.is_up)
        .flat_map(|other| &other.addresses)
        .filter(|(at, wide)| (len + 1..32).contains(wide) && share_network(own, *at, len))
        .map(|(at, wide)| (at.to_bits() & !hosts(*wide), hosts(*wide)));
    [(first, hosts(len)), (first | (hosts(len) / 2 + 1), hosts(len) / 2)]
        .into_iter()
        .chain(smaller)
        .map(|(start, hosts)| {
            // The first and the last address are the network's, if it is not a pair of hosts.
            let (from, to) = if hosts > 1 { (1, hosts - 1) } else { (0, hosts) };
            (from..=to.min(ENOUGH)).map(move |host| Ipv4Addr::from_bits(start + host))
        })
        .collect()
}
