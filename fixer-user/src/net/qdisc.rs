//! The clsact qdisc: taking it back when attaching had to add it.

use std::io;

use super::{filter, netns::NetNs};

/// Removes the clsact qdisc of an interface if no filter is left on it. That there is none, or no
/// interface, is no error.
pub fn remove_unused_clsact(netns: &NetNs, ifindex: u32) -> io::Result<()> {
    netns.run(|| filter::remove_unused_clsact(ifindex))?
}
