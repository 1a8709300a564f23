//! Whether fixer can help on this kernel.

use crate::{
    doctor::{
        facts::Facts,
        finding::{Finding, Likelihood},
        remedy::Remedy,
    },
    metrics::kernel,
};

/// A kernel on which the fix does not hold.
pub fn fails(facts: &Facts) -> Vec<Finding> {
    let failure = facts.proof.as_ref().and_then(|proof| proof.failure());
    let finding = failure.map(|failure| {
        let seen = failure.seen.as_deref().unwrap_or("it failed");
        let headline = format!("fixer does not work on Linux {}", kernel());
        Finding::new(Likelihood::Possible, "", headline)
            .seen(format!("not true that {}: {seen}", failure.trial))
            .means("do not attach it here: partial checksums need another remedy")
            .remedy(Remedy::from("ethtool -K BRIDGE tx off").remark("or update the kernel"))
    });
    finding.into_iter().collect()
}
