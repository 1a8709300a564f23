//! `fixer watch`: shows the events of what is attached already, and leaves it as it is.

use std::{collections::BTreeSet, io};

use anyhow::{Context as _, Result, bail};
use fixer_common::abi;

use super::{Outcome, checks, sinks::sinks};
use crate::{
    bpf::{
        pin::Pins,
        resident::{Holder, Resident, settled},
    },
    cli::{self, Events},
    net::{links, netns::NetNs},
    privileges,
    say::say,
    share::Feed,
    signals::{Request, Signals},
    sink::SinkError,
    site::place,
    stream::{Follower, Writer},
    summary,
    watch::{Ground, Watch},
};

/// Watches until a signal, or until there is nothing to watch or nobody to show it to.
pub fn run(args: &cli::Watch) -> Result<Outcome> {
    checks::privileges(privileges::TO_WATCH, &args.select, None)?;
    checks::open_many_files();
    let mut grounds = Vec::new();
    for netns in checks::namespaces(&args.select)? {
        grounds.push(look(args, netns)?);
    }
    check(args, &grounds)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(work(args, grounds));
    runtime.shutdown_background();
    outcome.map(|()| Outcome::Done)
}

/// What there is to watch in a namespace.
fn look(args: &cli::Watch, netns: NetNs) -> Result<Ground> {
    let mut pins = None;
    let selection = args.select.selection();
    let is_all = !selection.auto && selection.patterns.is_empty();
    let selection = (!is_all).then_some(selection);
    let mut links =
        links::list(&netns).with_context(|| format!("cannot list the interfaces of '{netns}'"))?;
    links.retain(|link| selection.as_ref().is_none_or(|selection| selection.means(link)));
    let names = links.iter().map(|link| (link.ifindex, link.name.as_str()));
    let mut residents = netns.run(|| settled(names))??;
    residents.retain(|there| args.hook.each().contains(&there.hook));
    let mut feeds = Vec::new();
    for there in &residents {
        let feed = match there.holder {
            Holder::Run(pid) => Feed::Run(pid),
            Holder::Attach(abi::VERSION) => {
                let pins = match &pins {
                    Some(pins) => pins,
                    None => pins.insert(Pins::of(&netns)?),
                };
                Feed::Pins(pins.event_maps()?)
            }
            Holder::Attach(_) | Holder::Elsewhere | Holder::Unknown | Holder::Nobody => {
                say(cannot_watch(&netns, there));
                continue;
            }
        };
        if !feeds.contains(&feed) {
            feeds.push(feed);
        }
    }
    Ok(Ground { netns, pins, selection, hooks: args.hook.each(), residents, feeds })
}

fn cannot_watch(netns: &NetNs, there: &Resident) -> String {
    let (hook, place) = (there.hook.name(), place(netns, &there.interface));
    format!("cannot watch {hook} of {place}, which is held by {}", there.holder)
}

/// What was named has to be there, and something has to be.
fn check(args: &cli::Watch, grounds: &[Ground]) -> Result<()> {
    let plain = args.select.interfaces.iter().filter(|pattern| pattern.is_plain());
    let mut missing: BTreeSet<_> = plain.map(|pattern| pattern.given()).collect();
    for there in grounds.iter().flat_map(|ground| &ground.residents) {
        missing.remove(there.interface.as_str());
    }
    if !missing.is_empty() {
        let names: Vec<_> = missing.into_iter().collect();
        bail!("fixer is not attached to {}; `fixer status` shows where it is", names.join(", "));
    }
    if grounds.iter().all(|ground| ground.feeds.is_empty()) {
        bail!(
            "nothing is attached here that could be watched; `fixer attach` or `fixer run` attaches, \
             `fixer status` shows what is attached, and --netns names other network namespaces"
        );
    }
    Ok(())
}

async fn work(args: &cli::Watch, grounds: Vec<Ground>) -> Result<()> {
    let mut signals = Signals::new(Request::End)?;
    let mut watch = tokio::select! {
        watch = Watch::begin(grounds, args.output.verdicts()) => watch?,
        // Whoever is to hand out events may be stuck.
        _ = signals.any() => return Ok(()),
    };
    let (writer, end) = Writer::start(sinks(&args.output)?, Follower::none())?;
    watch.tell();
    let ended = watch.live(writer, end, &mut signals).await?;
    // The events may have a reader that wants no other lines, or one that is stuck.
    let to_stderr = args.output.events == Events::Json || ended.is_none();
    summary::print(watch.snapshots().into_iter(), to_stderr);
    match ended.unwrap_or(Ok(())) {
        Err(SinkError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        ended => ended.context("cannot write the events"),
    }
}
