//! The interfaces of a network namespace, as they are and as they change.

use std::io;

use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream::BoxStream};
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoKind, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage},
};
use rtnetlink::{Handle, MulticastGroup, new_multicast_connection};
use tokio::task::AbortHandle;

use super::{netlink::converse, netns::NetNs};

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index in its namespace.
    pub ifindex: u32,
    /// Its name, which may change.
    pub name: String,
    /// Whether it is a Linux bridge.
    pub is_bridge: bool,
    /// What its packets begin with.
    pub header: Header,
}

/// What the packets of an interface begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Header {
    /// An Ethernet header.
    Ethernet,
    /// Something else, often the IP header itself. Named is the kind of the interface, as `ip link`
    /// does: tun, wireguard, ipip, ppp.
    Other(String),
}

impl Link {
    /// Whether its packets begin with an Ethernet header.
    pub fn is_ethernet(&self) -> bool {
        self.header == Header::Ethernet
    }
}

/// Something that happened to an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is there: it is new, or its name or state changed.
    Present(Link),
    /// The interface with this index is gone.
    Gone(u32),
    /// Some changes were not heard. These are all the interfaces that there are now.
    All(Vec<Link>),
}

/// Every interface that there is.
pub fn list(netns: &NetNs) -> io::Result<Vec<Link>> {
    converse(netns, dump)
}

async fn dump(handle: Handle) -> Result<Vec<Link>, rtnetlink::Error> {
    let links = handle.link().get().execute();
    links.try_filter_map(async |message| Ok(link(&message))).try_collect().await
}

/// How many changes are handed over at once, at most.
const BATCH: usize = 4096;

/// What happens to the interfaces of a namespace, from a moment on. It holds a socket in the
/// namespace, and so keeps the namespace alive.
pub struct Changes {
    handle: Handle,
    messages: BoxStream<'static, NetlinkPayload<RouteNetlinkMessage>>,
    /// Whether a new listing is due.
    is_behind: bool,
    connection: AbortHandle,
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Every interface that there is, and then every change.
///
/// The subscription stands before the list is taken, so nothing falls between the two; an interface
/// may be told twice. Must be called on a tokio runtime.
pub async fn follow(netns: &NetNs) -> io::Result<(Vec<Link>, Changes)> {
    let runtime = tokio::runtime::Handle::current();
    let (connection, handle, messages) = netns.run(|| {
        let _entered = runtime.enter();
        new_multicast_connection(&[MulticastGroup::Link])
    })??;
    let connection = tokio::spawn(connection).abort_handle();
    let messages = messages.map(|(message, _)| message.payload).boxed();
    let changes = Changes { handle, messages, is_behind: false, connection };
    let links = dump(changes.handle.clone()).await.map_err(io::Error::other)?;
    Ok((links, changes))
}

impl Changes {
    /// Waits for changes, and hands over those that have come by then, in their order. Nothing is
    /// lost if the waiting is given up.
    ///
    /// When they come faster than they are read the kernel drops some, and says no more than that it
    /// did. It goes on dropping until the socket is empty, so only a listing that is asked for then
    /// is sure to have what was dropped. What was still on its way is older, and is thrown away: a
    /// name in it may be one that the interface has lost since.
    pub async fn next(&mut self) -> io::Result<Vec<Change>> {
        if !self.is_behind {
            let closed = || io::Error::from(io::ErrorKind::UnexpectedEof);
            let mut next = Some(self.messages.next().await.ok_or_else(closed)?);
            let mut changes = Vec::new();
            while let Some(message) = next {
                self.is_behind |= matches!(message, NetlinkPayload::Overrun(_));
                changes.extend(change(message));
                if changes.len() >= BATCH && !self.is_behind {
                    break;
                }
                next = self.messages.next().now_or_never().flatten();
            }
            if !self.is_behind {
                return Ok(changes);
            }
        }
        let links = dump(self.handle.clone()).await.map_err(io::Error::other)?;
        self.is_behind = false;
        Ok(vec![Change::All(links)])
    }
}

fn change(message: NetlinkPayload<RouteNetlinkMessage>) -> Option<Change> {
    match message {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)) => {
            link(&message).map(Change::Present)
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(message)) => {
            is_real(&message).then_some(Change::Gone(message.header.index))
        }
        _ => None,
    }
}

/// Bridges also announce their ports, under the bridge's own address family.
fn is_real(message: &LinkMessage) -> bool {
    message.header.interface_family == netlink_packet_route::AddressFamily::Unspec
}

fn link(message: &LinkMessage) -> Option<Link> {
    if !is_real(message) {
        return None;
    }
    let mut name = None;
    let mut kind = None;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(given) => name = Some(given.clone()),
            LinkAttribute::LinkInfo(infos) => {
                kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let is_bridge = kind == Some(&InfoKind::Bridge);
    let header = header(message.header.link_layer_type, kind);
    Some(Link { ifindex: message.header.index, name: name?, is_bridge, header })
}

fn header(layer: LinkLayerType, kind: Option<&InfoKind>) -> Header {
    match layer {
        // Frames on the loopback have an Ethernet header too, its addresses all zero.
        LinkLayerType::Ether | LinkLayerType::Loopback => Header::Ethernet,
        // A device that no `ip link add` made has no kind.
        layer => Header::Other(kind.map_or_else(|| layer.to_string(), ToString::to_string)),
    }
}
