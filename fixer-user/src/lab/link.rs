//! Makes interfaces in scratch namespaces.

use std::{io, net::IpAddr, os::fd::AsRawFd as _};

use futures_util::TryStreamExt as _;
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth, LinkVlan};

use crate::net::{netlink::converse, netns::NetNs};

/// A veth pair: `name` in one namespace, `peer` in another, both up.
pub fn veth(netns: &NetNs, name: &str, other: &NetNs, peer: &str) -> io::Result<()> {
    converse(netns, async |handle| {
        handle.link().add(LinkVeth::new(name, peer).build()).execute().await?;
        let moved = LinkUnspec::new_with_name(peer).setns_by_fd(other.file().as_raw_fd()).build();
        handle.link().set(moved).execute().await
    })?;
    up(netns, name)?;
    up(other, peer)
}

/// A Linux bridge without spanning tree, up.
pub fn bridge(netns: &NetNs, name: &str) -> io::Result<()> {
    converse(netns, async |handle| {
        handle.link().add(LinkBridge::new(name).build()).execute().await
    })?;
    up(netns, name)
}

/// A VLAN device over another interface, up.
pub fn vlan(netns: &NetNs, name: &str, lower: &str, id: u16) -> io::Result<()> {
    converse(netns, async |handle| {
        let index = index(&handle, lower).await?;
        let vlan = LinkVlan::new(name, index, id).build();
        handle.link().add(vlan).execute().await
    })?;
    up(netns, name)
}

/// Makes an interface a port of a bridge.
pub fn enslave(netns: &NetNs, port: &str, bridge: &str) -> io::Result<()> {
    converse(netns, async |handle| {
        let index = index(&handle, bridge).await?;
        handle.link().set(LinkUnspec::new_with_name(port).controller(index).build()).execute().await
    })
}

/// Sets an interface up.
pub fn up(netns: &NetNs, name: &str) -> io::Result<()> {
    converse(netns, async |handle| {
        handle.link().set(LinkUnspec::new_with_name(name).up().build()).execute().await
    })
}

/// Sets the longest packet that an interface carries, in bytes without the Ethernet header.
pub fn mtu(netns: &NetNs, name: &str, mtu: u32) -> io::Result<()> {
    converse(netns, async |handle| {
        handle.link().set(LinkUnspec::new_with_name(name).mtu(mtu).build()).execute().await
    })
}

/// Gives an interface an address.
pub fn address(netns: &NetNs, name: &str, address: IpAddr, prefix: u8) -> io::Result<()> {
    converse(netns, async |handle| {
        let index = index(&handle, name).await?;
        handle.address().add(index, address, prefix).execute().await
    })
}

/// Deletes an interface.
pub fn delete(netns: &NetNs, name: &str) -> io::Result<()> {
    converse(netns, async |handle| {
        let index = index(&handle, name).await?;
        handle.link().del(index).execute().await
    })
}

async fn index(handle: &Handle, name: &str) -> Result<u32, rtnetlink::Error> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    links.try_next().await?.map(|link| link.header.index).ok_or(rtnetlink::Error::RequestFailed)
}
