//! What a machine says while it is tried, and what becomes of it: a table, kernels by features.

use super::{guest::End, image::CHECKS};

/// What every line of the protocol contains; before it the firmware may have put its own.
pub(crate) const MARK: &str = "fixer-vm: ";

/// What is known about one kernel.
pub(crate) struct Report {
    /// What it was asked for as.
    name: &'static str,
    /// Which kernel it is, as it says itself.
    release: Option<String>,
    /// How programs are attached, as the self-test says.
    mode: Option<String>,
    /// How each check ended, in their order, if it did.
    ends: [Option<u8>; CHECKS.len()],
    /// Which check is running, and what it has said.
    running: Option<(usize, Vec<String>)>,
    /// What the checks that failed said.
    failures: Vec<(&'static str, Vec<String>)>,
    done: bool,
}

/// A feature, and how to tell whether a kernel has it.
struct Column {
    title: &'static str,
    cell: fn(&Report) -> String,
}

const COLUMNS: &[Column] = &[
    Column { title: "kernel", cell: |report| report.name.to_owned() },
    Column {
        title: "release",
        cell: |report| report.release.clone().unwrap_or_else(|| "did not boot".to_owned()),
    },
    Column {
        title: "loads",
        cell: |report| {
            let seen = report.ends.iter().any(Option::is_some);
            yes_or_no(seen.then_some(report.mode.is_some()))
        },
    },
    Column {
        title: "attached by",
        cell: |report| report.mode.clone().unwrap_or_else(|| UNKNOWN.to_owned()),
    },
];

/// Not known, because the machine did not come that far.
const UNKNOWN: &str = "-";

fn yes_or_no(value: Option<bool>) -> String {
    value.map_or(UNKNOWN, |yes| if yes { "yes" } else { "NO" }).to_owned()
}

impl Report {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            release: None,
            mode: None,
            ends: [None; CHECKS.len()],
            running: None,
            failures: Vec::new(),
            done: false,
        }
    }

    /// Takes note of a line from the console, and says what is new.
    pub(crate) fn read(&mut self, line: &str) -> Option<String> {
        let Some((_, words)) = line.split_once(MARK) else {
            self.listen(line);
            return None;
        };
        match words.split_once(' ').unwrap_or((words, "")) {
            ("up", uname) => {
                let release = self.release.insert(release(uname).to_owned());
                Some(format!("Linux {release} is up"))
            }
            ("begin", name) => {
                let at = CHECKS.iter().position(|check| check.name == name)?;
                self.running = Some((at, Vec::new()));
                None
            }
            ("end", status) => self.end(status.parse().ok()?),
            ("done", _) => {
                self.done = true;
                None
            }
            _ => None,
        }
    }

    /// The running check has ended.
    fn end(&mut self, status: u8) -> Option<String> {
        let (at, output) = self.running.take()?;
        let name = CHECKS[at].name;
        self.ends[at] = Some(status);
        if status == 0 {
            return Some(format!("ok    {name}"));
        }
        self.failures.push((name, output));
        Some(format!("FAIL  {name}{}", meaning(status)))
    }

    fn listen(&mut self, line: &str) {
        if let Some((_, mode)) = line.split_once(", attached by ") {
            self.mode.get_or_insert_with(|| mode.to_owned());
        }
        if let Some((_, output)) = &mut self.running {
            output.push(line.to_owned());
        }
    }

    /// Whether every check was made and passed.
    pub(crate) fn passed(&self) -> bool {
        self.done && self.ends.iter().all(|end| *end == Some(0))
    }

    /// What went wrong, in lines, now that the machine has come to its end.
    pub(crate) fn trouble(&self, end: End) -> Vec<String> {
        let mut lines = Vec::new();
        let mut quote = |title: String, said: &[String]| {
            lines.push(title);
            lines.extend(said.iter().map(|line| format!("    | {}", shortened(line))));
        };
        // A kernel that does not load the object tells every check the same.
        let most = if self.mode.is_some() { self.failures.len() } else { 1 };
        for (check, output) in self.failures.iter().take(most) {
            let start = output.len().saturating_sub(MOST_LINES);
            quote(format!("    {check} said at its end:"), &output[start..]);
        }
        if !self.done {
            let what = if end.hung { "did not end in time" } else { "ended too early" };
            quote(format!("    the machine {what}; it said last:"), &end.last_lines);
        }
        lines
    }
}

/// Which kernel this is, from what `uname -r -v` says: a distribution that does not put it into the
/// release puts its own version into the second part.
fn release(uname: &str) -> &str {
    let version = uname.split_once(" Debian ").map_or(uname, |(_, version)| version);
    version.split(' ').next().unwrap_or(version)
}

/// How much of what a failed check said is shown.
const MOST_LINES: usize = 40;

/// A verifier's complaint may be a line of many thousand characters.
fn shortened(line: &str) -> String {
    const MOST: usize = 400;
    match line.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line.to_owned(),
    }
}

/// What an exit status means, where it is not the program's own.
fn meaning(status: u8) -> &'static str {
    match status {
        127 => " (it is not there)",
        143 => " (it took too long)",
        _ => "",
    }
}

/// The kernels as rows, with everything that was found out about them.
pub(crate) fn table(reports: &[Report]) -> String {
    let titles = COLUMNS.iter().map(|column| column.title);
    let mut rows = vec![
        titles.chain(CHECKS.iter().map(|check| check.name)).map(str::to_owned).collect::<Vec<_>>(),
    ];
    for report in reports {
        let cells = COLUMNS.iter().map(|column| (column.cell)(report));
        let ends = report.ends.iter().map(|end| yes_or_no(end.map(|status| status == 0)));
        rows.push(cells.chain(ends).collect());
    }
    let widths: Vec<_> = (0..rows[0].len())
        .map(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0))
        .collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<_> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(console: &str) -> Report {
        let mut report = Report::new("6.1");
        for line in console.lines() {
            report.read(line);
        }
        report
    }

    /// What a machine says on which every check ends with this status.
    fn console(status: u8) -> String {
        let checks = CHECKS.iter().map(|check| {
            format!(
                "{MARK}begin {}\nLinux 6.1.0, attached by clsact\n{MARK}end {status}\n",
                check.name
            )
        });
        format!("\x1b[2J{MARK}up 6.1.0\n{}{MARK}done\n", checks.collect::<String>())
    }

    fn end(hung: bool) -> End {
        End { hung, last_lines: vec!["Kernel panic".to_owned()] }
    }

    #[test]
    fn a_kernel_on_which_all_holds_has_passed() {
        let report = report(&console(0));
        assert!(report.passed());
        assert!(report.trouble(end(false)).is_empty());
        let table = table(&[report]);
        let (titles, row) = table.split_once('\n').unwrap();
        assert!(titles.starts_with("kernel  release  loads  attached by  "), "{titles}");
        assert!(row.starts_with("6.1     6.1.0    yes    clsact       yes"), "{row}");
        assert!(!row.contains("NO"), "{row}");
    }

    #[test]
    fn a_kernel_says_which_it_is() {
        let uname = "6.1.0-56-cloud-amd64 #1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-11-01)";
        assert_eq!(release(uname), "6.1.192-2");
        assert_eq!(release("6.18.44 #1 SMP @0"), "6.18.44");
    }

    #[test]
    fn a_check_that_fails_is_quoted() {
        let report = report(&console(1));
        assert!(!report.passed());
        let trouble = report.trouble(end(false)).join("\n");
        assert!(trouble.contains("| Linux 6.1.0, attached by clsact"), "{trouble}");
        assert!(!trouble.contains("Kernel panic"), "{trouble}");
        assert!(table(&[report]).contains("NO"));
    }

    #[test]
    fn a_kernel_that_does_not_boot_has_failed() {
        let report = report("Kernel panic - not syncing");
        assert!(!report.passed());
        assert!(report.trouble(end(false)).join("\n").contains("| Kernel panic"));
        assert!(table(&[report]).contains("did not boot"));
    }

    #[test]
    fn a_kernel_that_hangs_has_failed() {
        let console = console(0);
        let (start, _) = console.split_once(&format!("{MARK}done")).unwrap();
        let report = report(start);
        assert!(!report.passed());
        assert!(report.trouble(end(true))[0].contains("did not end in time"));
    }

    #[test]
    fn a_refused_object_does_not_load() {
        let first = CHECKS[0].name;
        let console = format!(
            "{MARK}up 6.1.0\n{MARK}begin {first}\nfixer: cannot load\n{MARK}end 1\n{MARK}done\n"
        );
        let table = table(&[report(&console)]);
        assert!(table.contains("6.1.0    NO     -"), "{table}");
    }
}
