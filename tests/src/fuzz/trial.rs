//! One frame to try, where and under which configuration: a line of a fixture.
//!
//! ```text
//! dhcp egress plain 0200…  # what it was
//! ```
//!
//! are the setting's name, the hook, the kind of packet (`gso` for segmentation offload, `summed` for
//! one whose sum a network card took, `CHECKSUM_COMPLETE`), and the frame in hex.

use std::{fmt, str::FromStr};

use anyhow::{Context as _, Result};
use fixer_common::abi::Hook;

use super::{
    reference::{Answer, Question, answer},
    setting::Setting,
};

/// What the kernel says about a packet besides its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Plain,
    /// A segmentation-offload packet.
    Gso,
    /// A network card took the sum of the whole packet (`CHECKSUM_COMPLETE`).
    Summed,
}

const KINDS: [(Kind, &str); 3] =
    [(Kind::Plain, "plain"), (Kind::Gso, "gso"), (Kind::Summed, "summed")];
const HOOKS: [Hook; 2] = [Hook::Egress, Hook::Ingress];

/// A frame to try.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The configuration.
    pub setting: &'static Setting,
    /// Where it passes.
    pub hook: Hook,
    /// What is said about it.
    pub kind: Kind,
    /// From its destination address on.
    pub frame: Vec<u8>,
}

impl Trial {
    /// What the reference says.
    pub fn answer(&self) -> Answer {
        answer(&Question {
            frame: &self.frame,
            gso: self.kind == Kind::Gso,
            rules: self.setting.rules,
            observe_only: self.setting.observe_only,
        })
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = KINDS.iter().find(|(kind, _)| *kind == self.kind).map_or("", |(_, name)| name);
        write!(f, "{} {} {kind} {}", self.setting.name, self.hook.name(), hex::encode(&self.frame))
    }
}

impl FromStr for Trial {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> Result<Self> {
        let mut words = line.split_whitespace();
        let mut word = |what| words.next().with_context(|| format!("{what} is missing: {line:?}"));
        let (setting, hook) = (word("the setting")?, word("the hook")?);
        let (kind, frame) = (word("the kind")?, word("the frame")?);
        Ok(Self {
            setting: Setting::named(setting).with_context(|| format!("no setting {setting}"))?,
            hook: *HOOKS
                .iter()
                .find(|known| known.name() == hook)
                .with_context(|| format!("no hook {hook}"))?,
            kind: KINDS
                .iter()
                .find(|(_, name)| *name == kind)
                .with_context(|| format!("no kind {kind}"))?
                .0,
            frame: hex::decode(frame).with_context(|| format!("no hex: {frame}"))?,
        })
    }
}

/// What stands before a comment on each line of a fixture that is not empty.
pub fn lines(fixture: &str) -> impl Iterator<Item = &str> {
    fixture
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_is_read_as_it_was_written() -> Result<()> {
        for line in ["pxe ingress gso 00ff10", "everything egress summed 0a", "udp egress plain 01"]
        {
            assert_eq!(line.parse::<Trial>()?.to_string(), line);
        }
        for line in
            ["", "pxe ingress gso", "pxe ingress gso 0", "pxe out gso 00", "x egress gso 00"]
        {
            assert!(line.parse::<Trial>().is_err(), "{line}");
        }
        Ok(())
    }

    #[test]
    fn comments_and_empty_lines_are_no_trials() {
        let fixture = "# a\n\nudp egress plain 01  # why\n  \n";
        assert_eq!(lines(fixture).collect::<Vec<_>>(), ["udp egress plain 01"]);
    }
}
