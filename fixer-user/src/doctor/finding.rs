//! What a check found: what was read, what it means, and what to do.

use serde::Serialize;

use super::remedy::Remedy;

/// How likely it is that this is why a guest gets no lease. The most likely comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Likelihood {
    /// It was seen to happen, or nothing works until this is mended.
    Certain,
    /// It is for many guests, or most of the time.
    Likely,
    /// It may be, for some guests or at some times.
    Possible,
    /// It is not, but it is good to know.
    Note,
}

impl Likelihood {
    /// How it is called in text.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Certain => "certain",
            Self::Likely => "likely",
            Self::Possible => "possible",
            Self::Note => "note",
        }
    }
}

/// Something that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// The check that found it; filled in by the table of checks.
    pub check: &'static str,
    /// How likely it is the cause.
    pub likelihood: Likelihood,
    /// The interface, with its namespace if that is not our own.
    pub place: String,
    /// What is wrong, in a line.
    pub headline: String,
    /// What was read.
    pub seen: Vec<String>,
    /// What it means for guests.
    pub means: String,
    /// The commands that mend it.
    #[serde(rename = "do")]
    pub remedy: Vec<Remedy>,
}

impl Finding {
    /// A finding about a place.
    pub fn new(likelihood: Likelihood, place: &str, headline: impl Into<String>) -> Self {
        Self {
            check: "",
            likelihood,
            place: place.to_owned(),
            headline: headline.into(),
            seen: Vec::new(),
            means: String::new(),
            remedy: Vec::new(),
        }
    }

    /// What was read.
    #[must_use]
    pub fn seen(mut self, seen: impl Into<String>) -> Self {
        self.seen.push(seen.into());
        self
    }

    /// What it means.
    #[must_use]
    pub fn means(mut self, means: impl Into<String>) -> Self {
        self.means = means.into();
        self
    }

    /// What to do.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<Remedy>) -> Self {
        self.remedy.push(remedy.into());
        self
    }
}

/// What facts are read from; what cannot be read is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The interfaces, by netlink.
    Links,
    /// Which interfaces leave checksums partial, by ethtool's netlink.
    Offload,
    /// The filters of tc.
    Filters,
    /// What fixer attached.
    Fixers,
    /// The processes and their sockets.
    Processes,
    /// nftables and iptables.
    Firewall,
    /// Open vSwitch's database.
    Switches,
    /// What the kernel can do, by trying.
    Kernel,
    /// What passes on the bridges.
    Traffic,
}

/// Something that could not be read.
#[derive(Clone, Debug, Serialize)]
pub struct Unseen {
    /// What it is about.
    pub source: Source,
    /// What could not be read, why, and how to see it.
    pub what: String,
}
