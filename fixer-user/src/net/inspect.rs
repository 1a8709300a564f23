//! Interfaces with everything that decides whether a frame gets through them: for those who look for
//! a fault, and change nothing.

use std::{collections::BTreeMap, io, net::Ipv4Addr, os::fd::AsRawFd as _, time::Duration};

use futures_util::TryStreamExt as _;
use netlink_packet_core::NLM_F_ACK;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{
        AfSpecBridge, BridgePortState, BridgeStpState, BridgeVlanInfo, BridgeVlanInfoFlags,
        InfoBridge, InfoBridgePort, InfoData, InfoPortData, InfoVlan, InfoVxlan, LinkAttribute,
        LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
    },
    nsid::{NsidAttribute, NsidMessage},
};
use rtnetlink::Handle;

use super::{
    netlink::{ask, converse},
    netns::NetNs,
};

/// An interface, as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its index in its namespace.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Its kind as `ip link` calls it: bridge, veth, tun, vxlan. A physical one has none.
    pub kind: Option<String>,
    /// Whether it is set up.
    pub is_up: bool,
    /// Whether somebody is at its other end.
    pub has_carrier: bool,
    /// The longest packet that it carries, in bytes without the Ethernet header.
    pub mtu: u32,
    /// The bridge, or other device, that it is a port of.
    pub controller: Option<u32>,
    /// The index of what it is joined to: the other end of a veth pair, in its own namespace.
    pub joined: Option<u32>,
    /// If that is in another namespace, the number that its own has given to that one.
    pub joined_in: Option<i32>,
    /// Its IPv4 addresses with their prefix lengths.
    pub addresses: Vec<(Ipv4Addr, u8)>,
    /// What it is set to as a bridge, if it is one.
    pub bridge: Option<Bridge>,
    /// What it does as a bridge's port, if it is one.
    pub port: Option<Port>,
    /// Whether its frames do not get to other ports that are so, as a bridge's port (`isolated on`).
    pub is_isolated: bool,
    /// Whether frames to everybody do not leave through it, as a bridge's port (`bcast_flood off`).
    pub is_spared_broadcasts: bool,
    /// The VLANs of a bridge's port, or of the bridge itself.
    pub vlans: Vec<Vlan>,
    /// Where it takes its frames from as a VLAN device, if it is one.
    pub tagged: Option<Tagged>,
    /// Whether a VXLAN device computes its outer checksums (`udpcsum`), if it is one.
    pub outer_checksum: Option<bool>,
}

impl Interface {
    /// Whether an address is in one of the networks that it has an address of.
    pub fn networks_hold(&self, address: Ipv4Addr) -> bool {
        self.addresses.iter().any(|(own, len)| share_network(*own, address, *len))
    }

    /// Whether a VLAN passes it, as a bridge's port or as the bridge itself.
    pub fn carries(&self, vlan: u16) -> bool {
        self.vlans.iter().any(|own| (own.first..=own.last).contains(&vlan))
    }

    /// The VLAN that untagged frames belong to there.
    pub fn pvid(&self) -> Option<u16> {
        self.vlans.iter().find(|vlan| vlan.is_pvid).map(|vlan| vlan.first)
    }
}

/// Whether two addresses begin with the same so many bits.
pub fn share_network(one: Ipv4Addr, other: Ipv4Addr, len: u8) -> bool {
    let mask = u32::MAX.checked_shl(32 - u32::from(len.min(32))).unwrap_or(0);
    one.to_bits() & mask == other.to_bits() & mask
}

/// What a VLAN device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tagged {
    /// Its VLAN.
    pub vlan: u16,
    /// The interface in the same namespace whose tagged frames these are, if it is there.
    pub lower: Option<u32>,
    /// Whether that is a bridge.
    pub is_on_bridge: bool,
}

/// What a bridge is set to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bridge {
    /// Whether it speaks the spanning tree protocol.
    pub has_stp: bool,
    /// How long a port listens, and then learns, before it forwards.
    pub forward_delay: Duration,
    /// Whether it keeps VLANs apart.
    pub filters_vlans: bool,
    /// Whether it shows its frames to iptables, whatever the sysctl says.
    pub calls_iptables: bool,
}

/// What a port does with frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// Nothing: it is down, or has no carrier.
    Disabled,
    /// Waits for the spanning tree.
    Listening,
    /// Waits on, and learns addresses.
    Learning,
    /// Lets them through.
    Forwarding,
    /// The spanning tree found a loop.
    Blocking,
}

impl Port {
    /// Its name as `bridge link` writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Listening => "listening",
            Self::Learning => "learning",
            Self::Forwarding => "forwarding",
            Self::Blocking => "blocking",
        }
    }
}

/// VLANs that a port lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vlan {
    /// The first id.
    pub first: u16,
    /// The last id.
    pub last: u16,
    /// Whether untagged frames that come in belong to it.
    pub is_pvid: bool,
    /// Whether its frames leave without a tag.
    pub is_untagged: bool,
}

/// Every interface of a namespace.
pub fn interfaces(netns: &NetNs) -> io::Result<Vec<Interface>> {
    converse(netns, async |handle| {
        let links: Vec<_> = handle.link().get().execute().try_collect().await?;
        let mut found: Vec<_> = links.iter().map(interface).collect();
        let addresses: Vec<_> = handle.address().get().execute().try_collect().await?;
        let vlans = vlans(&handle).await?;
        for interface in &mut found {
            interface.addresses =
                addresses.iter().filter_map(|message| ipv4(message, interface.ifindex)).collect();
            interface.vlans = vlans.get(&interface.ifindex).cloned().unwrap_or_default();
        }
        lay(&mut found);
        Ok(found)
    })
}

/// Lays VLAN devices on what they are over.
fn lay(interfaces: &mut [Interface]) {
    let is_bridge = |interface: &Interface| (interface.ifindex, interface.bridge.is_some());
    let known: BTreeMap<_, _> = interfaces.iter().map(is_bridge).collect();
    for interface in interfaces {
        let lower = interface.joined.filter(|_| interface.joined_in.is_none());
        if let (Some(tagged), Some(lower)) = (&mut interface.tagged, lower) {
            tagged.lower = Some(lower);
            tagged.is_on_bridge = known.get(&lower) == Some(&true);
        }
    }
}

/// The number that a namespace has given to another; `None`: it has given it none.
pub fn number_of(netns: &NetNs, other: &NetNs) -> io::Result<Option<i32>> {
    let mut request = NsidMessage::default();
    request.attributes.push(NsidAttribute::Fd(other.file().as_raw_fd() as u32));
    let request = (NLM_F_ACK, RouteNetlinkMessage::GetNsId(request));
    let told = netns.run(|| ask([request])?.ok())??;
    let number = |attribute: &NsidAttribute| match attribute {
        NsidAttribute::Id(number) => (*number >= 0).then_some(*number),
        _ => None,
    };
    Ok(told.iter().find_map(|message| match message {
        RouteNetlinkMessage::NewNsId(message) => message.attributes.iter().find_map(number),
        _ => None,
    }))
}

/// The VLANs of every bridge and port, by index.
async fn vlans(handle: &Handle) -> Result<BTreeMap<u32, Vec<Vlan>>, rtnetlink::Error> {
    let request = handle
        .link()
        .get()
        .set_filter_mask(AddressFamily::Bridge, vec![LinkExtentMask::BrvlanCompressed]);
    let messages: Vec<_> = match request.execute().try_collect().await {
        Ok(messages) => messages,
        // A kernel without bridges knows no such family.
        Err(rtnetlink::Error::NetlinkError(_)) => Vec::new(),
        Err(error) => return Err(error),
    };
    let mut found = BTreeMap::new();
    for message in messages {
        for attribute in &message.attributes {
            if let LinkAttribute::AfSpecBridge(specs) = attribute {
                let infos = specs.iter().filter_map(|spec| match spec {
                    AfSpecBridge::VlanInfo(info) => Some(*info),
                    _ => None,
                });
                found.insert(message.header.index, ranges(infos));
            }
        }
    }
    Ok(found)
}

/// A range is told by its two ends.
fn ranges(infos: impl Iterator<Item = BridgeVlanInfo>) -> Vec<Vlan> {
    let (mut found, mut begun) = (Vec::new(), None);
    for BridgeVlanInfo { flags, vid } in infos {
        if flags.contains(BridgeVlanInfoFlags::RangeBegin) {
            begun = Some(vid);
            continue;
        }
        let first = begun.take().filter(|_| flags.contains(BridgeVlanInfoFlags::RangeEnd));
        found.push(Vlan {
            first: first.unwrap_or(vid),
            last: vid,
            is_pvid: flags.contains(BridgeVlanInfoFlags::Pvid),
            is_untagged: flags.contains(BridgeVlanInfoFlags::Untagged),
        });
    }
    found
}

fn ipv4(message: &AddressMessage, ifindex: u32) -> Option<(Ipv4Addr, u8)> {
    if message.header.index != ifindex || message.header.family != AddressFamily::Inet {
        return None;
    }
    let address = |local: bool| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(std::net::IpAddr::V4(address)) if local => Some(*address),
            AddressAttribute::Address(std::net::IpAddr::V4(address)) if !local => Some(*address),
            _ => None,
        })
    };
    Some((address(true).or_else(|| address(false))?, message.header.prefix_len))
}

fn interface(message: &LinkMessage) -> Interface {
    let flags = message.header.flags;
    let mut found = Interface {
        ifindex: message.header.index,
        is_up: flags.contains(LinkFlags::Up),
        has_carrier: flags.contains(LinkFlags::LowerUp),
        ..Interface::default()
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => found.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => found.mtu = *mtu,
            LinkAttribute::Controller(index) => found.controller = Some(*index),
            LinkAttribute::Link(index) => found.joined = Some(*index),
            LinkAttribute::LinkNetNsId(number) => found.joined_in = Some(*number),
            LinkAttribute::LinkInfo(infos) => infos.iter().for_each(|info| tell(&mut found, info)),
            _ => {}
        }
    }
    found
}

fn tell(interface: &mut Interface, info: &LinkInfo) {
    match info {
        LinkInfo::Kind(kind) => interface.kind = Some(kind.to_string()),
        LinkInfo::Data(InfoData::Bridge(infos)) => interface.bridge = Some(bridge(infos)),
        LinkInfo::Data(InfoData::Vxlan(infos)) => {
            let told = |info: &InfoVxlan| match info {
                InfoVxlan::UDPCsum(is_on) => Some(*is_on),
                _ => None,
            };
            interface.outer_checksum = infos.iter().find_map(told);
        }
        LinkInfo::Data(InfoData::Vlan(infos)) => {
            let told = |info: &InfoVlan| match info {
                InfoVlan::Id(vlan) => {
                    Some(Tagged { vlan: *vlan, lower: None, is_on_bridge: false })
                }
                _ => None,
            };
            interface.tagged = infos.iter().find_map(told);
        }
        LinkInfo::PortData(InfoPortData::BridgePort(infos)) => {
            for info in infos {
                match info {
                    InfoBridgePort::State(state) => interface.port = port(*state),
                    InfoBridgePort::Isolated(is_on) => interface.is_isolated = *is_on,
                    InfoBridgePort::BroadcastFlood(is_on) => {
                        interface.is_spared_broadcasts = !is_on;
                    }
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

fn bridge(infos: &[InfoBridge]) -> Bridge {
    let mut bridge = Bridge::default();
    for info in infos {
        match info {
            InfoBridge::StpState(state) => bridge.has_stp = *state != BridgeStpState::Disabled,
            // In ticks of USER_HZ, which is 100 on every architecture that has these bridges.
            InfoBridge::ForwardDelay(ticks) => {
                bridge.forward_delay = Duration::from_millis(u64::from(*ticks) * 10);
            }
            InfoBridge::VlanFiltering(is_on) => bridge.filters_vlans = *is_on,
            InfoBridge::NfCallIpTables(is_on) => bridge.calls_iptables = *is_on,
            _ => {}
        }
    }
    bridge
}

fn port(state: BridgePortState) -> Option<Port> {
    Some(match state {
        BridgePortState::Disabled => Port::Disabled,
        BridgePortState::Listening => Port::Listening,
        BridgePortState::Learning => Port::Learning,
        BridgePortState::Forwarding => Port::Forwarding,
        BridgePortState::Blocking => Port::Blocking,
        _ => return None,
    })
}
