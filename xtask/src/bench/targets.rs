//! What fixer must not cost more than, and whether it does.

use super::{
    figures::Figures,
    tables::{EMPTY, FIXER, TX_OFF, UNTOUCHED, added, thousands},
};

/// A limit.
struct Target {
    /// What is limited.
    what: &'static str,
    limit: Limit,
    /// What was measured, if it was.
    measured: fn(&Figures) -> Option<f64>,
}

/// Which side of a number is good.
#[derive(Clone, Copy)]
enum Limit {
    AtMost(f64, &'static str),
    AtLeast(f64, &'static str),
}

/// What libvirt's way adds to the longest reply, and how much more is allowed.
const LIBVIRT: f64 = 1130.0 * 1.3;

const TARGETS: &[Target] = &[
    Target {
        what: "a packet that is none of ours, over the empty program",
        limit: Limit::AtMost(20.0, "instructions"),
        measured: |figures| {
            let kinds = figures.names("exact", 2).into_iter();
            kinds
                .filter(|kind| !kind.starts_with("DHCP"))
                .filter_map(|kind| Some(added(figures, FIXER, EMPTY, kind)?.median()))
                .reduce(f64::max)
        },
    },
    Target {
        what: "a reply of 300 bytes, over the untouched bridge",
        limit: Limit::AtMost(960.0, "instructions"),
        measured: |figures| reply(figures, "DHCP reply 300 B"),
    },
    Target {
        what: "a reply of 1,400 bytes, over the untouched bridge",
        limit: Limit::AtMost(LIBVIRT, "instructions"),
        measured: |figures| reply(figures, "DHCP reply 1400 B"),
    },
    Target {
        what: "TCP, to that over the untouched bridge",
        limit: Limit::AtLeast(0.98, "times"),
        measured: |figures| tcp(figures, UNTOUCHED),
    },
    Target {
        what: "TCP, to that with checksum offload turned off",
        limit: Limit::AtLeast(3.5, "times"),
        measured: |figures| tcp(figures, TX_OFF),
    },
    Target {
        what: "memory of `fixer run`, idle",
        limit: Limit::AtMost(15.0, "MiB"),
        measured: |figures| Some(figures.of(&["beyond", "memory, idle", "MiB"])?.median()),
    },
    Target {
        what: "from the start of `fixer run` to attached, without the self-test",
        limit: Limit::AtMost(100.0, "ms"),
        measured: |figures| Some(figures.of(&["beyond", "attach to 1 interface", "ms"])?.median()),
    },
];

fn reply(figures: &Figures, kind: &str) -> Option<f64> {
    Some(added(figures, FIXER, UNTOUCHED, kind)?.median())
}

fn tcp(figures: &Figures, other: &str) -> Option<f64> {
    let [ours, theirs] = [FIXER, other].map(|way| figures.of(&["felt", way, "TCP"]));
    Some(ours?.with(&theirs?, |one, other| one / other).median())
}

/// The targets that something was measured for, and whether they were met.
pub(crate) fn table(figures: &Figures) -> String {
    let mut table = String::from("| what | limit | measured | |\n|---|---:|---:|---|\n");
    for Target { what, limit, measured } in TARGETS {
        let Some(measured) = measured(figures) else { continue };
        let (is_met, words, bound, unit) = match *limit {
            Limit::AtMost(bound, unit) => (measured <= bound, "at most", bound, unit),
            Limit::AtLeast(bound, unit) => (measured >= bound, "at least", bound, unit),
        };
        let met = if is_met { "met" } else { "**missed**" };
        table += &format!(
            "| {what} | {words} {} {unit} | {} | {met} |\n",
            number(bound),
            number(measured)
        );
    }
    table
}

/// A number with enough digits to tell on which side of a limit it is.
fn number(number: f64) -> String {
    match number.fract() == 0.0 {
        true => thousands(number),
        false if number.abs() < 10.0 => format!("{number:.3}"),
        false => format!("{number:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_met_missed_or_not_measured() {
        let mut figures = Figures::default();
        for line in [
            "fixer-bench: exact | empty program | UDP 9000",
            "fixer-bench: exact | fixer | UDP 9021",
            "fixer-bench: felt | fixer | TCP 20",
            "fixer-bench: felt | untouched bridge | TCP 20.2",
        ] {
            figures.read(line);
        }
        let table = table(&figures);
        assert!(table.contains("| at most 20 instructions | 21 | **missed** |"), "{table}");
        assert!(table.contains("| at least 0.980 times | 0.990 | met |"), "{table}");
        assert!(!table.contains("tx off") && !table.contains("memory"), "{table}");
    }
}
