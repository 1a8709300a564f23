//! The clsact qdisc: who is on it, and taking it back when attaching had to add it.

use std::io;

use fixer_common::abi::Hook;
use futures_util::TryStreamExt as _;
use netlink_packet_route::tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption};
use rtnetlink::Handle;

use super::{netlink::converse, netns::NetNs};

/// Removes the clsact qdisc of an interface if no filter is left on it. That there is none, or no
/// interface, is no error.
pub fn remove_unused_clsact(netns: &NetNs, ifindex: u32) -> io::Result<()> {
    let index = ifindex as i32;
    let outcome = converse(netns, async |handle| {
        if is_used(&handle, index).await? {
            return Ok(());
        }
        let mut request = handle.qdisc().del(index);
        let header = &mut request.message_mut().header;
        header.parent = TcHandle::CLSACT;
        header.handle = TcHandle { major: u16::MAX, minor: 0 };
        request.execute().await
    });
    match outcome {
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOENT | libc::EINVAL)) =>
        {
            Ok(())
        }
        outcome => outcome,
    }
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
        let filters = handle.traffic_filter(link.header.index as i32).get();
        let filters = match hook {
            Hook::Egress => filters.egress(),
            Hook::Ingress => filters.ingress(),
        };
        let filters: Vec<_> = filters.execute().try_collect().await?;
        Ok(filters.iter().filter_map(|filter| program_named(filter, names)).collect())
    })
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
