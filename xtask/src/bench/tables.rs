//! Figures as tables in Markdown.

use super::figures::{Figures, Series};

/// What every other way is compared with.
pub(crate) const UNTOUCHED: &str = "untouched bridge";
/// The least that a program costs.
pub(crate) const EMPTY: &str = "empty program";
/// Ours.
pub(crate) const FIXER: &str = "fixer";
/// What costs TCP most.
pub(crate) const TX_OFF: &str = "tx off";

/// What replies are called, and only they.
const REPLY: &str = "DHCP reply";

/// The instructions that each way adds to a packet: to those that are left alone, and to replies.
pub(crate) fn exact(figures: &Figures) -> String {
    let (replies, others): (Vec<_>, Vec<_>) =
        figures.names("exact", 2).into_iter().partition(|kind| kind.starts_with(REPLY));
    format!(
        "Packets that are none of ours:\n\n{}\nReplies:\n\n{}",
        instructions(figures, &others),
        instructions(figures, &replies)
    )
}

fn instructions(figures: &Figures, kinds: &[&str]) -> String {
    table("", kinds, &figures.names("exact", 1), |way, kind| {
        if way == UNTOUCHED {
            return figures.of(&["exact", way, kind]).map(|all| thousands(all.median()));
        }
        added(figures, way, UNTOUCHED, kind).map(|added| with_spread(&added))
    })
}

/// What a packet of some kinds pays on each way.
pub(crate) fn cost(figures: &Figures) -> String {
    let kinds = ["UDP 300 B", "TCP 64 kB, GSO", "DHCP reply 300 B", "DHCP reply 1400 B"];
    let ways = figures.names("exact", 1).into_iter().filter(|way| *way != UNTOUCHED);
    table("", &kinds, &ways.collect::<Vec<_>>(), |way, kind| {
        Some(signed(added(figures, way, UNTOUCHED, kind)?.median()))
    })
}

/// What goes through on a way, as its part of what goes through the untouched bridge.
fn share(figures: &Figures, way: &str, load: &str) -> Option<Series> {
    let [one, all] = [way, UNTOUCHED].map(|way| figures.of(&["felt", way, load]));
    Some(one?.with(&all?, |one, all| one / all))
}

/// The instructions that a way takes more than another.
pub(crate) fn added(figures: &Figures, way: &str, base: &str, kind: &str) -> Option<Series> {
    let [one, other] = [way, base].map(|way| figures.of(&["exact", way, kind]));
    Some(one?.with(&other?, |one, other| one - other))
}

/// What goes through the bridge: as it is untouched, and on the other ways as its part of that.
pub(crate) fn felt(figures: &Figures) -> String {
    let ways = figures.names("felt", 1);
    let mut ways: Vec<_> = ways.into_iter().filter(|way| *way != UNTOUCHED).collect();
    ways.insert(0, UNTOUCHED);
    table("", &figures.names("felt", 2), &ways, |way, load| {
        if way == UNTOUCHED {
            let here = figures.of(&["felt", way, load])?;
            let unit = if load == "TCP" { "Gb/s" } else { "thousand/s" };
            let (least, most) = here.range();
            return Some(format!("{:.1} {unit} ({least:.1} to {most:.1})", here.median()));
        }
        let ratio = share(figures, way, load)?;
        let (least, most) = ratio.range();
        Some(format!("{:.2} ({least:.2} to {most:.2})", ratio.median()))
    })
}

/// What `fixer run` needs.
pub(crate) fn beyond(figures: &Figures) -> String {
    let unit_of = |what: &str| {
        ["ms", "MiB", "a second"]
            .into_iter()
            .find(|unit| figures.of(&["beyond", what, unit]).is_some())
    };
    table("", &["median", "least to most"], &figures.names("beyond", 1), |what, column| {
        let unit = unit_of(what)?;
        let all = figures.of(&["beyond", what, unit])?;
        let (least, most) = all.range();
        Some(match column {
            "median" => format!("{} {unit}", quantity(all.median())),
            _ => format!("{} to {}", quantity(least), quantity(most)),
        })
    })
}

/// A difference, and by how much it moved from round to round if that is more than a few.
fn with_spread(added: &Series) -> String {
    const FEW: f64 = 4.0;
    let (least, most) = added.range();
    let median = signed(added.median());
    if most - least <= FEW {
        return median;
    }
    format!("{median} ({} to {})", thousands(least), thousands(most))
}

/// A difference with its sign.
fn signed(difference: f64) -> String {
    format!("{}{}", if difference < 0.0 { "-" } else { "+" }, thousands(difference.abs()))
}

/// A table with a row for each name, and a cell for each row and column.
pub(crate) fn table(
    corner: &str,
    columns: &[&str],
    rows: &[&str],
    cell: impl Fn(&str, &str) -> Option<String>,
) -> String {
    let mut table = format!("| {corner} | {} |\n", columns.join(" | "));
    table += &format!("|---|{}\n", "---:|".repeat(columns.len()));
    for row in rows {
        let cells =
            columns.iter().map(|column| cell(row, column).unwrap_or_else(|| "-".to_owned()));
        table += &format!("| {row} | {} |\n", cells.collect::<Vec<_>>().join(" | "));
    }
    table
}

/// A number with no more digits than it deserves.
fn quantity(number: f64) -> String {
    if number < 100.0 { format!("{number:.1}") } else { thousands(number) }
}

/// A whole number, its thousands apart.
pub(crate) fn thousands(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut apart = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            apart.push(',');
        }
        apart.push(digit);
    }
    if number <= -0.5 { format!("-{apart}") } else { apart }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_apart() {
        assert_eq!(thousands(0.0), "0");
        assert_eq!(thousands(-0.2), "0");
        assert_eq!(thousands(999.6), "1,000");
        assert_eq!(thousands(-1_234_567.0), "-1,234,567");
    }

    #[test]
    fn a_table_has_a_row_for_each_way_and_tells_what_is_missing() {
        let mut figures = Figures::default();
        for line in [
            "fixer-bench: exact | untouched bridge | UDP 9000",
            "fixer-bench: exact | tx off | UDP 8950",
            "fixer-bench: exact | untouched bridge | UDP 9004",
            "fixer-bench: exact | tx off | UDP 8964",
            "fixer-bench: exact | untouched bridge | DHCP reply 10000",
        ] {
            figures.read(line);
        }
        assert_eq!(
            exact(&figures),
            "Packets that are none of ours:\n\n\
             |  | UDP |\n|---|---:|\n| untouched bridge | 9,004 |\n| tx off | -40 (-50 to -40) |\n\
             \nReplies:\n\n\
             |  | DHCP reply |\n|---|---:|\n| untouched bridge | 10,000 |\n| tx off | - |\n"
        );
    }
}
