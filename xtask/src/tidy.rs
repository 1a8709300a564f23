//! The invariants of ARCHITECTURE.md that can be read off the source, one row each.
//!
//! A row says where it looks, what it finds there, and what to do about it. Adding one means adding
//! a case to the test below, which shows that the row can fail.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result, ensure};
use xshell::{Shell, cmd};

/// One invariant.
struct Check {
    /// What a failure says; the place goes before it.
    fault: &'static str,
    remedy: &'static str,
    /// Whether the file with this path is to be looked at.
    applies: fn(&str) -> bool,
    /// The numbers of the lines that break the invariant.
    broken: fn(&File<'_>, &Tree) -> Vec<usize>,
}

/// A file in the repository.
struct File<'a> {
    path: &'a str,
    text: &'a str,
}

/// Every file in the repository, as a path from its root.
type Tree = BTreeSet<String>;

const CHECKS: &[Check] = &[
    Check {
        fault: "the crate does not forbid unsafe code",
        remedy: "begin it with #![forbid(unsafe_code)]; what needs unsafe belongs in fixer-ebpf",
        applies: |path| path == "fixer-common/src/lib.rs",
        broken: |file, _| {
            if code(file).any(|(_, code)| code == "#![forbid(unsafe_code)]") {
                vec![]
            } else {
                vec![1]
            }
        },
    },
    Check {
        fault: "fixer-common names aya",
        remedy: "it is what can be known without a kernel; put this into fixer-ebpf or fixer-user",
        applies: |path| path.starts_with("fixer-common/") && (rust(path) || manifest(path)),
        broken: |file, _| lines_with(file, &["aya"]),
    },
    Check {
        fault: "aya is named outside fixer-user/src/bpf",
        remedy: "wrap it there, so that one place knows how programs are loaded",
        applies: |path| rust(path) && !within(path, &["fixer-user/src/bpf", "tests"]),
        broken: |file, _| lines_with(file, &["aya::"]),
    },
    Check {
        fault: "netlink is named outside fixer-user/src/net and fixer-user/src/lab",
        remedy: "wrap it in one of them, so that the rest speaks of interfaces",
        applies: |path| {
            rust(path) && !within(path, &["fixer-user/src/net", "fixer-user/src/lab", "tests"])
        },
        broken: |file, _| lines_with(file, &["rtnetlink", "netlink_"]),
    },
    Check {
        fault: "the file is longer than 500 lines",
        remedy: "give one of its ideas a file of its own",
        applies: rust,
        broken: |file, _| if file.text.lines().count() > 500 { vec![501] } else { vec![] },
    },
    Check {
        fault: "something is unfinished",
        remedy: "finish it, or take it out and open an issue",
        applies: rust,
        broken: |file, _| lines_with(file, &["todo!(", "unimplemented!(", "dbg!("]),
    },
    Check {
        fault: "a test is switched off",
        remedy: "mend it or delete it; a test that needs something asks for it in its own words",
        applies: rust,
        broken: |file, _| lines_with(file, &["#[ignore"]),
    },
    Check {
        fault: "a test sleeps",
        remedy: "wait for the event; if there is none to wait for, poll with a deadline and say so \
                 in a comment on the line: // poll: (what for)",
        applies: |path| rust(path) && within(path, &["tests"]),
        broken: |file, _| {
            let polls = |number: usize| {
                file.text.lines().nth(number - 1).is_some_and(|line| line.contains("// poll:"))
            };
            let mut lines = lines_with(file, &["thread::sleep", "time::sleep"]);
            lines.retain(|&number| !polls(number));
            lines
        },
    },
    Check {
        fault: "ARCHITECTURE.md names a path that does not exist",
        remedy: "say where it went",
        applies: |path| path == "ARCHITECTURE.md",
        broken: |file, tree| {
            let broken = |line: &str| paths(line).any(|path| !exists(path, tree));
            numbered(file).filter(|(_, line)| broken(line)).map(|(number, _)| number).collect()
        },
    },
];

/// Applies every check to every file, says what is broken on stderr, and fails if anything is.
pub(crate) fn run(sh: &Shell) -> Result<()> {
    let root = sh.current_dir();
    // Root may look at another user's repository: it runs nothing that it finds there.
    let safe = format!("safe.directory={}", root.display());
    // Untracked files, too: they are about to be committed.
    let list = cmd!(sh, "git -c {safe} ls-files -z --cached --others --exclude-standard")
        .quiet()
        .read()
        .context("git could not list the files; the invariants are checked in a clone with git")?;
    let tree: Tree = list
        .split_terminator('\0')
        .filter(|path| root.join(path).is_file())
        .map(str::to_owned)
        .collect();
    let mut faults = Vec::new();
    for path in tree.iter().filter(|path| CHECKS.iter().any(|check| (check.applies)(path))) {
        let text = read(&root.join(path))?;
        faults.extend(inspect(&File { path, text: &text }, &tree));
    }
    for fault in &faults {
        eprintln!("{fault}");
    }
    ensure!(faults.is_empty(), "{} invariants are broken; what to do is beside each", faults.len());
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("{} cannot be read as text", path.display()))
}

fn inspect(file: &File<'_>, tree: &Tree) -> Vec<String> {
    let applicable = CHECKS.iter().filter(|check| (check.applies)(file.path));
    applicable
        .flat_map(|check| {
            (check.broken)(file, tree)
                .into_iter()
                .map(|line| format!("{}:{line}: {}\n    {}", file.path, check.fault, check.remedy))
        })
        .collect()
}

/// Rust, except this file, which must spell out what it forbids.
fn rust(path: &str) -> bool {
    path.ends_with(".rs") && path != "xtask/src/tidy.rs"
}

fn manifest(path: &str) -> bool {
    path.ends_with("Cargo.toml")
}

/// Whether `path` belongs to one of the modules or directories.
fn within(path: &str, places: &[&str]) -> bool {
    places
        .iter()
        .filter_map(|place| path.strip_prefix(place))
        .any(|rest| rest.starts_with('/') || rest == ".rs")
}

fn numbered<'a>(file: &File<'a>) -> impl Iterator<Item = (usize, &'a str)> {
    (1..).zip(file.text.lines())
}

/// The lines without comments: an explanation may name what code may not.
fn code<'a>(file: &File<'a>) -> impl Iterator<Item = (usize, &'a str)> {
    numbered(file).map(|(number, line)| {
        let line = line.trim();
        let comment = if line.starts_with("//") { Some(0) } else { line.find(" //") };
        (number, comment.map_or(line, |at| line[..at].trim_end()))
    })
}

/// The numbers of the lines with one of these words in their code.
fn lines_with(file: &File<'_>, words: &[&str]) -> Vec<usize> {
    code(file)
        .filter(|(_, code)| words.iter().any(|word| names(code, word)))
        .map(|(number, _)| number)
        .collect()
}

/// Whether `word` is in the code, and not as the end of another word.
fn names(code: &str, word: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| !code[..at].ends_with(inside))
}

/// The paths into crates that a line of Markdown gives between backticks.
fn paths(line: &str) -> impl Iterator<Item = &str> {
    const CRATES: [&str; 5] = ["fixer-common/", "fixer-ebpf/", "fixer-user/", "tests/", "xtask/"];
    line.split('`').skip(1).step_by(2).filter(|quoted| {
        CRATES.iter().any(|directory| quoted.starts_with(directory)) && !quoted.contains(' ')
    })
}

fn exists(path: &str, tree: &Tree) -> bool {
    let directory = format!("{}/", path.trim_end_matches('/'));
    tree.contains(path) || tree.iter().any(|file| file.starts_with(&directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(path: &str, text: &str) -> String {
        let tree = Tree::from(["xtask/src/main.rs".to_owned()]);
        inspect(&File { path, text }, &tree).join("\n")
    }

    /// A file that breaks each check, by its place and fault, and one that comes close.
    const CASES: &[(&str, &str, &str, &str)] = &[
        (
            "fixer-common/src/lib.rs",
            "#![no_std]\n",
            ":1: the crate does not forbid unsafe code",
            "//! Packets.\n#![forbid(unsafe_code)]\n",
        ),
        (
            "fixer-common/Cargo.toml",
            "[dependencies]\naya-ebpf.workspace = true\n",
            ":2: fixer-common names aya",
            "[dependencies]\nzerocopy.workspace = true\n",
        ),
        (
            "fixer-common/src/frame.rs",
            "use aya_ebpf::programs::TcContext;\n",
            ":1: fixer-common names aya",
            "// aya sees packets otherwise.\nlet himalaya = 1;\n",
        ),
        (
            "fixer-user/src/cmd/run.rs",
            "\nuse aya::Ebpf;\n",
            ":2: aya is named outside",
            "//! Not through [`aya::Ebpf`].\nuse himalaya::Peak; // aya::\n",
        ),
        (
            "fixer-user/src/cmd/run.rs",
            "use netlink_packet_route::link::LinkMessage;\n",
            ":1: netlink is named outside",
            "use crate::net; // rtnetlink\nlet uses_netlink_ = 1;\n",
        ),
        (
            "fixer-user/src/networks.rs",
            "use rtnetlink::Handle;\n",
            ":1: netlink is named outside",
            "use crate::net::Handle;\n",
        ),
        (
            "fixer-user/src/event/mod.rs",
            "fn later() { todo!() }\n",
            ":1: something is unfinished",
            "// todo!()\nfn my_todo() {}\n",
        ),
        (
            "xtask/src/test.rs",
            "let x = dbg!(1);\nunimplemented!(\"x\")",
            ":2: something is unfinished",
            "let y = 1;\n",
        ),
        (
            "tests/tests/lab.rs",
            "#[test]\n#[ignore = \"slow\"]\n",
            ":2: a test is switched off",
            "#[test]\n#[should_panic]\n",
        ),
        (
            "tests/tests/lab.rs",
            "std::thread::sleep(second);\n",
            ":1: a test sleeps",
            "thread::sleep(tick); // poll: dnsmasq writes no pid file\n",
        ),
        (
            "tests/src/lab.rs",
            "tokio::time::sleep(second).await;\n",
            ":1: a test sleeps",
            "event.wait();\n",
        ),
        (
            "ARCHITECTURE.md",
            "See `xtask/` and\n`xtask/src/gone.rs`.\n",
            ":2: ARCHITECTURE.md names a path",
            "See `xtask/`, `xtask/src/main.rs`, `target/gone` and `xtask/src test`.\n",
        ),
    ];

    #[test]
    fn each_check_can_fail_and_hold() {
        for (path, bad, fault, good) in CASES {
            let found = faults(path, bad);
            assert!(found.contains(&format!("{path}{fault}")), "{path} {bad:?}: {found}");
            assert_eq!(faults(path, good), "", "{path} {good:?}");
        }
    }

    #[test]
    fn a_long_file_is_found() {
        assert_eq!(faults("xtask/src/main.rs", &"\n".repeat(500)), "");
        let found = faults("xtask/src/main.rs", &"\n".repeat(501));
        assert!(found.starts_with("xtask/src/main.rs:501: the file is longer"), "{found}");
    }

    #[test]
    fn no_check_is_left_untried() {
        for check in CHECKS {
            let tried = CASES.iter().any(|(path, bad, ..)| faults(path, bad).contains(check.fault));
            assert!(tried || check.fault.contains("500 lines"), "{}", check.fault);
        }
    }

    #[test]
    fn the_places_for_aya_and_netlink_may_name_them() {
        for path in ["fixer-user/src/bpf/load.rs", "fixer-user/src/bpf.rs", "tests/src/lab.rs"] {
            assert_eq!(faults(path, "use aya::Ebpf;\n"), "", "{path}");
        }
        for path in ["fixer-user/src/net/watch.rs", "fixer-user/src/lab/mod.rs"] {
            assert_eq!(faults(path, "use rtnetlink::Handle;\n"), "", "{path}");
        }
    }

    #[test]
    fn a_fault_says_what_to_do() {
        let found = faults("fixer-user/src/main.rs", "use aya::Ebpf;");
        assert!(found.ends_with("wrap it there, so that one place knows how programs are loaded"));
    }
}
