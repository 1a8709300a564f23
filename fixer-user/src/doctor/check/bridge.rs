//! Whether frames get across the bridge, and soon enough.

use std::time::Duration;

use crate::{
    doctor::{
        facts::Facts,
        finding::{Finding, Likelihood},
        network::Network,
    },
    net::inspect::{Interface, Port},
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
                    .remedy(
                        network
                            .command("ip link set {} type bridge forward_delay 200", &[name])
                            .remark("2 s; or stp_state 0 where no loop can be"),
                    ),
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
        (_, Some(Port::Blocking)) => network
            .command("bridge link show master {}", &[bridge])
            .remark("find the loop that the spanning tree broke here"),
        (_, Some(Port::Listening | Port::Learning)) => {
            network.command("bridge link show dev {}", &[name]).remark("wait, and look again")
        }
        _ => network.command("bridge link set dev {} state 3", &[name]),
    })
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
