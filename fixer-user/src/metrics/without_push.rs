//! What stands in for `push` in a fixer that was built without the feature `otlp`: there is no receiver
//! that it could push to.

use std::{convert::Infallible, str::FromStr, time::Duration};

use super::{Ask, Snapshot};
use crate::exchange::Ledger;

/// Where a receiver is. There is none.
#[derive(Clone, Debug)]
pub enum Endpoint {}

impl FromStr for Endpoint {
    type Err = &'static str;

    fn from_str(_: &str) -> Result<Self, Self::Err> {
        Err("this fixer was built without the feature otlp; build it with \
             `cargo build --release -p fixer-user --features otlp`, or have --metrics scraped")
    }
}

/// Pushes, again and again. There is none that could.
#[derive(Debug)]
pub enum Push {}

impl Push {
    /// One that pushes to a receiver.
    pub fn new(endpoint: &Endpoint, _: Duration) -> Self {
        match *endpoint {}
    }

    pub(super) async fn live(&mut self, _: Ask, _: Ledger) -> Infallible {
        match *self {}
    }

    pub(super) async fn last(&mut self, _: Vec<Snapshot>, _: &Ledger) {
        match *self {}
    }
}
