//! The ways by which the one table of cases is run.
//!
//! Each takes the cases that it can, and stops at the first that does not come out as it must. All
//! take the same cases to the same end: that is how a disagreement shows.

use anyhow::Result;
use fixer_common::abi::Hook;
use fixer_user::bpf::attach::Wish;

use crate::cases::{Case, cases};

pub mod slices;
pub mod test_run;
pub mod veth;

/// Is told of every case that came out as it must.
pub type Passed<'a> = &'a mut dyn FnMut(&Case);

/// A way to run the cases.
pub struct Way {
    /// What it is called in the table of results.
    pub name: &'static str,
    /// Runs every case that it takes, and names each that came out as it must.
    pub run: fn(Passed<'_>) -> Result<()>,
}

/// Every way.
pub const WAYS: [Way; 6] = [
    Way { name: "slices", run: slices::run },
    Way { name: "TEST_RUN", run: test_run::run },
    Way {
        name: "port egress",
        run: |passed| veth::run(&veth::Line::direct()?, Hook::Egress, Wish::Auto, false, passed),
    },
    Way {
        name: "port ingress",
        run: |passed| veth::run(&veth::Line::bridged()?, Hook::Ingress, Wish::Auto, false, passed),
    },
    Way {
        name: "bridge egress",
        run: |passed| veth::run(&veth::Line::bridge()?, Hook::Egress, Wish::Auto, false, passed),
    },
    Way {
        name: "clsact",
        run: |passed| veth::run(&veth::Line::direct()?, Hook::Egress, Wish::Clsact, false, passed),
    },
];

/// The cases that a way takes, those with the same rules together: they share an object.
fn groups(takes: impl Fn(&Case) -> bool) -> Vec<Vec<Case>> {
    let mut cases = cases();
    cases.retain(takes);
    cases.sort_by_key(|case| format!("{:?}", case.rules));
    cases.chunk_by(|one, other| one.rules == other.rules).map(<[Case]>::to_vec).collect()
}
