//! What is good to know about guests and tunnels.

use std::path::Path;

use crate::doctor::{
    facts::Facts,
    finding::{Finding, Likelihood},
};

/// Guests whose frames go through vhost-net, with the mark of a partial sum and without a sum.
pub fn vhost(facts: &Facts) -> Vec<Finding> {
    let guests = facts.census.vhost.iter().filter(|guest| facts.knows(guest.netns));
    let list: Vec<_> = guests
        .take(8)
        .map(|guest| match &guest.name {
            Some(name) => format!("'{name}' (pid {})", guest.process.pid),
            None => guest.process.label(),
        })
        .collect();
    if list.is_empty() {
        return Vec::new();
    }
    let loaded = match Path::new("/sys/module/vhost_net").exists() {
        true => "vhost_net is loaded",
        false => "/dev/vhost-net is open",
    };
    vec![
        Finding::new(Likelihood::Note, "", "guests use vhost-net")
            .seen(format!("{loaded}: {}", list.join(", ")))
            .means("partial checksums reach them as they are, and with fixer it can stay"),
    ]
}

/// A VXLAN port carries two checksums, and the outer one is nobody's fault.
pub fn vxlan(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for (_, network) in facts.selected() {
        for (bridge, _) in network.bridges() {
            for port in network.ports(bridge.ifindex) {
                let Some(is_on) = port.outer_checksum else { continue };
                let place = network.place(&port.name);
                let state = if is_on { "on" } else { "off (the sum is 0, which is allowed)" };
                found.push(
                    Finding::new(
                        Likelihood::Note,
                        &place,
                        format!("the outer checksums of {place} are not the fault"),
                    )
                    .seen(format!("{}: vxlan, udpcsum {state}", port.name))
                    .means("a capture below it may call them bad; guests see only the inner ones"),
                );
            }
        }
    }
    found
}
