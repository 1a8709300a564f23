//! What a run was told to do, and what of it may change while it runs.

use std::fmt::Debug;

use anyhow::Result;
use fixer_common::abi::Hook;

use crate::{
    bpf::{attach::Wish, load::Config},
    cli::{Run, Select},
    cmd::checks,
    net::{links::Link, netns::NetNs},
    site::{Site, SiteError},
};

/// An option that is what it was at the start, until the end.
struct Fixed {
    name: &'static str,
    /// Its value, to be compared.
    value: fn(&Run) -> String,
}

const FIXED: [Fixed; 9] = [
    // Other namespaces may be named while it runs. Who named none has given up the right to enter any.
    fixed(NETNS, |run| shown(&run.select.netns.is_empty())),
    fixed("attach-mode", |run| shown(&run.what.attach_mode)),
    fixed("events", |run| shown(&run.output.events)),
    fixed("pcapng", |run| shown(&run.output.pcapng)),
    fixed("exchange-timeout", |run| shown(&run.exchange_timeout)),
    fixed("metrics", |run| shown(&run.metrics)),
    fixed("otlp", |run| shown(&run.otlp)),
    fixed("otlp-interval", |run| shown(&run.otlp_interval)),
    fixed("user", |run| shown(&run.user)),
];

const NETNS: &str = "netns";

const fn fixed(name: &'static str, value: fn(&Run) -> String) -> Fixed {
    Fixed { name, value }
}

fn shown(value: &impl Debug) -> String {
    format!("{value:?}")
}

/// What a run was told to do.
#[derive(Clone, Debug)]
pub struct Plan {
    fixed: Vec<String>,
    config: Config,
    select: Select,
    hooks: &'static [Hook],
    wish: Wish,
    /// Whether it is known that the fix holds on this kernel, or that nobody wants to know.
    is_proven: bool,
}

impl Plan {
    /// What these arguments say, the programs' configuration that was made of them, and whether it is
    /// known that they may fix.
    pub fn new(args: &Run, config: Config, is_proven: bool) -> Self {
        Self {
            fixed: FIXED.iter().map(|option| (option.value)(args)).collect(),
            config,
            select: args.select.clone(),
            hooks: args.what.hook.each(),
            wish: args.what.attach_mode,
            is_proven,
        }
    }

    /// The programs' configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Which interfaces, in which namespaces.
    pub fn select(&self) -> &Select {
        &self.select
    }

    /// The hooks.
    pub fn hooks(&self) -> &'static [Hook] {
        self.hooks
    }

    /// A site in a namespace, and the interfaces there. Nothing is attached yet. Must be called on a
    /// tokio runtime.
    pub async fn site(&self, netns: NetNs) -> Result<(Site, Vec<Link>), SiteError> {
        Site::new(netns, &self.config, self.select.selection(), self.hooks, self.wish).await
    }

    /// The options that have another value in these arguments, and cannot have it.
    pub(super) fn changed(&self, args: &Run) -> Vec<&'static str> {
        let options = FIXED.iter().zip(&self.fixed);
        options
            .filter(|(option, before)| (option.value)(args) != **before)
            .map(|(option, _)| option.name)
            .collect()
    }

    /// What these arguments say, as far as it can change.
    pub(super) fn next(&self, args: &Run) -> Result<Self> {
        let log = self.config.log;
        let config = Config { shrink_twice: self.config.shrink_twice, ..args.config(log) };
        let config = if self.is_proven { config } else { checks::proven(&args.what, config)? };
        let mut select = args.select.clone();
        if self.changed(args).contains(&NETNS) {
            select.netns = self.select.netns.clone();
        }
        let is_proven = self.is_proven || !args.what.observe_only;
        let (fixed, wish, hooks) = (self.fixed.clone(), self.wish, args.what.hook.each());
        Ok(Self { fixed, config, select, hooks, wish, is_proven })
    }
}
