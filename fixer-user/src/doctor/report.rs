//! What was found, for people and for programs.

use anstream::println;
use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::{Finding, Likelihood, Report, Unseen, remedy::Remedy};
use crate::{event::printable, metrics::kernel};

/// How wide text may be, in columns.
const WIDTH: usize = 100;

/// The report as JSON.
pub fn to_json(report: &Report) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Json<'a> {
        kernel: String,
        healthy: bool,
        interfaces: &'a [String],
        listened: Option<u64>,
        findings: &'a [Finding],
        fine: Vec<&'a str>,
        unseen: &'a [Unseen],
    }
    serde_json::to_string(&Json {
        kernel: kernel(),
        healthy: !report.has_problem(),
        interfaces: &report.places,
        listened: report.listened.map(|span| span.as_secs()),
        findings: &report.findings,
        fine: words(report),
        unseen: &report.unseen,
    })
}

/// Prints the report: problems, the most likely first, what is good to know, what could not be seen,
/// and in a line what was fine.
pub fn print(report: &Report) {
    let (problems, notes): (Vec<_>, Vec<_>) =
        report.findings.iter().partition(|finding| finding.likelihood < Likelihood::Note);
    for (number, finding) in (1..).zip(problems) {
        print_problem(number, finding);
    }
    for (label, lines) in [
        ("Good to know:", notes.iter().map(|finding| note(finding)).collect::<Vec<_>>()),
        ("Not seen:", report.unseen.iter().map(|unseen| unseen.what.clone()).collect()),
    ] {
        if !lines.is_empty() {
            println!("{label}");
            lines.iter().for_each(|line| print_wrapped("  - ", line));
        }
    }
    print_wrapped("", &summary(report));
}

fn print_problem(number: usize, finding: &Finding) {
    let style = match finding.likelihood {
        Likelihood::Certain => AnsiColor::Red.on_default().bold(),
        Likelihood::Likely => AnsiColor::Yellow.on_default().bold(),
        _ => Style::new().bold(),
    };
    let (headline, likelihood) =
        (printable(finding.headline.as_bytes()), finding.likelihood.name());
    println!("{style}{number}. {headline}{style:#} ({likelihood})");
    let seen = finding.seen.join("; ");
    for (label, line) in [("seen:", &seen), ("means:", &finding.means)] {
        print_wrapped(&format!("   {label:<7}"), line);
    }
    finding.remedy.iter().for_each(print_remedy);
    println!();
}

/// Prints what to do. Of a comment that is broken between words each line is one: somebody may give them
/// to a shell as they stand.
fn print_remedy(remedy: &Remedy) {
    const FIRST: &str = "   do:    ";
    const COMMENT: &str = "          # ";
    let line = remedy.to_string();
    let is_long = FIRST.len() + line.chars().count() > WIDTH;
    match remedy.remark.filter(|_| is_long) {
        Some(remark) => {
            print_wrapped(FIRST, &remedy.command);
            print_broken(COMMENT, COMMENT, remark);
        }
        None if line.starts_with('#') => print_broken(FIRST, COMMENT, &line),
        None => print_wrapped(FIRST, &line),
    }
}

fn note(finding: &Finding) -> String {
    let seen = finding.seen.join("; ");
    let mut note = format!("{}: {seen}", finding.headline);
    let remedies = finding.remedy.iter().map(Remedy::to_string);
    for more in [finding.means.clone()].into_iter().chain(remedies) {
        if !more.is_empty() {
            note.push_str(&format!("; {more}"));
        }
    }
    note
}

fn summary(report: &Report) -> String {
    if report.places.is_empty() {
        return "There is no bridge here to look at: name an interface with -i, or a network \
                namespace with --netns."
            .to_owned();
    }
    let places = format!("looked at {}", report.places.join(", "));
    let fine = match &words(report)[..] {
        [] => String::new(),
        fine => format!("; fine: {}", fine.join(", ")),
    };
    let verdict = match (report.has_problem(), report.unseen.is_empty()) {
        (true, _) => "",
        (false, true) => "No problem found: ",
        (false, false) => "No problem found in what could be seen: ",
    };
    format!("{verdict}{places}{fine}.")
}

fn words(report: &Report) -> Vec<&'static str> {
    report.fine.iter().copied().filter(|word| !word.is_empty()).collect()
}

/// Prints a line that is broken between words, further lines under its first word.
fn print_wrapped(start: &str, text: &str) {
    print_broken(start, &" ".repeat(start.chars().count()), text);
}

/// Prints a line that is broken between words, with this before each further line. The names in it
/// may be what anybody gave to a process or an interface.
fn print_broken(start: &str, further: &str, text: &str) {
    let text = printable(text.as_bytes());
    let mut line = start.to_owned();
    let mut is_empty = true;
    for word in text.split(' ') {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            println!("{line}");
            line = further.to_owned();
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    println!("{line}");
}
