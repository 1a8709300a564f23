//! What those who listen at the servers' port are there for: some have no address to give.

use super::start::range;
use crate::{
    doctor::{
        facts::{Facts, Serving},
        finding::{Finding, Likelihood},
        network::Network,
        processes::Role,
        remedy::Remedy,
    },
    net::inspect::Interface,
};

/// Servers that have nothing for an interface, where nobody else has.
pub fn idle(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for serving in &facts.serving {
        let others = facts.servers_of(serving.serves.0, serving.serves.1);
        let is_served = others.into_iter().any(|other| {
            other.vlan == serving.vlan && matches!(facts.role(other), Role::Server | Role::Relay)
        });
        let is_idle = serving.is_sure && facts.role(serving) == Role::Idle;
        let is_answered = facts.heard.as_ref().is_some_and(|it| it.has_reply(serving.serves));
        if is_idle && !is_served && !is_answered {
            found.extend(useless(facts, serving));
        }
    }
    found
}

fn useless(facts: &Facts, serving: &Serving) -> Option<Finding> {
    let (network, interface) = facts.origin(serving)?;
    let told = facts.server(serving)?.told.as_ref()?;
    // It may be there for another interface, and for names only on this one.
    let has_other = network.interfaces.iter().any(|other| told.ranges_of(other).next().is_some());
    let likelihood = match has_other && !facts.is_asked {
        true => Likelihood::Note,
        false => Likelihood::Certain,
    };
    let (place, name) = (network.place(&interface.name), &interface.name);
    let headline = format!("{} has no address to give", facts.label(serving));
    let finding = Finding::new(likelihood, &place, headline).seen(format!(
        "{name}: {}; its ranges: {}",
        own(interface),
        told.ranges()
    ));
    Some(match interface.addresses.is_empty() {
        true => finding
            .means(
                "dnsmasq passes over what comes in at an interface without an IPv4 address: \"which has \
                 no address\" in its log",
            )
            .remedy(
                network
                    .command("ip addr add ADDRESS/24 dev {}", &[name])
                    .remark("an address of the network that its ranges are of"),
            ),
        false => finding
            .means(format!(
                "none is of a network of {name}, so it answers nobody there: \"no address range \
                 available\" in its log"
            ))
            .remedy(give(network, interface)),
    })
}

fn own(interface: &Interface) -> String {
    let own: Vec<_> =
        interface.addresses.iter().take(4).map(|(at, len)| format!("{at}/{len}")).collect();
    if own.is_empty() { "no IPv4 address".to_owned() } else { own.join(", ") }
}

fn give(network: &Network, interface: &Interface) -> Remedy {
    match range(interface) {
        Some([first, last]) => Remedy::line(
            "# give it addresses of this network, and start it again: --dhcp-range={},{}",
            &[&first.to_string(), &last.to_string()],
        ),
        None => network.command("ip addr show dev {}", &[&interface.name]),
    }
}

/// Those who pass requests on, where the lease comes from somebody else.
pub fn relays(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for serving in facts.serving.iter().filter(|serving| facts.role(serving) == Role::Relay) {
        let Some((network, interface)) = facts.origin(serving) else { continue };
        let place = network.place(&interface.name);
        found.push(
            Finding::new(Likelihood::Note, &place, format!("requests on {place} are relayed"))
                .seen(facts.label(serving))
                .means(
                    "the lease comes from that server, whose replies have to find their way back",
                )
                .remedy(
                    network
                        .fixer("fixer doctor", &interface.name, " --listen 30")
                        .remark("does it answer?"),
                ),
        );
    }
    found
}
