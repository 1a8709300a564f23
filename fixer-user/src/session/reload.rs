//! Reading the configuration again, without a packet that passes unseen.
//!
//! All that can fail is tried first; until then, and if it does, everything stays as it was.

use std::{fmt::Debug, time::Instant};

use anyhow::{Result, bail};

use super::{Session, tell};
use crate::{
    bpf::{
        load::{Config, Object},
        ring::{Ring, Wanted},
    },
    cli::{Cli, Run, Verb},
    cmd::checks,
    config,
    say::say,
    service,
};

/// An option that is what it was at the start, until the end.
struct Fixed {
    name: &'static str,
    /// Its value, to be compared.
    value: fn(&Run) -> String,
}

const FIXED: [Fixed; 9] = [
    fixed("netns", |run| shown(&run.select.netns)),
    fixed("attach-mode", |run| shown(&run.what.attach_mode)),
    fixed("events", |run| shown(&run.output.events)),
    fixed("pcapng", |run| shown(&run.output.pcapng)),
    fixed("exchange-timeout", |run| shown(&run.exchange_timeout)),
    fixed("metrics", |run| shown(&run.metrics)),
    fixed("otlp", |run| shown(&run.otlp)),
    fixed("otlp-interval", |run| shown(&run.otlp_interval)),
    fixed("user", |run| shown(&run.user)),
];

const fn fixed(name: &'static str, value: fn(&Run) -> String) -> Fixed {
    Fixed { name, value }
}

fn shown(value: &impl Debug) -> String {
    format!("{value:?}")
}

/// What a run was told to do.
#[derive(Debug)]
pub struct Plan {
    fixed: Vec<String>,
    config: Config,
    /// Whether it is known that the fix holds on this kernel, or that nobody wants to know.
    is_proven: bool,
}

impl Plan {
    /// What these arguments say, and the programs' configuration that was made of them.
    pub fn new(args: &Run, config: Config) -> Self {
        let fixed = FIXED.iter().map(|option| (option.value)(args)).collect();
        Self { fixed, config, is_proven: !args.what.observe_only }
    }

    /// The programs' configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The options that have another value now, and cannot have it.
    fn changed(&self, args: &Run) -> Vec<&'static str> {
        let options = FIXED.iter().zip(&self.fixed);
        options
            .filter(|(option, before)| (option.value)(args) != **before)
            .map(|(option, _)| option.name)
            .collect()
    }

    /// The programs' configuration that these arguments make.
    fn next(&self, args: &Run) -> Result<Config> {
        let log = self.config.log;
        let config = Config { shrink_twice: self.config.shrink_twice, ..args.config(log) };
        if self.is_proven { Ok(config) } else { checks::proven(&args.what, config) }
    }
}

/// One site's new programs, if it needs any, once everything that can fail has been done.
type Ready = Option<(Object, (Ring, Wanted))>;

impl Session {
    /// Reads the configuration again, and does as it says. If that cannot be, says why in a line, and
    /// all stays as it was.
    pub(super) fn reload(&mut self, plan: &mut Plan) {
        service::reloading();
        match self.try_reload(plan) {
            Ok(()) => say("the configuration was read again"),
            Err(error) => say(format_args!("the configuration stays as it was: {error:#}")),
        }
        service::ready(&self.status());
    }

    fn try_reload(&mut self, plan: &mut Plan) -> Result<()> {
        let Cli { verb: Verb::Run(args), .. } = config::read(std::env::args_os().collect())? else {
            bail!("the command line is another verb's");
        };
        let config = plan.next(&args)?;
        let is_new = config != plan.config;
        let hooks = args.what.hook.each();
        let ready = self.sites.iter().map(|site| -> Result<Ready> {
            site.check(&args.select)?;
            let load = || -> Result<_> {
                let mut object = Object::load(&config)?;
                for hook in hooks {
                    object.classifier(*hook)?;
                }
                let ring = object.take_ring()?;
                let wanted = object.take_wanted()?;
                Ok((object, (ring, wanted)))
            };
            is_new.then(load).transpose()
        });
        let ready = ready.collect::<Result<Vec<_>>>()?;

        let changed = plan.changed(&args);
        if !changed.is_empty() {
            let names = changed.join(", ");
            say(format_args!("{names} cannot change while it runs: that needs a restart"));
        }
        plan.config = config;
        self.ledger.follow(args.sees_exchanges());
        plan.is_proven |= !args.what.observe_only;
        for (number, ready) in ready.into_iter().enumerate() {
            self.change_site(number, &args, ready);
        }
        Ok(())
    }

    fn change_site(&mut self, number: usize, args: &Run, ready: Ready) {
        let (object, events) = ready.unzip();
        let (ring, wanted) = events.unzip();
        if let Some(wanted) = wanted {
            self.shares[number].replace(wanted, args.output.verdicts());
        }
        if let Some(reader) = ring.and_then(|ring| self.reader(number, ring)) {
            let old = std::mem::replace(&mut self.readers[number], reader);
            self.leaving.push((Instant::now(), old));
        }
        let site = &mut self.sites[number];
        tell(site.change(args.select.selection(), args.what.hook.each(), object));
    }
}
