//! The table of checks. To add one is to add a row.

mod boot;
mod bridge;
mod checksum;
mod firewall;
mod guests;
mod isolation;
mod kernel;
mod rivals;
mod role;
mod server;
mod start;
mod switch;
mod traffic;
mod vlan;

use super::{
    facts::Facts,
    finding::{Finding, Source},
};

/// A check.
pub struct Check {
    /// Its name, in JSON.
    pub name: &'static str,
    /// What is in order when it finds nothing.
    pub fine: &'static str,
    /// What it looks at: where that could not be read, nothing is in order.
    pub needs: &'static [Source],
    /// Whether it looks at what passed while we listened.
    pub listens: bool,
    /// Finds what is wrong.
    pub find: fn(&Facts) -> Vec<Finding>,
}

const fn row(
    name: &'static str,
    fine: &'static str,
    needs: &'static [Source],
    find: fn(&Facts) -> Vec<Finding>,
) -> Check {
    Check { name, fine, needs, listens: false, find }
}

const fn heard(name: &'static str, fine: &'static str, find: fn(&Facts) -> Vec<Finding>) -> Check {
    Check { name, fine, needs: &[Source::Traffic], listens: true, find }
}

use Source::{Filters, Firewall, Fixers, Kernel, Links, Offload, Processes, Switches};

/// Every check, the likelier causes first.
pub const CHECKS: &[Check] = &[
    row("bridge", "a bridge that is up", &[Links], bridge::is_up),
    row("server", "a server for each bridge", &[Links, Processes], server::nobody),
    row("ranges", "a lease to give", &[Links, Processes], role::idle),
    row("firewall", "firewall", &[Links, Processes, Firewall], firewall::drops),
    heard("sums", "checksums of replies that passed", traffic::sums),
    heard("answers", "every request answered", traffic::answers),
    row("vlan", "VLANs", &[Links], vlan::apart),
    row(
        "checksum",
        "checksums",
        &[Links, Processes, Offload, Filters, Fixers, Firewall],
        checksum::partial,
    ),
    row("stp", "forward delay", &[Links], bridge::forward_delay),
    row("ports", "ports forwarding", &[Links], bridge::ports),
    row("isolation", "no port kept apart", &[Links, Processes], isolation::find),
    row("bridge-nf", "bridge-nf-call", &[Links, Firewall], firewall::bridged),
    row("switch", "Open vSwitch", &[Switches], switch::find),
    row("leftover", "no left-over server", &[Processes], rivals::left_over),
    row("servers", "one server a bridge", &[Links, Processes], rivals::many),
    heard("refusals", "nobody refused", traffic::refusals),
    heard("boot", "boot file and server", boot::offers),
    heard("tftp", "files served", boot::files),
    row("rp-filter", "rp_filter", &[Links], firewall::reverse_path),
    row("mtu", "MTUs", &[Links], bridge::mtu),
    row("kernel", "this kernel", &[Kernel], kernel::fails),
    row("relay", "", &[Processes], role::relays),
    row("rule", "", &[Links], checksum::no_rule_possible),
    row("vhost", "", &[Processes], guests::vhost),
    row("vxlan", "", &[Links], guests::vxlan),
];
