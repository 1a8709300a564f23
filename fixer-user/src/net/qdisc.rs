//! Takes back the clsact qdisc that attaching had to add.

use std::io;

use futures_util::TryStreamExt as _;
use netlink_packet_route::tc::TcHandle;
use rtnetlink::Handle;

use super::{netlink::converse, netns::NetNs};

/// Removes the clsact qdisc of an interface if no filter is left on it. An interface that is gone
/// has none.
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
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOENT)) => Ok(()),
        outcome => outcome,
    }
}

async fn is_used(handle: &Handle, index: i32) -> Result<bool, rtnetlink::Error> {
    let filters = |handle: &Handle| handle.traffic_filter(index).get();
    let leaving = filters(handle).egress().execute().try_next().await?;
    let coming = filters(handle).ingress().execute().try_next().await?;
    Ok(leaving.is_some() || coming.is_some())
}
