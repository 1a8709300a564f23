//! Attaching to many interfaces, and detaching from them, at once.

use std::{collections::BTreeMap, sync::Arc};

use super::{News, Outcome, Site, SiteError};
use crate::{
    bpf::attach::{AttachError, Attachment, Batch},
    hurry::Hurry,
    net::{
        links::Link,
        turn::{SHORT, Turn},
    },
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

/// What was said about interfaces that could not be attached: it is not said again with every try.
#[derive(Default)]
pub(super) struct Failures(BTreeMap<Option<u32>, String>);

impl Failures {
    /// A failure of one interface, or of all at once, if it is a new one.
    fn add(&mut self, whose: Option<u32>, error: SiteError) -> Option<Outcome> {
        let words = error.to_string();
        let before = self.0.insert(whose, words.clone());
        (before != Some(words)).then_some(Err(error))
    }

    /// An interface is gone, or attached, and so is what all of them lacked.
    pub(super) fn forget(&mut self, ifindex: u32) {
        self.0.remove(&Some(ifindex));
        self.0.remove(&None);
    }
}

impl Site {
    /// Tries again where something is lacking: memory may be there again, another fixer may have ended.
    pub fn retry(&mut self) -> Vec<Outcome> {
        let links = self.links.values().filter(|link| self.lacks(link));
        let links = links.map(|link| (link.ifindex, link.clone())).collect();
        self.attach(links)
    }

    /// Attaches to some interfaces.
    pub(super) fn attach(&mut self, links: BTreeMap<u32, Link>) -> Vec<Outcome> {
        let Some(inside) = self.inside.as_ref().filter(|_| !links.is_empty()) else {
            return Vec::new();
        };
        let all = links.len();
        let lacking: Vec<_> = links.keys().map(|ifindex| self.lacking(*ifindex)).collect();
        let (object, wish) = (&mut self.object, self.wish);
        let entered = inside.netns.run(|| {
            let _hurry = Hurry::for_many(all);
            let mut progress = Progress::start("attached to", all);
            let batch = Batch::begin(links.values().map(|link| (link.ifindex, &*link.name)))?;
            let each = links.into_values().zip(lacking).map(|(link, lacking)| {
                let mut made = Vec::new();
                let outcome = lacking.iter().try_for_each(|hook| {
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
            Ok(Err(error)) => {
                self.failures.add(None, SiteError::Attach(error)).into_iter().collect()
            }
            Err(error) => {
                let error = SiteError::Enter(Arc::clone(&self.label), error);
                self.failures.add(None, error).into_iter().collect()
            }
        }
    }

    fn attached_to(
        &mut self,
        (link, made, outcome): (Link, Vec<Attachment>, Result<(), AttachError>),
    ) -> Vec<Outcome> {
        if let Err(error) = outcome {
            // What was half done is undone.
            let undone = self.detach(vec![(link.ifindex, made)]);
            let failure = self.failures.add(Some(link.ifindex), error.into());
            return undone.err().map(Err).into_iter().chain(failure).collect();
        }
        self.failures.forget(link.ifindex);
        let news = News::taken(self.place(&link.name), &made);
        if !made.is_empty() {
            self.attached.entry(link.ifindex).or_default().extend(made);
        }
        news.map(Ok).into_iter().collect()
    }

    /// Detaches from some interfaces, and takes their counters over. What fails does not keep the
    /// rest from being detached; the first failure is told.
    pub(super) fn detach(&mut self, off: Vec<(u32, Vec<Attachment>)>) -> Result<(), SiteError> {
        let Some(inside) = self.inside.as_ref().filter(|_| !off.is_empty()) else {
            return Ok(());
        };
        let hooks = off.iter().flat_map(|(ifindex, attachments)| {
            attachments.iter().map(|attachment| (*ifindex, attachment.hook))
        });
        let hooks: Vec<_> = hooks.collect();
        let (object, netns) = (&mut self.object, &inside.netns);
        let entered = netns.run(|| {
            let _hurry = Hurry::for_many(off.len());
            let mut progress = Progress::start("detached from", off.len());
            let turn = Turn::wait(SHORT)?;
            let mut outcome = Ok(());
            for (_, attachments) in off {
                for attachment in attachments {
                    outcome = outcome.and(object.detach_in(&turn, attachment));
                }
                progress.step();
            }
            outcome
        });
        for (ifindex, hook) in hooks {
            self.account(ifindex, hook);
        }
        Ok(entered.map_err(|error| SiteError::Enter(Arc::clone(&self.label), error))??)
    }
}
