//! What a scenario tells on one screen: the fault that was seen, what fixer did, what the client got.

use std::fmt;

use anyhow::{Context as _, Result, bail, ensure};
use fixer_user::lab::strict::Outcome;
use serde::Serialize;
use serde_json::Value;

use crate::command::Ended;

/// One way in which a system is set up, without fixer and with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Act {
    /// What is special about it.
    pub setting: String,
    /// What the client saw without fixer.
    pub fault: String,
    /// How fixer was started, and what it did, line by line.
    pub fixer: Vec<String>,
    /// What the client got then.
    pub client: String,
}

/// What came of a scenario: its acts, and why it went no further.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Story {
    /// Its name in the table.
    pub name: &'static str,
    /// The system in a few words.
    pub title: &'static str,
    /// What was played.
    pub acts: Vec<Act>,
    /// What is not as it must be.
    pub failure: Option<String>,
}

impl Story {
    /// Whether all was as it must be.
    pub fn is_good(&self) -> bool {
        self.failure.is_none()
    }

    /// For programs: all of it, and the screen that people see.
    pub fn json(&self) -> Result<Value> {
        let mut story = serde_json::to_value(self)?;
        story["screen"] = self.to_string().into();
        Ok(story)
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.name, self.title)?;
        for act in &self.acts {
            writeln!(f, "  {}", act.setting)?;
            row(f, "fault seen", &act.fault)?;
            for (at, line) in act.fixer.iter().enumerate() {
                row(f, if at == 0 { "fixer" } else { "" }, line)?;
            }
            row(f, "the client", &act.client)?;
        }
        match &self.failure {
            None => writeln!(f, "  as it must be"),
            Some(failure) => writeln!(f, "  NOT as it must be: {failure}"),
        }
    }
}

fn row(f: &mut fmt::Formatter<'_>, title: &str, text: &str) -> fmt::Result {
    writeln!(f, "    {title:<10}  {text}")
}

/// What a strict client tells that was refused by its own check: replies came, each with a bad sum.
pub fn fault(outcome: &Outcome) -> Result<String> {
    let Outcome { lease, replies, bad } = outcome;
    ensure!(*replies > 0, "no reply reached the client, so no fault is shown");
    ensure!(
        lease.is_none() && bad.len() == *replies,
        "the fault is not there: of {replies} replies {} were bad, and the lease is {lease:?}",
        bad.len()
    );
    Ok(format!("{replies} of {replies} replies have a bad UDP checksum; the client has no lease"))
}

/// What a client tells that has its lease, with no bad sum on the way.
pub fn cure(outcome: &Outcome) -> Result<String> {
    let Outcome { lease, replies, bad } = outcome;
    ensure!(bad.is_empty(), "{} of {replies} replies still have a bad UDP checksum", bad.len());
    match lease {
        Some(lease) => Ok(format!("has a lease: {} from {}", lease.address, lease.server)),
        None => bail!("the client has no lease, after {replies} replies"),
    }
}

/// The headline with these words, of what `fixer doctor` found.
pub fn finding(doctor: Ended, words: &str) -> Result<String> {
    let headline = |line: &String| {
        let (number, headline) = line.split_once(". ")?;
        number.parse::<u32>().ok().map(|_| headline.to_owned())
    };
    let found = doctor.stdout.iter().filter_map(headline).find(|found| found.contains(words));
    found.with_context(|| format!("the doctor does not find '{words}': {doctor:?}"))
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, process::ExitStatus};

    use fixer_common::decide::Field;
    use fixer_user::lab::strict::Lease;

    use super::*;

    fn lease() -> Option<Lease> {
        Some(Lease { address: Ipv4Addr::new(10, 0, 0, 9), server: Ipv4Addr::new(10, 0, 0, 1) })
    }

    #[test]
    fn a_fault_takes_replies_that_are_all_bad() {
        let bad = || vec![Field { at: 40, stored: 1, expected: 2 }];
        let outcome = |lease, replies, bad| Outcome { lease, replies, bad };
        assert!(fault(&outcome(None, 1, bad())).unwrap().starts_with("1 of 1 replies"));
        assert!(fault(&outcome(None, 0, Vec::new())).is_err());
        assert!(fault(&outcome(None, 2, bad())).is_err());
        assert!(fault(&outcome(lease(), 1, bad())).is_err());
    }

    #[test]
    fn a_cure_takes_a_lease_and_no_bad_sum() {
        let outcome = |lease, bad| Outcome { lease, replies: 2, bad };
        let field = Field { at: 40, stored: 1, expected: 2 };
        assert_eq!(cure(&outcome(lease(), vec![])).unwrap(), "has a lease: 10.0.0.9 from 10.0.0.1");
        assert!(cure(&outcome(None, vec![])).is_err());
        assert!(cure(&outcome(lease(), vec![field])).is_err());
    }

    #[test]
    fn a_finding_is_a_headline_of_the_doctors() {
        let lines =
            ["1. one server (likely)", "   do:    kill 2. servers", "2. two servers (possible)"];
        let doctor = || Ended {
            status: ExitStatus::default(),
            stdout: lines.map(str::to_owned).into(),
            stderr: Vec::new(),
        };
        assert_eq!(finding(doctor(), "servers").unwrap(), "two servers (possible)");
        assert!(finding(doctor(), "kill").is_err());
    }

    #[test]
    fn a_story_fits_on_a_screen() {
        let act = Act {
            setting: "as it is".to_owned(),
            fault: "2 of 2".to_owned(),
            fixer: vec!["fixer attach".to_owned(), "2 fixed".to_owned()],
            client: "has a lease".to_owned(),
        };
        let story = Story { name: "x", title: "a system", acts: vec![act], failure: None };
        assert_eq!(
            story.to_string(),
            "x: a system\n  as it is\n    fault seen  2 of 2\n    fixer       fixer attach\n\
             \x20               2 fixed\n    the client  has a lease\n  as it must be\n"
        );
    }
}
