//! What was found, for people and for programs.

use std::fmt::Write as _;

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

/// The report as text, perhaps in colour: problems, the most likely first, what is good to know, what could
/// not be seen, and in a line what was fine.
pub fn to_text(report: &Report, colour: bool) -> String {
    let mut text = String::new();
    let (problems, notes): (Vec<_>, Vec<_>) =
        report.findings.iter().partition(|finding| finding.likelihood < Likelihood::Note);
    for (number, finding) in (1..).zip(problems) {
        problem(&mut text, (number, finding), colour);
    }
    for (label, lines) in [
        ("Good to know:", notes.iter().map(|finding| note(finding)).collect::<Vec<_>>()),
        ("Not seen:", report.unseen.iter().map(|unseen| unseen.what.clone()).collect()),
    ] {
        if !lines.is_empty() {
            wrap(&mut text, "", label);
            lines.iter().for_each(|line| wrap(&mut text, "  - ", line));
        }
    }
    wrap(&mut text, "", &summary(report));
    text
}

fn problem(text: &mut String, (number, finding): (usize, &Finding), colour: bool) {
    let style = match finding.likelihood {
        _ if !colour => Style::new(),
        Likelihood::Certain => AnsiColor::Red.on_default().bold(),
        Likelihood::Likely => AnsiColor::Yellow.on_default().bold(),
        _ => Style::new().bold(),
    };
    let (headline, likelihood) =
        (printable(finding.headline.as_bytes()), finding.likelihood.name());
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{style}{number}. {headline}{style:#} ({likelihood})");
    let seen = finding.seen.join("; ");
    for (label, line) in [("seen:", &seen), ("means:", &finding.means)] {
        wrap(text, &format!("   {label:<7}"), line);
    }
    finding.remedy.iter().for_each(|remedy| what_to_do(text, remedy));
    text.push('\n');
}

/// Adds what to do. Of a comment that is broken between words each line is one: somebody may give them
/// to a shell as they stand.
fn what_to_do(text: &mut String, remedy: &Remedy) {
    const FIRST: &str = "   do:    ";
    const COMMENT: &str = "          # ";
    let line = remedy.to_string();
    let is_long = FIRST.len() + line.chars().count() > WIDTH;
    match remedy.remark.filter(|_| is_long) {
        Some(remark) => {
            wrap(text, FIRST, &remedy.command);
            wrap_under(text, COMMENT, COMMENT, remark);
        }
        None if line.starts_with('#') => wrap_under(text, FIRST, COMMENT, &line),
        None => wrap(text, FIRST, &line),
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

/// Adds a line that is broken between words, further lines under its first word.
fn wrap(text: &mut String, start: &str, line: &str) {
    wrap_under(text, start, &" ".repeat(start.chars().count()), line);
}

/// Adds a line that is broken between words, with this before each further line. The names in it may be
/// what anybody gave to a process or an interface.
fn wrap_under(text: &mut String, start: &str, further: &str, line: &str) {
    let words = printable(line.as_bytes());
    let mut line = start.to_owned();
    let mut is_empty = true;
    for word in words.split(' ') {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            *text += &(line + "\n");
            line = further.to_owned();
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    *text += &(line + "\n");
}
