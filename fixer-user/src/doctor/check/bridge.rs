//! Whether frames get across the bridge, and soon enough.

use std::time::Duration;

use crate::{
    doctor::{
        facts::Facts,
        finding::{Finding, Likelihood},
        network::Network,
    },
    net::inspect::{Interface, Port, Vlan},
};

/// How long a client that boots over the network waits at least: iPXE asks four times and gives up
/// after 15 seconds, udhcpc three times in 9.
const PATIENCE: Duration = Duration::from_secs(9);

/// A bridge that is down takes nothing; a host without one has no place to look at.
pub fn is_up(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for (_, network) in facts.selected() {
        for interface in network.selected().filter(|interface| !interface.is_up) {
            let (place, name) = (network.place(&interface.name), &interface.name);
            found.push(
                Finding::new(Likelihood::Certain, &place, format!("{place} is down"))
                    .seen(format!("{name}: state DOWN"))
                    .means("nothing passes it, so no guest behind it gets anything")
                    .remedy(format!("{}ip link set {name} up", network.within())),
            );
        }
    }
    found
}

/// A port listens and learns for twice the delay before it lets anything through.
pub fn forward_delay(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for (_, network) in facts.selected() {
        for (interface, bridge) in network.bridges() {
            let silence = bridge.forward_delay * 2;
            if !bridge.has_stp || silence < PATIENCE {
                continue;
            }
            let (place, name) = (network.place(&interface.name), &interface.name);
            let (delay, silence) = (bridge.forward_delay.as_secs(), silence.as_secs());
            let headline = format!("ports of {place} forward only after {silence} s");
            let waiting = network.ports(interface.ifindex).filter(|port| is_waiting(port));
            let waiting: Vec<_> = waiting.map(state).collect();
            let mut finding = Finding::new(Likelihood::Likely, &place, headline)
                .seen(format!("{name}: stp_state on, forward_delay {delay} s"));
            if !waiting.is_empty() {
                finding = finding.seen(format!("at this moment: {}", waiting.join(", ")));
            }
            found.push(
                finding
                    .means(format!(
                        "a guest that starts hears nothing for {silence} s, and iPXE gives up after 15"
                    ))
                    .remedy(format!(
                        "{}ip link set {name} type bridge forward_delay 200 (2 s; or stp_state 0 \
                         where no loop can be)",
                        network.within()
                    )),
            );
        }
    }
    found
}

fn is_waiting(port: &Interface) -> bool {
    matches!(port.port, Some(Port::Listening | Port::Learning))
}

fn state(port: &Interface) -> String {
    let state = port.port.map_or("unknown", Port::name);
    let why = match (port.is_up, port.has_carrier) {
        (false, _) => " (down)",
        (true, false) => " (no carrier)",
        (true, true) => "",
    };
    format!("{} {state}{why}", port.name)
}

/// Ports that are shut although somebody is at their other end.
pub fn ports(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for (_, network) in facts.selected() {
        for (bridge, settings) in network.bridges().filter(|(bridge, _)| bridge.is_up) {
            let delay_tells = settings.has_stp && settings.forward_delay * 2 >= PATIENCE;
            for port in network.ports(bridge.ifindex) {
                let is_shut = match port.port {
                    Some(Port::Forwarding) | None => false,
                    Some(Port::Listening | Port::Learning) => !delay_tells,
                    Some(Port::Blocking | Port::Disabled) => port.has_carrier || !port.is_up,
                };
                if is_shut {
                    found.push(shut(network, bridge, port));
                }
            }
        }
    }
    found
}

fn shut(network: &Network, bridge: &Interface, port: &Interface) -> Finding {
    let (place, within) = (network.place(&port.name), network.within());
    let (name, bridge) = (&port.name, &bridge.name);
    let headline = format!("{place}, a port of {bridge}, does not forward");
    let finding = Finding::new(Likelihood::Likely, &place, headline).seen(state(port));
    let finding = finding.means("the guest behind it hears nobody and is not heard");
    match (port.is_up, port.port) {
        (false, _) => finding.remedy(format!("{within}ip link set {name} up")),
        (_, Some(Port::Blocking)) => finding.remedy(format!(
            "find the loop that the spanning tree broke here: {within}bridge link show master {bridge}"
        )),
        (_, Some(Port::Listening | Port::Learning)) => {
            finding.remedy(format!("wait, and look again: {within}bridge link show dev {name}"))
        }
        _ => finding.remedy(format!("{within}bridge link set dev {name} state 3")),
    }
}

/// With VLAN filtering, ports that share no VLAN with the server.
pub fn vlans(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for (at, network) in facts.selected() {
        for (bridge, _) in network.bridges().filter(|(_, bridge)| bridge.filters_vlans) {
            // The server's end: the bridge itself, or the port that it is behind.
            let ends: Vec<_> = facts
                .servers_of(at, bridge.ifindex)
                .filter_map(|serving| network.interface(serving.port.unwrap_or(bridge.ifindex)))
                .collect();
            let tagged = facts.networks[at].interfaces.iter();
            let has_vlan_device = tagged
                .filter(|device| device.kind.as_deref() == Some("vlan"))
                .any(|device| device.joined == Some(bridge.ifindex));
            if ends.is_empty() || has_vlan_device {
                continue;
            }
            for port in network.ports(bridge.ifindex) {
                let is_end = ends.iter().any(|end| end.ifindex == port.ifindex);
                if !is_end && ends.iter().all(|end| !is_joined(port, end)) {
                    found.push(apart(network, bridge, port, ends[0]));
                }
            }
        }
    }
    found
}

/// Whether an untagged frame from one gets to the other, and an answer back. A port that carries
/// tagged VLANs only leads to others, and its guests are not told.
fn is_joined(port: &Interface, end: &Interface) -> bool {
    let Some(vlan) = pvid(port) else { return !port.vlans.is_empty() };
    end.vlans.iter().any(|other| (other.first..=other.last).contains(&vlan) && other.is_untagged)
        && pvid(end)
            .is_some_and(|back| port.vlans.iter().any(|own| (own.first..=own.last).contains(&back)))
}

fn pvid(interface: &Interface) -> Option<u16> {
    interface.vlans.iter().find(|vlan| vlan.is_pvid).map(|vlan| vlan.first)
}

fn apart(network: &Network, bridge: &Interface, port: &Interface, end: &Interface) -> Finding {
    let place = network.place(&port.name);
    let headline = format!("{place} and the server on {} are in different VLANs", end.name);
    let to_bridge = if end.ifindex == bridge.ifindex { " self" } else { "" };
    let finding = Finding::new(Likelihood::Certain, &place, headline)
        .seen(format!("{}: vlan_filtering on", bridge.name))
        .seen(format!("{}: {}; {}: {}", port.name, list(&port.vlans), end.name, list(&end.vlans)))
        .means("the bridge keeps them apart: what the guest asks does not reach the server");
    let within = network.within();
    match pvid(end) {
        Some(vlan) => finding
            .remedy(format!("{within}bridge vlan add dev {} vid {vlan} pvid untagged", port.name)),
        None => finding.remedy(format!(
            "{within}bridge vlan add dev {} vid {} pvid untagged{to_bridge}",
            end.name,
            pvid(port).unwrap_or(1)
        )),
    }
}

fn list(vlans: &[Vlan]) -> String {
    if vlans.is_empty() {
        return "no VLAN".to_owned();
    }
    let one = |vlan: &Vlan| {
        let ids = match vlan {
            Vlan { first, last, .. } if first == last => first.to_string(),
            Vlan { first, last, .. } => format!("{first}-{last}"),
        };
        let pvid = if vlan.is_pvid { " pvid" } else { "" };
        let untagged = if vlan.is_untagged { " untagged" } else { " tagged" };
        format!("{ids}{pvid}{untagged}")
    };
    format!("VLAN {}", vlans.iter().map(one).collect::<Vec<_>>().join(", "))
}

/// Ports that carry less than the bridge: what is longer is dropped without a word.
pub fn mtu(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for (_, network) in facts.selected() {
        for (bridge, _) in network.bridges() {
            let other: Vec<_> =
                network.ports(bridge.ifindex).filter(|port| port.mtu < bridge.mtu).collect();
            let Some(first) = other.first() else { continue };
            let place = network.place(&bridge.name);
            let list: Vec<_> =
                other.iter().map(|port| format!("{} mtu {}", port.name, port.mtu)).collect();
            let headline = format!("{place} sends longer frames than its ports carry");
            found.push(
                Finding::new(Likelihood::Possible, &place, headline)
                    .seen(format!("{} mtu {}; {}", bridge.name, bridge.mtu, list.join(", ")))
                    .means(
                        "longer frames are dropped: a lease may come, and the boot file stops half-way",
                    )
                    .remedy(format!(
                        "{}ip link set {} mtu {}",
                        network.within(),
                        bridge.name,
                        first.mtu.min(other.iter().map(|port| port.mtu).min().unwrap_or(first.mtu))
                    )),
            );
        }
    }
    found
}
