//! What was counted, as the last lines of a run.

use std::fmt;

use crate::{bpf::counters::Row, metrics::Snapshot, net::netns::HOST, say};

/// Prints the counters: to standard output, or to standard error where the other is for machines.
pub fn print(namespaces: impl Iterator<Item = Snapshot>, to_stderr: bool) {
    let text: String = namespaces.map(|snapshot| Summary(&snapshot).to_string()).collect();
    if to_stderr {
        say::to_stderr(text);
    } else {
        say::to_stdout(text);
    }
}

/// One namespace's counters, a line for each hook of each interface.
struct Summary<'a>(&'a Snapshot);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(snapshot) = self;
        let (alone, prefix) = match &*snapshot.netns {
            HOST => (String::new(), String::new()),
            netns => (format!("{netns}: "), format!("{netns}/")),
        };
        if snapshot.counters.is_empty() {
            writeln!(f, "{alone}no packet matched")?;
        }
        for (interface, row) in &snapshot.counters {
            writeln!(f, "{prefix}{interface} {}: {}", row.hook.name(), counts(row))?;
        }
        match snapshot.lost {
            0 => Ok(()),
            lost => writeln!(f, "{lost} events were lost; the counters are exact"),
        }
    }
}

/// `3 fixed, 1 valid`: what was not seen is not said.
pub fn counts(row: &Row) -> String {
    let seen = row.counts().filter(|(_, count)| *count > 0);
    let seen: Vec<_> = seen.map(|(verdict, count)| format!("{count} {}", verdict.name())).collect();
    seen.join(", ")
}
