//! A site that is told to do something else, while its interfaces stay attached.

use std::{
    collections::BTreeMap,
    mem,
    time::{Duration, Instant},
};

use fixer_common::abi::Hook;

use super::{Site, SiteError};
use crate::{
    bpf::{counters::Row, load::Object},
    net::{links::Link, select::Selection},
};

/// How long a program that was replaced may still be at work on a packet, at the very most.
pub const LINGER: Duration = Duration::from_secs(1);

/// What programs counted that were replaced since.
#[derive(Default)]
pub(super) struct Past {
    rows: BTreeMap<(u32, Hook), Row>,
    lost: u64,
    /// Those that may still be counting, and since when they have been replaced.
    leaving: Vec<(Instant, Object)>,
}

/// What a change did.
#[derive(Debug, Default)]
pub struct Changed {
    /// The interfaces that were given back, by index.
    pub given_back: Vec<u32>,
    /// What went wrong.
    pub errors: Vec<SiteError>,
}

impl Site {
    /// From now on selects these interfaces and hooks: gives back what is not selected any more, and
    /// puts the programs of `object`, if there is one, in the place of those that stay. What is
    /// selected anew is for [`take`](Self::take).
    pub fn change(
        &mut self,
        selection: Selection,
        hooks: &'static [Hook],
        object: Option<Object>,
        links: &[Link],
    ) -> Changed {
        self.selection = selection;
        self.hooks = hooks;
        let mut changed = Changed::default();
        for ifindex in self.attached.keys().copied().collect::<Vec<_>>() {
            let is_link = |link: &&Link| link.ifindex == ifindex;
            // One that is gone just now is for whoever hears of it.
            let Some(link) = links.iter().find(is_link) else { continue };
            let takes = self.selection.takes(link);
            let outcome =
                self.give_back(ifindex, |attachment| !takes || !hooks.contains(&attachment.hook));
            changed.errors.extend(outcome.err());
            changed.given_back.extend((!takes).then_some(ifindex));
        }
        if let Some(object) = object {
            let errors = self.replace(object);
            changed.errors.extend(errors);
        }
        changed
    }

    fn replace(&mut self, object: Object) -> Vec<SiteError> {
        let Self { netns, attached, object: new, past, .. } = self;
        let mut old = mem::replace(new, object);
        let mut errors = Vec::new();
        let outcome = netns.run(|| {
            for attachments in attached.values_mut() {
                for attachment in mem::take(attachments) {
                    match new.replace(&mut old, attachment) {
                        Ok(attachment) => attachments.push(attachment),
                        Err(error) => errors.push(error.into()),
                    }
                }
            }
        });
        if let Err(error) = outcome {
            mem::swap(new, &mut old);
            return vec![SiteError::Enter(netns.label().clone(), error)];
        }
        attached.retain(|_, attachments| !attachments.is_empty());
        past.leaving.push((Instant::now(), old));
        errors
    }

    /// Lets go of programs that were replaced and have come to their end. What they counted stays.
    pub fn settle(&mut self) {
        let is_over = |(since, _): &mut (Instant, Object)| since.elapsed() > LINGER;
        for (_, object) in self.past.leaving.extract_if(.., is_over) {
            self.past.lost += object.lost().unwrap_or_default();
            for row in object.counters().unwrap_or_default() {
                let sum = self.past.rows.entry((row.ifindex, row.hook));
                sum.and_modify(|sum| sum.add(&row)).or_insert(row);
            }
        }
    }

    /// What was counted, by these programs and those before them.
    pub(super) fn rows(&self) -> impl Iterator<Item = Row> + '_ {
        let before = self.past.rows.values().copied();
        before.chain(self.objects().flat_map(|object| object.counters().unwrap_or_default()))
    }

    /// How many events found the ring buffer full.
    pub fn lost(&self) -> u64 {
        let lost = self.objects().map(|object| object.lost().unwrap_or_default());
        self.past.lost + lost.sum::<u64>()
    }

    fn objects(&self) -> impl Iterator<Item = &Object> + '_ {
        self.past.leaving.iter().map(|(_, object)| object).chain([&self.object])
    }
}
