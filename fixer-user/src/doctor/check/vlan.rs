//! Whether a bridge that keeps VLANs apart lets guests and servers have the same.

use std::collections::BTreeSet;

use crate::{
    doctor::{
        facts::{Facts, Serving},
        finding::{Finding, Likelihood},
        network::{Network, leads_out},
        remedy::Remedy,
    },
    net::inspect::{Interface, Vlan},
};

/// The server's end: the bridge itself, or the port that it is behind.
struct End<'a> {
    interface: &'a Interface,
    /// How the server's own interface is called.
    name: &'a str,
    /// The VLAN that it serves with tags, as a VLAN device.
    device: Option<u16>,
    /// What gets through to the server.
    vlans: Vec<Vlan>,
}

impl<'a> End<'a> {
    fn of(facts: &'a Facts, serving: &Serving) -> Option<Self> {
        let interface = facts.end(serving)?;
        let name = match serving.vlan {
            Some(_) => &*facts.origin(serving)?.1.name,
            None => &*interface.name,
        };
        let is_tagged = |vlan: u16| {
            let has = |own: &Vlan| (own.first..=own.last).contains(&vlan) && !own.is_untagged;
            interface.vlans.iter().any(has)
        };
        let vlans = match serving.vlan {
            // What the bridge tags the device takes the tag from.
            Some(vlan) if is_tagged(vlan) => {
                vec![Vlan { first: vlan, last: vlan, is_pvid: true, is_untagged: true }]
            }
            Some(_) => Vec::new(),
            None => interface.vlans.clone(),
        };
        Some(Self { interface, name, device: serving.vlan, vlans })
    }

    fn pvid(&self) -> Option<u16> {
        self.vlans.iter().find(|vlan| vlan.is_pvid).map(|vlan| vlan.first)
    }

    /// Whether an untagged frame from a port gets to the server, and an answer back. A port that
    /// carries tagged VLANs only leads to others, and its guests are not told.
    fn is_joined(&self, port: &Interface) -> bool {
        let Some(vlan) = port.pvid() else { return !port.vlans.is_empty() };
        let takes = |own: &Vlan| (own.first..=own.last).contains(&vlan) && own.is_untagged;
        self.vlans.iter().any(takes) && self.pvid().is_some_and(|back| port.carries(back))
    }
}

/// With VLAN filtering, ports that share no VLAN with the server. The server of a VLAN that goes on to
/// other hosts may be there.
pub fn apart(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for (at, network) in facts.selected() {
        for (bridge, _) in network.bridges().filter(|(_, bridge)| bridge.filters_vlans) {
            let servings = facts.servers_of(at, bridge.ifindex);
            let ends: Vec<_> = servings.filter_map(|serving| End::of(facts, serving)).collect();
            // Who is at a VLAN device of the bridge, if no server of ours, cannot be told.
            let devices = network.interfaces.iter().filter_map(|interface| interface.tagged);
            let here = devices.filter(|tagged| tagged.lower == Some(bridge.ifindex));
            let mut elsewhere: BTreeSet<_> = here.map(|tagged| tagged.vlan).collect();
            for end in &ends {
                end.device.map(|vlan| elsewhere.remove(&vlan));
            }
            let ports: Vec<_> = network.ports(bridge.ifindex).collect();
            for (port, end) in strangers(&ports, &ends, &elsewhere) {
                found.push(told(network, bridge, port, end));
            }
        }
    }
    found
}

/// The ports whose guests none of the servers' ends can be reached from, with one of these ends.
fn strangers<'a, 'e>(
    ports: &[&'a Interface],
    ends: &'e [End<'a>],
    elsewhere: &BTreeSet<u16>,
) -> Vec<(&'a Interface, &'e End<'a>)> {
    let uplinks: Vec<_> = ports.iter().filter(|port| leads_out(port)).collect();
    let goes_on = |port: &Interface| {
        port.pvid().is_some_and(|vlan| {
            elsewhere.contains(&vlan) || uplinks.iter().any(|uplink| uplink.carries(vlan))
        })
    };
    let Some(first) = ends.first() else { return Vec::new() };
    let is_stranger = |port: &&&Interface| {
        !leads_out(port)
            && !goes_on(port)
            && ends.iter().all(|end| end.interface.ifindex != port.ifindex && !end.is_joined(port))
    };
    // The server's end in the port's own VLAN, if there is one that lost it, is the likelier mistake.
    let end = |port: &Interface| {
        ends.iter().find(|end| end.device.is_some() && end.device == port.pvid()).unwrap_or(first)
    };
    ports.iter().filter(is_stranger).map(|port| (*port, end(port))).collect()
}

fn told(network: &Network, bridge: &Interface, port: &Interface, end: &End<'_>) -> Finding {
    let place = network.place(&port.name);
    let headline = format!("{place} and the server on {} are in different VLANs", end.name);
    let server = match end.device {
        Some(_) => format!("{}, below {}", end.interface.name, end.name),
        None => end.name.to_owned(),
    };
    Finding::new(Likelihood::Possible, &place, headline)
        .seen(format!("{}: vlan_filtering on", bridge.name))
        .seen(format!(
            "{}: {}; {server}: {}",
            port.name,
            list(&port.vlans),
            list(&end.interface.vlans)
        ))
        .means("the bridge keeps them apart: what the guest asks does not reach this server")
        .remedy(join(network, bridge, port, end))
}

fn join(network: &Network, bridge: &Interface, port: &Interface, end: &End<'_>) -> Remedy {
    let is_bridge = end.interface.ifindex == bridge.ifindex;
    let vlan = |vlan: Option<u16>| vlan.unwrap_or(1).to_string();
    let own = &*end.interface.name;
    let line = match (end.pvid(), end.device, is_bridge) {
        (Some(_), ..) => {
            let names = [&*port.name, &vlan(end.pvid())];
            network.command("bridge vlan add dev {} vid {} pvid untagged", &names)
        }
        (None, Some(_), true) => {
            return network
                .command("bridge vlan add dev {} vid {} self", &[own, &vlan(end.device)]);
        }
        (None, Some(_), false) => {
            network.command("bridge vlan add dev {} vid {}", &[own, &vlan(end.device)])
        }
        (None, None, true) => {
            let names = [own, &vlan(port.pvid())];
            return network.command("bridge vlan add dev {} vid {} pvid untagged self", &names);
        }
        (None, None, false) => {
            let names = [own, &vlan(port.pvid())];
            network.command("bridge vlan add dev {} vid {} pvid untagged", &names)
        }
    };
    line.remark("if that is a mistake")
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
        let end =
            End { interface: &bridge, name: "br0", device: None, vlans: bridge.vlans.clone() };
        let ends = [end];
        let (here, there) = (port(2, Some("tun"), 1, None), port(3, Some("tun"), 20, None));
        let found = |ports: &[&Interface], elsewhere: &[u16]| -> Vec<u32> {
            let elsewhere = elsewhere.iter().copied().collect();
            let found = strangers(ports, &ends, &elsewhere);
            found.iter().map(|(port, _)| port.ifindex).collect()
        };
        assert_eq!(found(&[&here, &there], &[]), [3]);
        // Of a VLAN whose device is here, and of no other, somebody else may be the server.
        assert!(found(&[&here, &there], &[20]).is_empty());
        assert_eq!(found(&[&here, &there], &[30]), [3]);
        // The uplink carries its VLAN on, or another.
        assert!(found(&[&here, &there, &port(4, None, 1, Some(20))], &[]).is_empty());
        assert_eq!(found(&[&here, &there, &port(4, None, 1, Some(30))], &[]), [3]);
        // An uplink may have any VLAN of its own.
        assert!(found(&[&here, &port(4, None, 99, None)], &[]).is_empty());
        assert!(strangers(&[&there], &[], &BTreeSet::new()).is_empty());
    }
}
