//! `fixer attach`: attach and pin, so that the fix stays without any process.
//!
//! All or nothing: what can be seen beforehand is looked at in every namespace before the first
//! interface is touched, and where one refuses all the same, those before it are given back.

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use fixer_common::abi::{self, Hook};

use super::{Outcome, checks, detach::remove_gone};
use crate::{
    bpf::{
        attach::{AttachError, Mode, Wish},
        halfway::{Change, Halfway},
        load::{Config, Object},
        pin::{PinError, Pins},
        resident::{Holder, Resident, residents, settled},
    },
    cli,
    hurry::Hurry,
    names::shown,
    net::{
        claim::is_held,
        links::{self, Link},
        netns::NetNs,
        turn::{LONG, Turn},
    },
    privileges,
    say::print,
    share::server_of,
    site::place,
};

/// Attaches to what was selected and is there, and pins it.
pub fn run(args: &cli::Attach) -> Result<Outcome> {
    checks::privileges(privileges::TO_PIN, &args.select, Some(&args.what))?;
    let mut found = Vec::new();
    for netns in checks::namespaces(&args.select)? {
        // Looked at again when it is our turn: a mistake is better known before the self-test.
        selected(args, &netns)?;
        found.push((netns.identity()?, Pins::of(&netns)?, netns));
    }
    // Everybody takes turns in the same order, or two would wait for each other.
    found.sort_by_key(|(identity, ..)| *identity);
    // Nobody reads events yet; `WANTED` is shared with whoever comes to read them.
    let config = Config { events: 0, ..args.what.config(false, false) };
    let config = checks::proven(&args.what, config)?;
    let mut work = Vec::new();
    let outcome = found
        .into_iter()
        .try_for_each(|(_, pins, netns)| {
            work.push(Work::begin(args, netns, pins)?);
            Ok(())
        })
        .and_then(|()| work.iter_mut().try_for_each(|work| work.load(&config)))
        .and_then(|()| mark(&mut work))
        // What is new can be given back, what was replaced cannot: so that comes last.
        .and_then(|()| work.iter_mut().try_for_each(|work| work.attach(args, false)))
        .and_then(|()| work.iter_mut().try_for_each(|work| work.attach(args, true)))
        .and_then(|()| {
            let is_done = work.iter().any(|work| !work.done.is_empty());
            ensure!(is_done, "what was selected went away meanwhile: nothing was attached");
            Ok(())
        });
    let outcome = match outcome {
        Ok(()) => Ok(work.iter().map(Work::told).collect::<String>()),
        Err(error) => Err(undo(&mut work, error)),
    };
    // Where nothing got attached, nothing is left either.
    let tidy = work.iter_mut().map(Work::tidy).fold(Ok(()), Result::and);
    let told = outcome?;
    tidy?;
    remove_gone();
    // When all is done: that it cannot be written changes nothing.
    print(told).context("cannot write to standard output what was done")?;
    Ok(Outcome::Done)
}

/// Says what is going to be done, where there are several hooks to be changed.
fn mark(work: &mut [Work]) -> Result<()> {
    if work.iter().map(Work::meant).sum::<usize>() > 1 {
        work.iter_mut().try_for_each(Work::mark)?;
    }
    Ok(())
}

/// The interfaces of a namespace that are selected now.
fn selected(args: &cli::Attach, netns: &NetNs) -> Result<Vec<Link>> {
    let links =
        links::list(netns).with_context(|| format!("cannot list the interfaces of '{netns}'"))?;
    checks::every_name_will_do(&args.select, netns, &links)?;
    let selection = args.select.selection();
    let (taken, others): (Vec<_>, Vec<_>) =
        links.into_iter().partition(|link| selection.takes(link));
    let there: Vec<_> = others.iter().take(20).map(|link| shown(&link.name)).collect();
    ensure!(
        !taken.is_empty(),
        "{} in the network namespace '{netns}', so nothing was attached; there are: {}",
        match args.select.auto {
            true => "no bridge".to_owned(),
            false => format!("no interface matches {}", checks::quoted(selection.patterns.iter())),
        },
        there.join(", ")
    );
    Ok(taken)
}

/// Takes back what was attached before the error.
fn undo(work: &mut [Work], error: anyhow::Error) -> anyhow::Error {
    let (replaced, made): (Vec<_>, Vec<_>) =
        work.iter().flat_map(|work| &work.done).partition(|done| done.replaced);
    let (replaced, made) = (replaced.len(), made.len());
    let mut told = Vec::new();
    if made > 0 {
        told.push(match work.iter_mut().try_for_each(Work::undo) {
            Ok(()) => {
                format!("nothing new is attached: the {made} hooks before it were given back")
            }
            Err(also) => format!(
                "what was attached before could not be taken back: {also:#}; `fixer status` shows it, \
                 `fixer detach` takes it off"
            ),
        });
    }
    if replaced > 0 {
        told.push(format!("at {replaced} hooks the program was replaced already, and stays"));
    }
    if told.is_empty() { error } else { anyhow!("{error:#}; {}", told.join("; ")) }
}

/// What is to be done in one namespace, and what is done already.
struct Work {
    netns: NetNs,
    pins: Pins,
    /// The interfaces that are selected.
    links: Vec<Link>,
    hooks: &'static [Hook],
    there: Vec<Resident>,
    object: Option<Object>,
    done: Vec<Done>,
    is_marked: bool,
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
    fn begin(args: &cli::Attach, netns: NetNs, pins: Pins) -> Result<Self> {
        let cannot = || format!("cannot look at what is attached in '{netns}'");
        let turn = netns.run(|| Turn::wait(LONG)).flatten().with_context(cannot)?;
        checks::tell_halfway(&netns, &turn)?;
        let links = selected(args, &netns)?;
        let there = netns.run(|| settled(names(&links))).flatten().with_context(cannot)?;
        let (hooks, wish) = (args.what.hook.each(), args.what.attach_mode);
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
        let is_other = |there: &&Resident| {
            let mode = there.mode();
            (wish == Wish::Tcx && mode != Mode::Tcx)
                || (wish == Wish::Clsact && mode != Mode::Clsact)
        };
        let mut ours = there.iter().filter(|there| there.holder == Holder::Attach(abi::VERSION));
        if let Some(other) = ours.find(|there| hooks.contains(&there.hook) && is_other(there)) {
            let (place, mode) = (place(&netns, &other.interface), other.mode());
            bail!(
                "{place} is attached by {mode} already, and is replaced in the same way only (nothing \
                 was attached); detach it first, or leave --attach-mode out"
            );
        }
        let (object, done, is_marked) = Default::default();
        Ok(Self { netns, pins, links, hooks, there, object, done, is_marked, turn })
    }

    /// How many hooks are to be changed.
    fn meant(&self) -> usize {
        self.links.len() * self.hooks.len()
    }

    fn mark(&mut self) -> Result<()> {
        let meant = self.meant();
        let Some(object) = &mut self.object else { return Ok(()) };
        let change = Change::Attach(object.programs(self.hooks)?);
        self.is_marked = true;
        Ok(self.pins.mark(&Halfway { meant, change })?)
    }

    fn load(&mut self, config: &Config) -> Result<()> {
        let mut object = self.pins.load(config)?;
        // Watchers that were killed with all that served them have left it as they wanted it.
        let server = server_of(self.pins.event_maps()?);
        if !self.netns.run(|| is_held(&server))?? {
            object.set_events(config.events)?;
        }
        self.object = Some(object);
        Ok(())
    }

    /// Attaches where nothing is, or replaces what is there. What is gone by now is passed by, unless it was
    /// named plainly.
    fn attach(&mut self, args: &cli::Attach, replace: bool) -> Result<()> {
        let Self { netns, pins, links, hooks, there, object, done, turn, .. } = self;
        let Some(object) = object else { return Ok(()) };
        let selection = args.select.selection();
        let is_named =
            |name: &str| selection.patterns.iter().any(|it| it.is_plain() && it.given() == name);
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
                        let is_ours =
                            there.is_some_and(|there| there.holder == Holder::Attach(abi::VERSION));
                        if is_ours != replace {
                            continue;
                        }
                        let how = (*hook, args.what.attach_mode);
                        let interface = link.name.clone();
                        let outcome = pins.attach(turn, object, target, how, there)?;
                        let Some((replaced, mode)) = outcome else {
                            if is_named(&interface) {
                                return Err(AttachError::Gone { interface }.into());
                            }
                            continue;
                        };
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

    /// A line for each hook.
    fn told(&self) -> String {
        let line = |Done { interface, hook, replaced, mode, .. }: &Done| {
            let done = if *replaced { "replaced at" } else { "attached to" };
            let place = place(&self.netns, interface);
            format!("{done} {} of {place} ({mode})\n", hook.name())
        };
        self.done.iter().map(line).collect()
    }

    fn undo(&mut self) -> Result<()> {
        // What it holds may be what there is too little of.
        self.object = None;
        let Self { netns, pins, links, done, turn, .. } = self;
        let is_new = |there: &&Resident| {
            let here = |done: &Done| {
                (done.ifindex, done.hook) == (there.ifindex, there.hook) && !done.replaced
            };
            done.iter().any(here)
        };
        netns.run(|| -> Result<()> {
            let there = residents(names(links))?;
            Ok(there.iter().filter(is_new).try_for_each(|new| pins.detach(turn, new))?)
        })?
    }

    /// Removes what holds nothing. Whoever has failed and says so was not killed.
    fn tidy(&mut self) -> Result<()> {
        // What it holds may be what there is too little of.
        self.object = None;
        let outcome = self.tidy_pins();
        let unmarked = if self.is_marked { self.pins.unmark() } else { Ok(()) };
        outcome.and(unmarked.map_err(Into::into))
    }

    fn tidy_pins(&self) -> Result<()> {
        let Self { netns, pins, .. } = self;
        let cannot = || format!("cannot look at what is left in '{netns}'");
        let links = links::list(netns).with_context(cannot)?;
        let left = netns.run(|| settled(names(&links))).flatten().with_context(cannot)?;
        Ok(pins.tidy(&left)?)
    }
}

/// Interfaces as they are looked at.
fn names(links: &[Link]) -> impl Iterator<Item = (u32, &str)> + Clone {
    links.iter().map(|link| (link.ifindex, link.name.as_str()))
}
