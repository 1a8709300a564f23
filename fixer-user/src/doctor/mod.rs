//! Why does a guest get no lease, or not boot? Everything is read once, and nothing is changed; then
//! every check of the table looks at what was read.

mod check;
mod dnsmasq;
mod ear;
mod facts;
mod finding;
mod fixers;
mod heard;
mod network;
mod processes;
mod program;
mod remedy;
mod report;
mod rules;
mod switches;

use std::time::Duration;

use anyhow::Result;

use self::{check::CHECKS, facts::Facts};
pub use self::{
    finding::{Finding, Likelihood, Unseen},
    report::{to_json, to_text},
};
use crate::cli::Select;

/// What a look at the host brought.
#[derive(Debug)]
pub struct Report {
    /// The interfaces that were looked at.
    pub places: Vec<String>,
    /// What was found, the most likely cause first.
    pub findings: Vec<Finding>,
    /// The checks that found nothing, in words.
    pub fine: Vec<&'static str>,
    /// What could not be read.
    pub unseen: Vec<Unseen>,
    /// How long we listened, if we did.
    pub listened: Option<Duration>,
}

impl Report {
    /// Whether something was found that keeps guests from their leases.
    pub fn has_problem(&self) -> bool {
        self.findings.iter().any(|finding| finding.likelihood < Likelihood::Note)
    }
}

/// Looks at the host, and listens for so long if asked to.
pub fn examine(select: &Select, listen: Option<Duration>) -> Result<Report> {
    let mut facts = Facts::gather(select)?;
    if let Some(span) = listen {
        ear::listen(&mut facts, span);
    }
    let (mut findings, mut fine) = (Vec::new(), Vec::new());
    for check in CHECKS {
        if check.listens && facts.heard.is_none() {
            continue;
        }
        let mut found = (check.find)(&facts);
        found.iter_mut().for_each(|finding| finding.check = check.name);
        if found.is_empty() && !facts.misses(check.needs) {
            fine.push(check.fine);
        }
        findings.extend(found);
    }
    // Checks of equal likelihood stay in the order of the table.
    findings.sort_by_key(|finding| finding.likelihood);
    let places = facts.selected().flat_map(|(_, network)| {
        network.selected().map(|interface| network.place(&interface.name)).collect::<Vec<_>>()
    });
    let places = places.collect();
    Ok(Report { places, findings, fine, unseen: facts.unseen, listened: listen })
}
