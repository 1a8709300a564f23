//! The interfaces of a network namespace, as they are and as they change.

use std::io;

use futures_util::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage},
};
use rtnetlink::{Handle, MulticastGroup, new_multicast_connection};

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
}

/// Something that happened to an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is there: it is new, or its name or state changed.
    Present(Link),
    /// The interface with this index is gone.
    Gone(u32),
}

/// Every interface that there is.
pub fn list(netns: &NetNs) -> io::Result<Vec<Link>> {
    converse(netns, dump)
}

async fn dump(handle: Handle) -> Result<Vec<Link>, rtnetlink::Error> {
    let links = handle.link().get().execute();
    links.try_filter_map(async |message| Ok(link(&message))).try_collect().await
}

/// Every interface that there is, and then every change.
///
/// The subscription stands before the list is taken, so nothing falls between the two; an interface
/// may be told twice. Must be called on a tokio runtime.
pub async fn follow(netns: &NetNs) -> io::Result<(Vec<Link>, BoxStream<'static, Change>)> {
    let runtime = tokio::runtime::Handle::current();
    let (connection, handle, messages) = netns.run(|| {
        let _entered = runtime.enter();
        new_multicast_connection(&[MulticastGroup::Link])
    })??;
    tokio::spawn(connection);
    let links = dump(handle.clone()).await.map_err(io::Error::other)?;
    let changes = messages.filter_map(async |(message, _)| match message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)) => {
            link(&message).map(Change::Present)
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(message)) => {
            is_real(&message).then_some(Change::Gone(message.header.index))
        }
        _ => None,
    });
    // The handle keeps the connection alive for as long as the stream is.
    let changes = changes.map(move |change| {
        let _alive = &handle;
        change
    });
    Ok((links, changes.boxed()))
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
    let mut is_bridge = false;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(given) => name = Some(given.clone()),
            LinkAttribute::LinkInfo(infos) => {
                is_bridge = infos.contains(&LinkInfo::Kind(InfoKind::Bridge));
            }
            _ => {}
        }
    }
    Some(Link { ifindex: message.header.index, name: name?, is_bridge })
}
