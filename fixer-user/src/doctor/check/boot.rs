//! Whether clients that boot over the network get what they boot.

use super::traffic::place;
use crate::doctor::{
    facts::Facts,
    finding::{Finding, Likelihood},
    heard::GRACE,
};

/// Offers to such clients that do not say what to boot, or from where.
pub fn offers(facts: &Facts) -> Vec<Finding> {
    let Some(heard) = &facts.heard else { return Vec::new() };
    let mut found: Vec<Finding> = Vec::new();
    for exchange in heard.exchanges.iter().filter(|exchange| exchange.is_pxe) {
        let lack = match exchange.offers {
            [0, ..] => continue,
            [_, 0, _] => "boot file (option 67)",
            [_, _, 0] => "next server",
            _ => continue,
        };
        let Some(place) = place(facts, exchange.at) else { continue };
        if found.iter().any(|other| other.place == place) {
            continue;
        }
        let servers: Vec<_> = exchange.servers.iter().map(String::as_str).collect();
        found.push(
            Finding::new(
                Likelihood::Likely,
                &place,
                format!("network boot clients on {place} are offered no {lack}"),
            )
            .seen(format!(
                "PXEClient {} was offered a lease by {}",
                exchange.client,
                servers.join(", ")
            ))
            .means("the client gets an address and does not boot: \"No boot filename received\"")
            .remedy(
                "# dnsmasq: --dhcp-boot=FILE,,SERVER; dhcpd: filename \"FILE\"; next-server SERVER;",
            ),
        );
    }
    found
}

/// Files that were asked for, and that nobody sent.
pub fn files(facts: &Facts) -> Vec<Finding> {
    let Some(heard) = &facts.heard else { return Vec::new() };
    let mut found: Vec<Finding> = Vec::new();
    let in_time = |first| first + GRACE.min(heard.span / 2) <= heard.span;
    for transfer in heard.transfers.iter().filter(|it| !it.is_answered && in_time(it.first)) {
        let Some(place) = place(facts, transfer.at) else { continue };
        if found.iter().any(|other| other.place == place) {
            continue;
        }
        found.push(
            Finding::new(
                heard.at_most(transfer.at, Likelihood::Likely),
                &place,
                format!("nobody answers TFTP requests on {place}"),
            )
            .seen(format!("{} asked {} at UDP port 69", transfer.client.0, transfer.server))
            .means("the client has its lease and waits for its boot file")
            .remedy(
                "# start a TFTP server there (dnsmasq: --enable-tftp --tftp-root=DIRECTORY), and \
                 open UDP port 69",
            ),
        );
    }
    found
}
