//! `fixer detach`: undo `fixer attach`, of whatever version, and remove what a killed fixer left.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};

use super::{Outcome, checks};
use crate::{
    bpf::{
        attach::AttachError,
        gone,
        halfway::{Change, Halfway},
        pin::Pins,
        resident::{Holder, Resident, settled},
    },
    cli,
    hurry::Hurry,
    net::{
        links::{self, Link},
        netns::NetNs,
        turn::{LONG, Turn},
    },
    privileges,
    say::{print, say},
    site::place,
};

/// Detaches from what was selected, and from what is gone. What was done is told when all is done: that it
/// cannot be written must not keep anything attached.
pub fn run(args: &cli::Detach) -> Result<Outcome> {
    checks::privileges(privileges::TO_INSPECT, &args.select, None)?;
    let mut told = String::new();
    let outcome = undo(args, &mut told);
    let printed = print(told);
    outcome?;
    printed.context("cannot write to standard output what was done")?;
    Ok(Outcome::Done)
}

/// Detaches, and adds a line for each hook to what is to be told.
fn undo(args: &cli::Detach, told: &mut String) -> Result<()> {
    let selection = args.select.selection();
    let mut unknown: BTreeSet<&str> =
        selection.patterns.iter().filter(|pattern| pattern.is_plain()).map(|p| p.given()).collect();
    for netns in checks::namespaces(&args.select)? {
        let every = Pins::every(&netns)?;
        let turn = netns.run(|| Turn::wait(LONG)).flatten().context("cannot lock the namespace")?;
        let links = links::list(&netns)
            .with_context(|| format!("cannot list the interfaces of '{netns}'"))?;
        let names = || links.iter().map(|link| (link.ifindex, link.name.as_str()));
        checks::tell_halfway(&netns, &turn)?;
        let there = netns.run(|| settled(names()))??;
        let is_meant = |there: &&Resident| {
            let link = links.iter().find(|link| link.ifindex == there.ifindex);
            let selected = |link: &Link| args.all || selection.means(link);
            args.hook.each().contains(&there.hook) && link.is_some_and(selected)
        };
        let _hurry = Hurry::for_many(there.len());
        for pins in &every {
            let before = pins.of_these(&there).count();
            let meant = pins.of_these(&there).filter(is_meant).count();
            if meant > 1 {
                pins.mark(&Halfway { meant, change: Change::Detach(before) })?;
            }
        }
        let meant: Vec<_> = there.iter().filter(is_meant).collect();
        let outcome = detach(&netns, (&turn, &every), &meant);
        let left = netns.run(|| settled(names()))??;
        let stays = |there: &&&Resident| {
            left.iter().any(|left| {
                (left.ifindex, left.hook, left.program)
                    == (there.ifindex, there.hook, there.program)
            })
        };
        for there in meant.iter().filter(|there| !stays(there)) {
            let (hook, place) = (there.hook.name(), place(&netns, &there.interface));
            *told += &format!("{} {hook} of {place}\n", verb(there));
            unknown.remove(there.interface.as_str());
        }
        // Whoever has failed and says so was not killed.
        let tidied = every.iter().map(|pins| pins.tidy(&left).and(pins.unmark()));
        let tidied = tidied.fold(Ok(()), Result::and);
        outcome?;
        tidied?;
        // Of what a process holds, only who names it wants to hear.
        let is_told = |there: &&&Resident| !args.all || is_free(there);
        if let Some(stays) = meant.iter().filter(stays).find(is_told) {
            bail!(AttachError::from(*stays));
        }
    }
    if args.all {
        remove_gone();
    }
    if !unknown.is_empty() {
        let names: Vec<_> = unknown.into_iter().collect();
        bail!("fixer is not attached to {}; `fixer status` shows where it is", names.join(", "));
    }
    if told.is_empty() {
        *told += "nothing was attached\n";
    }
    Ok(())
}

/// Whether it stays for nobody. What a process holds is that process's to detach.
fn is_free(there: &Resident) -> bool {
    matches!(there.holder, Holder::Attach(_) | Holder::Nobody)
}

/// Detaches what stays for nobody.
fn detach(netns: &NetNs, (turn, every): (&Turn, &[Pins]), meant: &[&Resident]) -> Result<()> {
    netns.run(|| {
        for there in meant.iter().filter(|there| is_free(there)) {
            let pins = match there.holder {
                Holder::Attach(version) => every.iter().find(|pins| pins.version == version),
                _ => None,
            };
            match pins {
                Some(pins) => pins.detach(turn, there)?,
                None => there.remove_filter(turn)?,
            }
        }
        Ok(())
    })?
}

/// Removes the pins of namespaces that are gone, and says so. What was asked for is done all the same.
pub(super) fn remove_gone() {
    match gone::remove() {
        Ok(gone) => gone.iter().for_each(|inode| {
            say(format_args!(
                "removed the pins of a network namespace that is gone (its number was {inode})"
            ));
        }),
        Err(error) => say(format_args!("pins of network namespaces that are gone stay: {error}")),
    }
}

fn verb(there: &Resident) -> &'static str {
    match there.holder {
        Holder::Nobody => "removed what a killed fixer left at",
        _ => "detached from",
    }
}
