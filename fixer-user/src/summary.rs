//! What was counted, as the last lines of a run.

use std::fmt::{self, Write as _};

use crate::{bpf::counters::Row, metrics::Snapshot, net::netns::HOST, site::Site};

/// Prints the counters: to standard output, or to standard error where the other is for machines.
pub fn print(sites: &[Site], to_stderr: bool) {
    let text: String = sites.iter().map(|site| Summary(&site.snapshot()).to_string()).collect();
    if to_stderr {
        eprint!("{text}");
    } else {
        use std::io::Write as _;
        // A reader that has gone away has read enough.
        let _ = std::io::stdout().write_all(text.as_bytes());
    }
}

/// One namespace's counters, a line for each hook of each interface.
struct Summary<'a>(&'a Snapshot);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(snapshot) = self;
        let prefix = match &*snapshot.netns {
            HOST => String::new(),
            netns => format!("{netns}/"),
        };
        if snapshot.counters.is_empty() {
            writeln!(f, "{prefix}: no packet matched")?;
        }
        for (interface, row) in &snapshot.counters {
            writeln!(f, "{prefix}{interface} {}: {}", row.hook.name(), counts(row)?)?;
        }
        match snapshot.lost {
            0 => Ok(()),
            lost => writeln!(f, "{lost} events were lost; the counters are exact"),
        }
    }
}

/// `3 fixed, 1 valid`: what was not seen is not said.
fn counts(row: &Row) -> Result<String, fmt::Error> {
    let mut text = String::new();
    for (verdict, count) in row.counts().filter(|(_, count)| *count > 0) {
        let comma = if text.is_empty() { "" } else { ", " };
        write!(text, "{comma}{count} {}", verdict.name())?;
    }
    Ok(text)
}
