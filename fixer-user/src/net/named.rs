//! Which network namespaces a user means: single ones, and by a glob all that `ip netns` named so.

use std::{fs, io, str::FromStr};

use super::{
    netns::{NAMED, Spec},
    select::Pattern,
};

/// A value of `--netns`.
#[derive(Clone, Debug)]
pub enum Choice {
    /// One namespace, by name, path or process.
    One(Spec),
    /// Every namespace whose name matches. A path or `pid:N` is no name.
    Every(Pattern),
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, Self::Err> {
        // What it says of a name, a path and a process holds for a glob too.
        let one: Spec = given.parse()?;
        if one.name().is_none() {
            return Ok(Self::One(one));
        }
        let pattern: Pattern = given.parse()?;
        Ok(if pattern.is_plain() { Self::One(one) } else { Self::Every(pattern) })
    }
}

impl Choice {
    /// Whether this namespace is among those that are meant.
    pub fn means(&self, spec: &Spec) -> bool {
        match self {
            Self::One(one) => one == spec,
            Self::Every(glob) => spec.name().is_some_and(|name| glob.is_match(name)),
        }
    }

    /// The glob, if it is one.
    pub fn glob(&self) -> Option<&Pattern> {
        match self {
            Self::One(_) => None,
            Self::Every(glob) => Some(glob),
        }
    }
}

/// Everything that `ip netns` named, in the order of the names. Some may not be namespaces any more,
/// or not yet.
pub fn named() -> io::Result<Vec<Spec>> {
    let entries = match fs::read_dir(NAMED) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| {
            let told = format!("cannot list the network namespaces below {NAMED}: {error}");
            io::Error::new(error.kind(), told)
        })?,
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    // A label is to be shown in a line.
    let mut names: Vec<_> = names.filter(|name| !name.contains(char::is_control)).collect();
    names.sort_unstable();
    Ok(names.iter().map(|name| Spec::named(name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn means(given: &str, spec: &Spec) -> bool {
        given.parse::<Choice>().unwrap().means(spec)
    }

    #[test]
    fn a_glob_takes_names_and_nothing_else() {
        let blue = Spec::named("qdhcp-blue");
        for (given, expected) in [
            ("qdhcp-*", true),
            ("*", true),
            ("qdhcp-{red,blue}", true),
            ("qdhcp-[ab]lue", true),
            ("qdhcp-blue", true),
            ("qdhcp-?", false),
            ("blue*", false),
            // Characters of a path are what they are.
            ("/run/netns/qdhcp-*", false),
            ("./qdhcp-*", false),
        ] {
            assert_eq!(means(given, &blue), expected, "{given}");
        }
        for other in ["/run/netns/qdhcp-blue", "./qdhcp-blue", "pid:12"] {
            assert!(!means("*", &other.parse().unwrap()), "{other}");
        }
        assert!(means("/run/*", &"/run/*".parse().unwrap()));
    }

    #[test]
    fn what_is_no_glob_is_told_in_a_line() {
        for (given, words) in [
            ("qdhcp-[", "unclosed character class"),
            ("pid:*", "'*' is no process id"),
            ("", "write a name"),
        ] {
            let told = given.parse::<Choice>().unwrap_err();
            assert!(told.contains(words) && !told.contains('\n'), "{given}: {told}");
        }
    }
}
