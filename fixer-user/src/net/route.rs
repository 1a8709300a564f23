//! Where packets to an address would go.

use std::{io, net::Ipv4Addr};

use netlink_packet_core::NLM_F_ACK;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteMessage},
};

use super::{netlink::ask, netns::NetNs};

/// The index of the interface through which packets from one address of the host's go to another, as the
/// kernel says. `None`: it knows no way.
pub fn toward(netns: &NetNs, from: Ipv4Addr, to: Ipv4Addr) -> io::Result<Option<u32>> {
    let mut request = RouteMessage::default();
    request.header.address_family = AddressFamily::Inet;
    request.header.destination_prefix_length = 32;
    request.header.source_prefix_length = 32;
    request.attributes = vec![
        RouteAttribute::Destination(RouteAddress::Inet(to)),
        RouteAttribute::Source(RouteAddress::Inet(from)),
    ];
    let told = netns.run(|| ask([(NLM_F_ACK, RouteNetlinkMessage::GetRoute(request))])?.ok())?;
    let told = match told {
        Ok(told) => told,
        Err(error) if error.kind() == io::ErrorKind::NetworkUnreachable => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::HostUnreachable => return Ok(None),
        Err(error) => return Err(error),
    };
    let through = |attribute: &RouteAttribute| match attribute {
        RouteAttribute::Oif(ifindex) => Some(*ifindex),
        _ => None,
    };
    Ok(told.iter().find_map(|message| match message {
        RouteNetlinkMessage::NewRoute(route) => route.attributes.iter().find_map(through),
        _ => None,
    }))
}
