//! What the trials say together: the matrix for people, and what is not as it must be.

use std::fmt::{self, Write as _};

use super::{
    Pair,
    servers::Sums,
    trial::{Half, Halves, Trial, needs_fixer},
    wire::Wire,
};

/// The matrix, a line for each pair: in each cell without fixer and with it whether there was a
/// lease, and how many of the replies had bad sums.
pub fn print(trials: &[Trial]) -> String {
    let mut matrix = row("protocol", "client", "server", &Wire::ALL.map(|wire| wire.to_string()));
    for Trial { pair, wires } in trials {
        let cells: Vec<_> = wires.iter().map(|(_, halves)| halves.to_string()).collect();
        let protocol = pair.client.protocol.to_string();
        matrix += &row(&protocol, pair.client.name, pair.server.name, &cells);
    }
    matrix
}

fn row(protocol: &str, client: &str, server: &str, cells: &[String]) -> String {
    let mut row = format!("{protocol:<8}  {client:<16}  {server:<7}");
    for cell in cells {
        let _ = write!(row, "  {cell:<18}");
    }
    format!("{}\n", row.trim_end())
}

impl fmt::Display for Halves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} → {}", self.without, self.with)
    }
}

impl fmt::Display for Half {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lease = if self.lease { "yes" } else { "no" };
        write!(f, "{lease} {}/{}", self.seen.bad, self.seen.replies)
    }
}

impl Trial {
    /// Whatever is not as it must be.
    pub fn faults(&self) -> Vec<String> {
        let of = |(wire, halves): &(Wire, Halves)| {
            let found = judge(self.pair, *wire, halves).into_iter();
            found.map(|fault| format!("{} ({wire}): {fault}", self.pair)).collect::<Vec<_>>()
        };
        self.wires.iter().flat_map(of).collect()
    }

    /// All that was said.
    fn log(&self) -> String {
        let mut log = String::new();
        for (wire, Halves { without, with }) in &self.wires {
            for (half, name) in [(without, "without"), (with, "with")] {
                let _ = writeln!(log, "{} ({wire}), {name} fixer:", self.pair);
                for line in &half.said {
                    let _ = writeln!(log, "    | {line}");
                }
            }
        }
        log
    }
}

/// What is not as it must be, in all trials.
pub fn faults(trials: &[Trial]) -> Vec<String> {
    trials.iter().flat_map(Trial::faults).collect()
}

/// What the pairs with a fault said, for whoever looks for the reason.
pub fn logs(trials: &[Trial]) -> String {
    trials.iter().filter(|trial| !trial.faults().is_empty()).map(Trial::log).collect()
}

fn judge(pair: Pair, wire: Wire, Halves { without, with }: &Halves) -> Vec<&'static str> {
    let (unfinished, needed) = (pair.server.sums == Sums::Kernel, needs_fixer(pair, wire));
    let all_or_none = |all| if all { without.seen.replies } else { 0 };
    let bad = all_or_none(unfinished && wire != Wire::Finished);
    let partial = all_or_none(unfinished && wire == Wire::Veth);
    // Those without fixer show that the trial can see what it is about.
    let rules = [
        (without.seen.replies == 0, "no reply was seen without fixer"),
        (without.seen.bad != bad, "not as many bad sums without fixer as there must be"),
        (
            without.seen.partial != partial,
            "not as many partial replies without fixer as there must be",
        ),
        (needed && without.lease, "a lease without fixer"),
        (!needed && !without.lease, "no lease without fixer"),
        (with.seen.replies == 0, "no reply was seen with fixer"),
        (!with.lease, "no lease with fixer"),
        (with.seen.bad != 0, "a sum was bad with fixer"),
        (with.seen.partial != 0, "a reply was still partial with fixer"),
    ];
    rules.into_iter().filter_map(|(broken, fault)| broken.then_some(fault)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leases::{observer::Seen, pairs};

    const fn half(lease: bool, replies: usize, bad: usize, partial: usize) -> Half {
        Half { lease, seen: Seen { replies, bad, partial }, said: Vec::new() }
    }

    fn faults_of(client: &str, server: &str, wire: Wire, halves: [&Half; 2]) -> String {
        let pair = pairs(Some(client), Some(server))[0];
        let [without, with] = halves.map(Half::clone);
        judge(pair, wire, &Halves { without, with }).join("; ")
    }

    /// What a strict client, and what another one, gets of a server whose sums stay partial.
    const REFUSED: Half = half(false, 3, 3, 3);
    const TRUSTED: Half = half(true, 2, 2, 2);
    /// The same without the mark.
    const BAD: Half = half(false, 3, 3, 0);
    const SERVED: Half = half(true, 2, 0, 0);

    #[test]
    fn what_must_hold_holds() {
        for (client, server, wire, without) in [
            ("smoltcp", "dnsmasq", Wire::Veth, &REFUSED),
            ("dhclient", "dnsmasq", Wire::Veth, &TRUSTED),
            ("dhclient", "dnsmasq", Wire::Copied, &BAD),
            ("smoltcp", "dnsmasq", Wire::Finished, &SERVED),
            ("smoltcp", "dhcpd", Wire::Veth, &SERVED),
            ("dhcpcd", "kea", Wire::Copied, &SERVED),
        ] {
            assert_eq!(faults_of(client, server, wire, [without, &SERVED]), "", "{client}");
        }
    }

    #[test]
    fn a_fixer_that_does_nothing_is_found_out() {
        let found = faults_of("smoltcp", "dnsmasq", Wire::Veth, [&REFUSED, &REFUSED]);
        for fault in ["no lease with fixer", "bad with fixer", "still partial with fixer"] {
            assert!(found.contains(fault), "{found}");
        }
        let found = faults_of("dhclient", "dnsmasq", Wire::Veth, [&TRUSTED, &TRUSTED]);
        assert!(found.contains("a sum was bad with fixer"), "{found}");
    }

    /// It stores the right sum and leaves the packet partial.
    #[test]
    fn a_fixer_that_leaves_the_mark_is_found_out() {
        let marked = half(true, 2, 0, 2);
        let found = faults_of("smoltcp", "dnsmasq", Wire::Veth, [&REFUSED, &marked]);
        assert_eq!(found, "a reply was still partial with fixer");
        let found = faults_of("dhclient", "dnsmasq", Wire::Finished, [&SERVED, &BAD]);
        assert_eq!(found, "no lease with fixer; a sum was bad with fixer");
    }

    #[test]
    fn a_trial_that_shows_nothing_is_found_out() {
        for (client, wire, without, fault) in [
            ("smoltcp", Wire::Veth, half(false, 0, 0, 0), "no reply was seen without fixer"),
            ("smoltcp", Wire::Veth, half(true, 2, 0, 0), "not as many bad sums"),
            ("smoltcp", Wire::Veth, TRUSTED, "a lease without fixer"),
            ("udhcpc", Wire::Veth, REFUSED, "no lease without fixer"),
            ("udhcpc", Wire::Copied, REFUSED, "not as many partial replies"),
            ("udhcpc", Wire::Finished, BAD, "not as many bad sums"),
            ("udhcpc", Wire::Copied, half(true, 2, 2, 0), "a lease without fixer"),
        ] {
            let found = faults_of(client, "dnsmasq", wire, [&without, &SERVED]);
            assert!(found.contains(fault), "{found}");
        }
        let found = faults_of("dhclient", "kea", Wire::Veth, [&TRUSTED, &half(true, 0, 0, 0)]);
        for fault in ["not as many bad sums", "no reply was seen with fixer"] {
            assert!(found.contains(fault), "{found}");
        }
    }

    #[test]
    fn a_line_has_a_cell_for_each_wire() {
        let halves = [REFUSED, SERVED, BAD].map(|without| Halves { without, with: SERVED });
        let wires = Wire::ALL.into_iter().zip(halves).collect();
        let matrix = print(&[Trial { pair: pairs(Some("smoltcp"), Some("dnsmasq"))[0], wires }]);
        let line = "DHCPv4    smoltcp           dnsmasq  \
                    no 3/3 → yes 0/2    yes 0/2 → yes 0/2   no 3/3 → yes 0/2";
        assert_eq!(matrix.lines().nth(1), Some(line), "{matrix}");
    }
}
