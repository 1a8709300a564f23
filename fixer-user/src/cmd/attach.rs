//! `fixer attach`: attach and pin, so that the fix stays without any process.
//!
//! All or nothing: what can be seen beforehand is looked at in every namespace before the first
//! interface is touched, and where one refuses all the same, those before it are given back.

use anyhow::{Context as _, Result, anyhow, ensure};
use fixer_common::abi::{self, Hook};

use super::{Outcome, checks};
use crate::{
    bpf::{
        attach::{AttachError, Mode},
        load::{Config, Object},
        pin::{PinError, Pins},
        resident::{Holder, Resident, residents, settled},
    },
    cli,
    hurry::Hurry,
    net::{claim::is_held, links, netns::NetNs, turn::Turn},
    privileges,
    share::Feed,
    site::place,
};

/// Attaches to what was selected and is there, and pins it.
pub fn run(args: &cli::Attach) -> Result<Outcome> {
    checks::privileges(privileges::TO_PIN, &args.select, Some(&args.what))?;
    let selection = args.select.selection();
    let mut found = Vec::new();
    for netns in checks::namespaces(&args.select)? {
        let pins = Pins::of(&netns)?;
        let everywhere = links::list(&netns)
            .with_context(|| format!("cannot list the interfaces of '{netns}'"))?;
        checks::every_name_will_do(&args.select, &netns, &everywhere)?;
        let (links, others): (Vec<_>, Vec<_>) =
            everywhere.into_iter().partition(|link| selection.takes(link));
        ensure!(!links.is_empty(), "no interface of '{netns}' is selected: nothing was attached");
        found.push((netns, pins, links, others));
    }
    // Nobody reads events yet; `WANTED` is shared with whoever comes to read them.
    let config = Config { events: 0, ..args.what.config(false, false) };
    let config = checks::proven(&args.what, config)?;
    let mut work = Vec::new();
    let outcome = found
        .into_iter()
        .try_for_each(|(netns, pins, links, others)| {
            work.push(Work::begin(netns, pins, links, others, args.what.hook.each())?);
            Ok(())
        })
        .and_then(|()| work.iter_mut().try_for_each(|work| work.load(&config)))
        .and_then(|()| work.iter_mut().try_for_each(|work| work.attach(args)));
    let outcome = match outcome {
        Ok(()) => {
            work.iter().for_each(Work::tell);
            Ok(Outcome::Done)
        }
        Err(error) => Err(undo(&mut work, error)),
    };
    // Where nothing got attached, nothing is left either.
    let tidy = work.iter_mut().try_for_each(Work::tidy);
    let outcome = outcome?;
    tidy.map(|()| outcome)
}

/// Takes back what was attached before the error.
fn undo(work: &mut [Work], error: anyhow::Error) -> anyhow::Error {
    let made = work.iter().flat_map(|work| &work.done).filter(|done| !done.replaced).count();
    if made == 0 {
        return error;
    }
    match work.iter_mut().try_for_each(Work::undo) {
        Ok(()) => {
            anyhow!("{error:#}; nothing was attached: the {made} hooks before it were given back")
        }
        Err(also) => anyhow!(
            "{error:#}; and what was attached before could not be taken back: {also:#}; \
             `fixer status` shows it, `fixer detach` takes it off"
        ),
    }
}

/// What is to be done in one namespace, and what is done already.
struct Work {
    netns: NetNs,
    pins: Pins,
    /// The interfaces that were selected.
    links: Vec<links::Link>,
    /// Those that were not.
    others: Vec<links::Link>,
    hooks: &'static [Hook],
    there: Vec<Resident>,
    object: Option<Object>,
    done: Vec<Done>,
    turn: Turn,
}

/// A hook that was attached.
struct Done {
    ifindex: u32,
    interface: String,
    hook: Hook,
    replaced: bool,
    mode: Mode,
}

impl Work {
    /// Takes its turn, and looks whether there is room at every hook.
    fn begin(
        netns: NetNs,
        pins: Pins,
        links: Vec<links::Link>,
        others: Vec<links::Link>,
        hooks: &'static [Hook],
    ) -> Result<Self> {
        let (turn, there) = netns
            .run(|| -> Result<_> {
                let turn = Turn::wait()?;
                Ok((turn, settled(names(&links))?))
            })
            .map_err(anyhow::Error::from)
            .flatten()
            .with_context(|| format!("cannot look at what is attached in '{netns}'"))?;
        let is_free = |there: &&Resident| {
            matches!(there.holder, Holder::Attach(abi::VERSION) | Holder::Nobody)
        };
        let wanted = there.iter().filter(|there| hooks.contains(&there.hook));
        if let Some(taken) = wanted.into_iter().find(|there| !is_free(there)) {
            return Err(anyhow!(AttachError::from(taken)).context(format!(
                "cannot attach to {} (nothing was attached)",
                place(&netns, &taken.interface)
            )));
        }
        Ok(Self { netns, pins, links, others, hooks, there, object: None, done: Vec::new(), turn })
    }

    fn load(&mut self, config: &Config) -> Result<()> {
        let mut object = self.pins.load(config)?;
        // Watchers that were killed with all that served them have left it as they wanted it.
        let server = Feed::Pins(self.pins.event_maps()?).name();
        if !self.netns.run(|| is_held(&server))?? {
            object.set_events(config.events)?;
        }
        self.object = Some(object);
        Ok(())
    }

    fn attach(&mut self, args: &cli::Attach) -> Result<()> {
        let Self { netns, pins, links, hooks, there, object, done, turn, .. } = self;
        let Some(object) = object else { return Ok(()) };
        netns
            .run(|| -> Result<(), PinError> {
                let _hurry = Hurry::for_many(links.len());
                for link in links.iter() {
                    for hook in *hooks {
                        let target = (link.ifindex, link.name.as_str());
                        let here = |there: &&Resident| {
                            (there.ifindex, there.hook) == (link.ifindex, *hook)
                        };
                        let there = there.iter().find(here);
                        let how = (*hook, args.what.attach_mode);
                        let (replaced, mode) = pins.attach(turn, object, target, how, there)?;
                        let interface = link.name.clone();
                        done.push(Done {
                            ifindex: link.ifindex,
                            interface,
                            hook: *hook,
                            replaced,
                            mode,
                        });
                    }
                }
                Ok(())
            })
            .with_context(|| format!("cannot enter the network namespace '{netns}'"))??;
        Ok(())
    }

    fn tell(&self) {
        for Done { interface, hook, replaced, mode, .. } in &self.done {
            let done = if *replaced { "replaced at" } else { "attached to" };
            let place = place(&self.netns, interface);
            println!("{done} {} of {place} ({mode})", hook.name());
        }
    }

    fn undo(&mut self) -> Result<()> {
        // What it holds may be what there is too little of.
        self.object = None;
        let Self { netns, pins, links, done, .. } = self;
        let is_new = |there: &&Resident| {
            let here = |done: &Done| {
                (done.ifindex, done.hook) == (there.ifindex, there.hook) && !done.replaced
            };
            done.iter().any(here)
        };
        netns.run(|| -> Result<()> {
            let there = residents(names(links))?;
            Ok(there.iter().filter(is_new).try_for_each(|new| pins.detach(new))?)
        })?
    }

    fn tidy(&mut self) -> Result<()> {
        // What it holds may be what there is too little of.
        self.object = None;
        let Self { netns, pins, links, others, .. } = self;
        let left = netns
            .run(|| settled(names(links).chain(names(others))))
            .flatten()
            .with_context(|| format!("cannot look at what is left in '{netns}'"))?;
        Ok(pins.tidy(&left)?)
    }
}

/// Interfaces as they are looked at.
fn names(links: &[links::Link]) -> impl Iterator<Item = (u32, &str)> + Clone {
    links.iter().map(|link| (link.ifindex, link.name.as_str()))
}
