//! Runs the one table of cases every way there is, and prints how many came out as they must.

use anyhow::{Result, bail};
use fixer_tests::{cases::cases, ways::WAYS};

/// A group of cases: its title, how many cases it has, and how many of them passed each way.
struct Row {
    title: &'static str,
    cases: usize,
    passed: [usize; WAYS.len()],
}

fn main() -> Result<()> {
    let mut rows: Vec<Row> = Vec::new();
    for case in cases() {
        match rows.iter_mut().find(|row| row.title == case.group) {
            Some(row) => row.cases += 1,
            None => rows.push(Row { title: case.group, cases: 1, passed: [0; _] }),
        }
    }
    let mut failures = Vec::new();
    for (at, way) in WAYS.iter().enumerate() {
        eprintln!("==> {}", way.name);
        let outcome = (way.run)(&mut |case| {
            for row in rows.iter_mut().filter(|row| row.title == case.group) {
                row.passed[at] += 1;
            }
        });
        if let Err(error) = outcome {
            failures.push(format!("{}: {error:#}", way.name));
        }
    }
    print(&rows);
    if !failures.is_empty() {
        bail!("not every case came out as it must:\n  {}", failures.join("\n  "));
    }
    Ok(())
}

/// Prints the rows; a way that does not take all cases of a group shows how many it takes.
fn print(rows: &[Row]) {
    let width = rows.iter().map(|row| row.title.len()).max().unwrap_or(0);
    let titles = WAYS.map(|way| way.name);
    println!("{:<width$}  cases  {}", "packets", titles.join("  "));
    for row in rows {
        let cells = row.passed.iter().zip(titles);
        let cells: Vec<_> =
            cells.map(|(count, title)| format!("{count:>0$}", title.len())).collect();
        println!("{:<width$}  {:>5}  {}", row.title, row.cases, cells.join("  "));
    }
}
