//! Boots real guests over the network, and prints what became of each: `cargo xtask pxe`.
//!
//! Standard output holds a table, or with `--json` an array; what the server said goes to standard
//! error. The exit status is 0 if every guest fared as it must.

use std::process::ExitCode;

use anyhow::Result;
use fixer_tests::pxe::{self, Outcome, Trial, guest::Got};
use serde_json::{Value, json};

fn main() -> ExitCode {
    let as_json = std::env::args().any(|argument| argument == "--json");
    let mut rows = Vec::new();
    let outcome = pxe::run(|trial, outcome| {
        let row = Row::new(trial, outcome);
        row.tell();
        rows.push(row);
    });
    if let Err(error) = outcome {
        eprintln!("error: {error:#}");
        return ExitCode::FAILURE;
    }
    if as_json {
        println!("{:#}", rows.iter().map(|row| row.json.clone()).collect::<Value>());
    } else {
        print!("{}", table(&rows));
    }
    ExitCode::from(u8::from(rows.iter().any(|row| !row.json["fault"].is_null())))
}

/// A trial as it is shown.
struct Row {
    cells: [String; TITLES.len()],
    json: Value,
    /// What the server said, and after a fault the guest's last words.
    details: Vec<String>,
}

const TITLES: [&str; 7] =
    ["guest's card", "fixer", "address", "boot file", "seconds", "fixer saw", "verdict"];

impl Row {
    fn new(trial: &Trial, outcome: Result<Outcome>) -> Self {
        let card = trial.card.name();
        let fixer = trial.fixer.map(|arguments| arguments.join(" "));
        let shown = fixer.clone().unwrap_or_else(|| "none".to_owned());
        let none = || "-".to_owned();
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                let fault = format!("{error:#}");
                return Self {
                    json: json!({ "card": card, "fixer": fixer, "fault": fault }),
                    cells: [
                        card.to_owned(),
                        shown,
                        none(),
                        none(),
                        none(),
                        none(),
                        verdict(Some(&fault)),
                    ],
                    details: Vec::new(),
                };
            }
        };
        let Outcome { boot, tally, told, fault } = outcome;
        let (ran, seconds) = (boot.got == Got::BootFile, format!("{:.1}", boot.took.as_secs_f32()));
        let json = json!({
            "card": card,
            "fixer": fixer,
            "address": boot.address,
            "boot_file": ran,
            "seconds": boot.took.as_secs_f32(),
            "seen": tally.rows(),
            "fault": fault,
        });
        let cells = [
            card.to_owned(),
            shown,
            boot.address.map_or_else(none, |address| address.to_string()),
            if ran { ran_file(trial.len) } else { none() },
            seconds,
            if fixer.is_some() { tally.to_string() } else { none() },
            verdict(fault.as_deref()),
        ];
        let mut details = told;
        if fault.is_some() {
            details.extend(boot.last_lines.iter().map(|line| format!("console: {line}")));
        }
        Self { cells, json, details }
    }

    /// Says how it went, as soon as it is known.
    fn tell(&self) {
        let [card, fixer, .., verdict] = &self.cells;
        eprintln!("{card}, fixer: {fixer}: {verdict}");
        for line in &self.details {
            eprintln!("    {line}");
        }
    }
}

fn ran_file(len: usize) -> String {
    match len / 1000 {
        0 => "ran".to_owned(),
        kilobytes => format!("{kilobytes} kB, ran"),
    }
}

fn verdict(fault: Option<&str>) -> String {
    fault.map_or_else(|| "as expected".to_owned(), |fault| format!("FAULT: {fault}"))
}

/// The rows below their titles, every column as wide as its widest cell.
fn table(rows: &[Row]) -> String {
    let titles = TITLES.map(str::to_owned);
    let lines: Vec<_> = std::iter::once(&titles).chain(rows.iter().map(|row| &row.cells)).collect();
    let mut text = String::new();
    for line in &lines {
        let cells: Vec<_> = line
            .iter()
            .enumerate()
            .map(|(at, cell)| {
                let width = lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0);
                format!("{cell:<width$}")
            })
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}
