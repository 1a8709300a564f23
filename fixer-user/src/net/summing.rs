//! The filters of tc that compute checksums: what libvirt sets where iptables cannot.

use std::{collections::BTreeSet, io};

use futures_util::TryStreamExt as _;
use netlink_packet_route::tc::{
    TcAction, TcActionAttribute, TcAttribute, TcFilterFlowerOption, TcFilterMatchAllOption,
    TcFilterU32Option, TcMessage, TcOption,
};

use super::{netlink::converse, netns::NetNs};

/// The interfaces among these that have a filter with `action csum` on their way out: at the root
/// qdisc, as libvirt sets it, or at clsact.
pub fn summing(netns: &NetNs, ifindexes: &[u32]) -> io::Result<BTreeSet<u32>> {
    converse(netns, async |handle| {
        let mut found = BTreeSet::new();
        for ifindex in ifindexes {
            let filters = |handle: &rtnetlink::Handle| handle.traffic_filter(*ifindex as i32).get();
            for request in [filters(&handle), filters(&handle).egress()] {
                // Where there is no qdisc, the kernel refuses to look for filters on it.
                let filters: Vec<_> = request.execute().try_collect().await.unwrap_or_default();
                if filters.iter().any(sums) {
                    found.insert(*ifindex);
                }
            }
        }
        Ok(found)
    })
}

fn sums(filter: &TcMessage) -> bool {
    filter.attributes.iter().any(|attribute| match attribute {
        TcAttribute::Options(options) => options
            .iter()
            .any(|option| actions(option).is_some_and(|actions| actions.iter().any(is_sum))),
        _ => false,
    })
}

fn actions(option: &TcOption) -> Option<&[TcAction]> {
    match option {
        TcOption::U32(TcFilterU32Option::Action(actions))
        | TcOption::Flower(TcFilterFlowerOption::Actions(actions))
        | TcOption::MatchAll(TcFilterMatchAllOption::Action(actions)) => Some(actions),
        _ => None,
    }
}

fn is_sum(action: &TcAction) -> bool {
    let named = |attribute: &TcActionAttribute| matches!(attribute, TcActionAttribute::Kind(kind) if kind == "csum");
    action.attributes.iter().any(named)
}
