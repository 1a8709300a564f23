//! Whether fixer can help on this kernel.

use crate::{
    bpf::attach::Wish,
    doctor::finding::{Finding, Likelihood, Source, Unseen},
    metrics::kernel,
    proof,
};

/// Tries the fix in a scratch namespace.
pub fn prove(unseen: &mut Vec<Unseen>) -> Option<Finding> {
    let proof = match proof::prove(Wish::Auto) {
        Ok(proof) => proof,
        Err(error) => {
            let what = format!("whether fixer works on this kernel: {error}");
            unseen.push(Unseen { source: Source::Kernel, what });
            return None;
        }
    };
    let failure = proof.failure()?;
    let seen = failure.seen.as_deref().unwrap_or("it failed");
    let mut finding = Finding::new(
        Likelihood::Possible,
        "",
        format!("fixer does not work on Linux {}", kernel()),
    )
    .seen(format!("not true that {}: {seen}", failure.trial))
    .means("do not attach it here: partial checksums need another remedy")
    .remedy("update the kernel, or: ethtool -K BRIDGE tx off");
    finding.check = "kernel";
    Some(finding)
}
