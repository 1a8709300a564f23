//! What programs say about their version.

use std::fmt;

/// Major, minor and patch level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) u32, pub(crate) u32, pub(crate) u32);

impl Version {
    pub(crate) const fn major(self) -> u32 {
        self.0
    }

    /// The first word of `text` that starts with a version, whatever a vendor appended to it.
    pub(crate) fn find(text: &str) -> Option<Self> {
        text.split_whitespace().find_map(|word| {
            let end = word.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(word.len());
            let mut numbers = word[..end].split('.').map(str::parse);
            match (numbers.next()?, numbers.next()?, numbers.next()?) {
                (Ok(major), Ok(minor), Ok(patch)) => Some(Self(major, minor, patch)),
                _ => None,
            }
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// What `rustc -vV` says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct About {
    /// The first line without the name: version, commit, and whose build it is.
    pub(crate) line: String,
    pub(crate) release: Version,
    pub(crate) host: String,
    pub(crate) llvm: Version,
}

impl About {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let value = |key| text.lines().find_map(|line| line.strip_prefix(key));
        Some(Self {
            line: value("rustc ")?.to_owned(),
            release: Version::find(value("release: ")?)?,
            host: value("host: ")?.to_owned(),
            llvm: Version::find(value("LLVM version: ")?)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_in_what_programs_print() {
        for (text, version) in [
            ("bpf-linker 0.13.0", Some(Version(0, 13, 0))),
            ("1.97.0-nightly", Some(Version(1, 97, 0))),
            ("Debian LLVM version 22.1.8\n  Optimized build.", Some(Version(22, 1, 8))),
            (
                "llvm-objcopy, compatible with GNU objcopy\nLLVM (http://llvm.org/):\n  \
                 LLVM version 22.1.2-rust-1.95.0-stable",
                Some(Version(22, 1, 2)),
            ),
            ("version 23", None),
            ("v1.2.3", None),
            ("", None),
        ] {
            assert_eq!(Version::find(text), version, "{text:?}");
        }
    }

    #[test]
    fn versions_are_ordered_as_numbers() {
        assert!(Version(1, 100, 0) > Version(1, 95, 0));
        assert!(Version(22, 1, 8) >= Version(22, 0, 0));
    }

    #[test]
    fn rustc_says_what_it_is() {
        let text = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\n\
                    binary: rustc\n\
                    host: x86_64-unknown-linux-gnu\n\
                    release: 1.96.0\n\
                    LLVM version: 22.1.8";
        let about = About::parse(text).unwrap();
        assert_eq!(about.line, "1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)");
        assert_eq!(about.release, Version(1, 96, 0));
        assert_eq!(about.host, "x86_64-unknown-linux-gnu");
        assert_eq!(about.llvm, Version(22, 1, 8));
        assert_eq!(About::parse("rustc 1.63.0\nhost: x"), None);
    }
}
