//! Whether frames get across the bridge, and soon enough.

use std::time::Duration;

use crate::{
    doctor::{
        facts::Facts,
        finding::{Finding, Likelihood},
        network::{Network, leads_out},
        remedy::Remedy,
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
                Finding::new(
                    unless_spare(facts, Likelihood::Certain),
                    &place,
                    format!("{place} is down"),
                )
                .seen(format!("{name}: state DOWN"))
                .means("nothing passes it, so no guest behind it gets anything")
                .remedy(network.command("ip link set {} up", &[name])),
            );
        }
    }
    found
}

/// What is set down may be so because nobody uses it: that is no alarm unless somebody asked.
fn unless_spare(facts: &Facts, likelihood: Likelihood) -> Likelihood {
    if facts.is_asked { likelihood } else { Likelihood::Note }
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
                    .remedy(network.command(
                        "ip link set {} type bridge forward_delay 200 (2 s; or stp_state 0 where no \
                         loop can be)",
                        &[name],
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
                    found.push(shut(facts, network, bridge, port));
                }
            }
        }
    }
    found
}

fn shut(facts: &Facts, network: &Network, bridge: &Interface, port: &Interface) -> Finding {
    let place = network.place(&port.name);
    let (name, bridge) = (&*port.name, &*bridge.name);
    let headline = format!("{place}, a port of {bridge}, does not forward");
    // The old libvirt has such a port give the bridge its address; nobody is ever behind it.
    let is_libvirts = port.kind.as_deref() == Some("tun") && *name == format!("{bridge}-nic");
    let likelihood = match port.is_up {
        true => Likelihood::Likely,
        false if is_libvirts => Likelihood::Note,
        false => unless_spare(facts, Likelihood::Likely),
    };
    let finding = Finding::new(likelihood, &place, headline).seen(state(port));
    let finding = finding.means("the guest behind it hears nobody and is not heard");
    finding.remedy(match (port.is_up, port.port) {
        (false, _) => network.command("ip link set {} up", &[name]),
        (_, Some(Port::Blocking)) => {
            Remedy::from("find the loop that the spanning tree broke here: ")
                .with(network.command("bridge link show master {}", &[bridge]))
        }
        (_, Some(Port::Listening | Port::Learning)) => Remedy::from("wait, and look again: ")
            .with(network.command("bridge link show dev {}", &[name])),
        _ => network.command("bridge link set dev {} state 3", &[name]),
    })
}

/// With VLAN filtering, ports that share no VLAN with the server. The server of a VLAN that goes on to
/// other hosts may be there.
pub fn vlans(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for (at, network) in facts.selected() {
        for (bridge, _) in network.bridges().filter(|(_, bridge)| bridge.filters_vlans) {
            // The server's end: the bridge itself, or the port that it is behind.
            let ends: Vec<_> = facts
                .servers_of(at, bridge.ifindex)
                .filter_map(|serving| network.interface(serving.port.unwrap_or(bridge.ifindex)))
                .collect();
            let has_vlan_device = network
                .interfaces
                .iter()
                .filter(|device| device.kind.as_deref() == Some("vlan"))
                .any(|device| device.joined == Some(bridge.ifindex));
            if has_vlan_device {
                continue;
            }
            let ports: Vec<_> = network.ports(bridge.ifindex).collect();
            for (port, end) in strangers(&ports, &ends) {
                found.push(apart(network, bridge, port, end));
            }
        }
    }
    found
}

/// The ports whose guests none of the servers' ends can be reached from, with one of these ends.
fn strangers<'a>(
    ports: &[&'a Interface],
    ends: &[&'a Interface],
) -> Vec<(&'a Interface, &'a Interface)> {
    let uplinks: Vec<_> = ports.iter().filter(|port| leads_out(port)).collect();
    let goes_on = |port: &Interface| {
        pvid(port).is_some_and(|vlan| uplinks.iter().any(|uplink| carries(uplink, vlan)))
    };
    let Some(first) = ends.first() else { return Vec::new() };
    let is_stranger = |port: &&&Interface| {
        !leads_out(port)
            && !goes_on(port)
            && ends.iter().all(|end| end.ifindex != port.ifindex && !is_joined(port, end))
    };
    ports.iter().filter(is_stranger).map(|port| (*port, *first)).collect()
}

/// Whether an untagged frame from one gets to the other, and an answer back. A port that carries
/// tagged VLANs only leads to others, and its guests are not told.
fn is_joined(port: &Interface, end: &Interface) -> bool {
    let Some(vlan) = pvid(port) else { return !port.vlans.is_empty() };
    end.vlans.iter().any(|other| (other.first..=other.last).contains(&vlan) && other.is_untagged)
        && pvid(end).is_some_and(|back| carries(port, back))
}

fn carries(interface: &Interface, vlan: u16) -> bool {
    interface.vlans.iter().any(|own| (own.first..=own.last).contains(&vlan))
}

fn pvid(interface: &Interface) -> Option<u16> {
    interface.vlans.iter().find(|vlan| vlan.is_pvid).map(|vlan| vlan.first)
}

fn apart(network: &Network, bridge: &Interface, port: &Interface, end: &Interface) -> Finding {
    let place = network.place(&port.name);
    let headline = format!("{place} and the server on {} are in different VLANs", end.name);
    let finding = Finding::new(Likelihood::Possible, &place, headline)
        .seen(format!("{}: vlan_filtering on", bridge.name))
        .seen(format!("{}: {}; {}: {}", port.name, list(&port.vlans), end.name, list(&end.vlans)))
        .means("the bridge keeps them apart: what the guest asks does not reach this server");
    let is_bridge = end.ifindex == bridge.ifindex;
    let (name, vlan) = match pvid(end) {
        Some(vlan) => (&*port.name, vlan),
        None => (&*end.name, pvid(port).unwrap_or(1)),
    };
    let names = [name, &vlan.to_string()];
    finding.remedy(match pvid(end) {
        None if is_bridge => {
            network.command("bridge vlan add dev {} vid {} pvid untagged self", &names)
        }
        _ => Remedy::from("if that is a mistake: ")
            .with(network.command("bridge vlan add dev {} vid {} pvid untagged", &names)),
    })
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
            let Some(shortest) = other.iter().map(|port| port.mtu).min() else { continue };
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
                    .remedy(network.command(
                        "ip link set {} mtu {}",
                        &[&bridge.name, &shortest.to_string()],
                    )),
            );
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A port with an untagged VLAN of its own, and a tagged one.
    fn port(ifindex: u32, kind: Option<&str>, own: u16, tagged: Option<u16>) -> Interface {
        let vlan = |id, is_own| Vlan { first: id, last: id, is_pvid: is_own, is_untagged: is_own };
        let vlans = [Some(vlan(own, true)), tagged.map(|id| vlan(id, false))];
        let vlans = vlans.into_iter().flatten().collect();
        Interface { ifindex, kind: kind.map(str::to_owned), vlans, ..Interface::default() }
    }

    #[test]
    fn only_guests_whose_vlan_ends_here_are_strangers() {
        let bridge = port(1, Some("bridge"), 1, None);
        let (here, there) = (port(2, Some("tun"), 1, None), port(3, Some("tun"), 20, None));
        let found = |ports: &[&Interface]| -> Vec<u32> {
            strangers(ports, &[&bridge]).iter().map(|(port, _)| port.ifindex).collect()
        };
        assert_eq!(found(&[&here, &there]), [3]);
        // The uplink carries its VLAN on, or another.
        assert!(found(&[&here, &there, &port(4, None, 1, Some(20))]).is_empty());
        assert_eq!(found(&[&here, &there, &port(4, None, 1, Some(30))]), [3]);
        // An uplink may have any VLAN of its own.
        assert!(found(&[&here, &port(4, None, 99, None)]).is_empty());
        assert!(strangers(&[&there], &[]).is_empty());
    }
}
