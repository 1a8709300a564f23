//! Attaching to many interfaces, and detaching from them, at once.

use std::{collections::BTreeMap, sync::Arc};

use fixer_common::abi::Hook;

use super::{News, Outcome, Site, SiteError};
use crate::{
    bpf::attach::{AttachError, Attachment, Batch},
    hurry::Hurry,
    net::links::Link,
    say::Progress,
};

/// What is to be done after some changes.
#[derive(Default)]
pub(super) struct Plan {
    /// What is to be attached.
    pub(super) take: BTreeMap<u32, Link>,
    /// What is attached, and is not to be any more.
    pub(super) leave: BTreeMap<u32, Link>,
    /// What is left here of interfaces that are gone.
    pub(super) off: Vec<(u32, Vec<Attachment>)>,
    /// What there is to say already.
    pub(super) outcomes: Vec<Outcome>,
}

impl Site {
    /// Attaches to some interfaces.
    pub(super) fn attach(&mut self, links: BTreeMap<u32, Link>) -> Vec<Outcome> {
        let Some(inside) = self.inside.as_ref().filter(|_| !links.is_empty()) else {
            return Vec::new();
        };
        let (object, hooks, wish) = (&mut self.object, self.hooks, self.wish);
        let all = links.len();
        let entered = inside.netns.run(|| {
            let _hurry = Hurry::for_many(all);
            let mut progress = Progress::start("attached to", all);
            let batch = Batch::begin(links.values().map(|link| (link.ifindex, &*link.name)))?;
            let each = links.into_values().map(|link| {
                let mut made = Vec::new();
                let outcome = hooks.iter().try_for_each(|hook| {
                    made.extend(object.attach_link(&batch, &link, *hook, wish)?);
                    Ok(())
                });
                progress.step();
                (link, made, outcome)
            });
            Ok(each.collect::<Vec<(Link, Vec<Attachment>, Result<(), AttachError>)>>())
        });
        match entered {
            Ok(Ok(done)) => done.into_iter().flat_map(|done| self.attached_to(done)).collect(),
            Ok(Err(error)) => vec![Err(SiteError::Attach(error))],
            Err(error) => vec![Err(SiteError::Enter(Arc::clone(&self.label), error))],
        }
    }

    fn attached_to(
        &mut self,
        (link, made, outcome): (Link, Vec<Attachment>, Result<(), AttachError>),
    ) -> Vec<Outcome> {
        if let Err(error) = outcome {
            // What was half done is undone.
            let undone = self.detach(vec![(link.ifindex, made)]);
            return [undone.err(), Some(error.into())].into_iter().flatten().map(Err).collect();
        }
        let news = News::taken(self.place(&link.name), &made);
        if !made.is_empty() {
            self.attached.insert(link.ifindex, made);
        }
        news.map(Ok).into_iter().collect()
    }

    /// Detaches from some interfaces, and takes their counters over. What fails does not keep the
    /// rest from being detached; the first failure is told.
    pub(super) fn detach(&mut self, off: Vec<(u32, Vec<Attachment>)>) -> Result<(), SiteError> {
        let Some(inside) = self.inside.as_ref().filter(|_| !off.is_empty()) else {
            return Ok(());
        };
        let ifindexes: Vec<u32> = off.iter().map(|(ifindex, _)| *ifindex).collect();
        let (object, netns) = (&mut self.object, &inside.netns);
        let entered = netns.run(|| {
            let _hurry = Hurry::for_many(off.len());
            let mut progress = Progress::start("detached from", off.len());
            let mut outcome = Ok(());
            for (_, attachments) in off {
                for attachment in attachments {
                    outcome = outcome.and(object.detach(attachment));
                }
                progress.step();
            }
            outcome
        });
        for ifindex in ifindexes {
            self.account(ifindex);
        }
        Ok(entered.map_err(|error| SiteError::Enter(Arc::clone(&self.label), error))??)
    }

    /// An interface that is called otherwise from now on counts on.
    pub(super) fn settle(&mut self, ifindex: u32, name: &str) {
        for hook in HOOKS {
            if let Ok(Some(row)) = self.object.counted(ifindex, hook) {
                self.tally.rename(name.into(), row);
            }
        }
    }

    /// An interface that is not attached any more counts no more.
    fn account(&mut self, ifindex: u32) {
        for hook in HOOKS {
            if let Ok(Some(row)) = self.object.take_counted(ifindex, hook) {
                self.tally.end(self.names.get(ifindex), row);
            }
        }
    }
}

const HOOKS: [Hook; 2] = [Hook::Egress, Hook::Ingress];
