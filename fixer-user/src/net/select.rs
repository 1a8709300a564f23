//! Which interfaces a user means: names, globs, or every bridge.

use globset::{GlobBuilder, GlobMatcher};

use super::links::{Header, Link};

/// A name or glob as the user wrote it.
#[derive(Clone, Debug)]
pub struct Pattern {
    given: String,
    glob: GlobMatcher,
}

impl std::str::FromStr for Pattern {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, Self::Err> {
        if given.is_empty() {
            return Err("an interface has a name: see `ip link`".to_owned());
        }
        let glob = GlobBuilder::new(given)
            .build()
            .map_err(|error| format!("{}: use * ? [abc] {{a,b}}", error.kind()))?;
        Ok(Self { given: given.to_owned(), glob: glob.compile_matcher() })
    }
}

impl Pattern {
    /// Whether the user named one interface, which then has to be there.
    pub fn is_plain(&self) -> bool {
        !self.given.contains(['*', '?', '[', '{'])
    }

    /// Whether a name is meant.
    pub fn is_match(&self, name: &str) -> bool {
        self.glob.is_match(name)
    }

    /// The pattern as it was written.
    pub fn given(&self) -> &str {
        &self.given
    }
}

/// What the user selected.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Names and globs.
    pub patterns: Vec<Pattern>,
    /// Every Linux bridge.
    pub auto: bool,
}

impl Selection {
    /// Whether an interface is one to attach to: it is meant, and a program can read its frames.
    pub fn takes(&self, link: &Link) -> bool {
        link.is_ethernet() && self.means(link)
    }

    /// Whether an interface is meant.
    pub fn means(&self, link: &Link) -> bool {
        (self.auto && link.is_bridge)
            || self.patterns.iter().any(|pattern| pattern.is_match(&link.name))
    }

    /// The plain names that none of the interfaces with these names bears.
    pub fn missing<'a>(
        &'a self,
        names: impl Iterator<Item = &'a str> + Clone,
    ) -> impl Iterator<Item = &'a str> {
        let plain = self.patterns.iter().filter(|pattern| pattern.is_plain());
        plain.map(Pattern::given).filter(move |name| !names.clone().any(|other| other == *name))
    }

    /// What an interface has in place of an Ethernet header, if the user named just this one. A glob
    /// or [`auto`](Self::auto) means those that have one.
    pub fn mistakes<'a>(&self, link: &'a Link) -> Option<&'a str> {
        let plain = |pattern: &Pattern| pattern.is_plain() && pattern.given == link.name;
        match &link.header {
            Header::Other(kind) if self.patterns.iter().any(plain) => Some(kind),
            _ => None,
        }
    }

    /// Whether interfaces that appear later may be among them.
    pub fn is_open(&self) -> bool {
        self.auto || self.patterns.iter().any(|pattern| !pattern.is_plain())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, is_bridge: bool) -> Link {
        Link { ifindex: 1, name: name.to_owned(), is_bridge, header: Header::Ethernet }
    }

    fn tun(name: &str) -> Link {
        Link { header: Header::Other("tun".to_owned()), ..link(name, false) }
    }

    fn selection(patterns: &[&str]) -> Selection {
        let patterns = patterns.iter().map(|pattern| pattern.parse().unwrap()).collect();
        Selection { patterns, auto: false }
    }

    #[test]
    fn names_globs_and_bridges() {
        let some = selection(&["br0", "vnet*"]);
        assert!(some.takes(&link("br0", true)) && some.takes(&link("vnet7", false)));
        assert!(!some.takes(&link("br1", true)));
        let auto = Selection { auto: true, ..Selection::default() };
        assert!(auto.takes(&link("br1", true)) && !auto.takes(&link("eth0", false)));
    }

    #[test]
    fn only_a_plain_name_can_be_missing() {
        let some = selection(&["br0", "vnet*", "eth9"]);
        assert_eq!(some.missing(["br0"].into_iter()).collect::<Vec<_>>(), ["eth9"]);
        assert!(some.is_open() && !selection(&["br0"]).is_open());
        assert!("a[".parse::<Pattern>().is_err());
    }

    #[test]
    fn without_an_ethernet_header_a_glob_passes_by_and_a_plain_name_is_a_mistake() {
        let glob = selection(&["tun*"]);
        assert!(glob.means(&tun("tun0")) && !glob.takes(&tun("tun0")));
        assert!(glob.takes(&link("tun0", false)));
        assert_eq!(glob.mistakes(&tun("tun0")), None);
        let plain = selection(&["tun*", "tun0"]);
        assert!(!plain.takes(&tun("tun0")));
        assert_eq!(plain.mistakes(&tun("tun0")), Some("tun"));
        assert_eq!(plain.mistakes(&tun("tun1")), None);
        assert_eq!(plain.mistakes(&link("tun0", false)), None);
    }
}
