//! The clsact qdisc: who is on it, and taking it back when attaching had to add it.

use std::io;

use fixer_common::abi::Hook;
use futures_util::TryStreamExt as _;
use netlink_packet_route::tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption};
use rtnetlink::Handle;

use super::{
    netlink::{self, converse},
    netns::NetNs,
};

/// Removes the clsact qdisc of an interface if no filter is left on it. That there is none, or no
/// interface, is no error.
pub fn remove_unused_clsact(netns: &NetNs, ifindex: u32) -> io::Result<()> {
    remove_each_unused_clsact(netns, &[ifindex]).map_err(|(_, error)| error)
}

/// The same for many interfaces, in one conversation. What fails does not keep the rest from being
/// removed; the first failure is told, with the index of its interface.
pub fn remove_each_unused_clsact(netns: &NetNs, ifindexes: &[u32]) -> Result<(), (u32, io::Error)> {
    let Some(first) = ifindexes.first() else {
        return Ok(());
    };
    let mut failure = None;
    let talked = converse(netns, async |handle| {
        for ifindex in ifindexes {
            match remove_if_unused(&handle, *ifindex as i32).await.map_err(netlink::error) {
                Err(error) if !is_gone(&error) => drop(failure.get_or_insert((*ifindex, error))),
                _ => {}
            }
        }
        Ok(())
    });
    talked.map_err(|error| (*first, error))?;
    failure.map_or(Ok(()), Err)
}

async fn remove_if_unused(handle: &Handle, index: i32) -> Result<(), rtnetlink::Error> {
    if is_used(handle, index).await? {
        return Ok(());
    }
    let mut request = handle.qdisc().del(index);
    let header = &mut request.message_mut().header;
    header.parent = TcHandle::CLSACT;
    header.handle = TcHandle { major: u16::MAX, minor: 0 };
    request.execute().await
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOENT | libc::EINVAL))
}

/// The same for an interface of the calling thread's namespace, by its name.
pub fn remove_unused_clsact_of(interface: &str) -> io::Result<()> {
    let ifindex = nix::net::if_::if_nametoindex(interface)?;
    remove_unused_clsact(&NetNs::current()?, ifindex)
}

/// The program ids of the BPF filters at a hook of an interface that bear one of these names.
pub fn filters_named(
    netns: &NetNs,
    interface: &str,
    hook: Hook,
    names: &[&str],
) -> io::Result<Vec<u32>> {
    converse(netns, async |handle| {
        let mut links = handle.link().get().match_name(interface.to_owned()).execute();
        let Some(link) = links.try_next().await? else {
            return Ok(Vec::new());
        };
        filters(&handle, link.header.index as i32, hook, names).await
    })
}

/// The same for both hooks of every interface there is, in one conversation: only those with a
/// clsact qdisc are asked. With each goes the index of its interface.
pub fn all_filters_named(netns: &NetNs, names: &[&str]) -> io::Result<Vec<(u32, Hook, u32)>> {
    converse(netns, async |handle| {
        let mut found = Vec::new();
        let qdiscs: Vec<_> = handle.qdisc().get().execute().try_collect().await?;
        let clsact = qdiscs.iter().filter(|qdisc| qdisc.header.parent == TcHandle::CLSACT);
        for index in clsact.map(|qdisc| qdisc.header.index) {
            for hook in [Hook::Egress, Hook::Ingress] {
                let programs = filters(&handle, index, hook, names).await?;
                found.extend(programs.into_iter().map(|id| (index as u32, hook, id)));
            }
        }
        Ok(found)
    })
}

async fn filters(
    handle: &Handle,
    index: i32,
    hook: Hook,
    names: &[&str],
) -> Result<Vec<u32>, rtnetlink::Error> {
    let filters = handle.traffic_filter(index).get();
    let filters = match hook {
        Hook::Egress => filters.egress(),
        Hook::Ingress => filters.ingress(),
    };
    let filters: Vec<_> = filters.execute().try_collect().await?;
    Ok(filters.iter().filter_map(|filter| program_named(filter, names)).collect())
}

fn program_named(filter: &TcMessage, names: &[&str]) -> Option<u32> {
    let options = filter.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    })?;
    let (mut id, mut is_named) = (None, false);
    for option in options {
        match option {
            TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => {
                is_named = names.contains(&name.as_str());
            }
            TcOption::Bpf(TcFilterBpfOption::ProgId(given)) => id = Some(*given),
            _ => {}
        }
    }
    id.filter(|_| is_named)
}

async fn is_used(handle: &Handle, index: i32) -> Result<bool, rtnetlink::Error> {
    let filters = |handle: &Handle| handle.traffic_filter(index).get();
    let leaving = filters(handle).egress().execute().try_next().await?;
    let coming = filters(handle).ingress().execute().try_next().await?;
    Ok(leaving.is_some() || coming.is_some())
}
