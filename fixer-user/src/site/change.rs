//! A site that is told to do something else, while its interfaces stay attached.

use std::{
    iter, mem,
    sync::Arc,
    time::{Duration, Instant},
};

use fixer_common::abi::Hook;

use super::{Outcome, Site, SiteError};
use crate::{
    bpf::{
        counters::{Generation, Row},
        load::Object,
    },
    net::{
        links::Change,
        select::Selection,
        turn::{SHORT, Turn},
    },
};

/// How long a program that was replaced may still be at work on a packet, at the very most.
pub const LINGER: Duration = Duration::from_secs(1);

/// The programs that were replaced, for as long as they may still be counting.
#[derive(Default)]
pub(super) struct Replaced {
    /// Which programs are the present ones.
    present: Generation,
    /// Those before them, and since when they have been replaced.
    leaving: Vec<(Instant, Generation, Object)>,
    /// The events that were lost by those that are gone.
    lost: u64,
}

impl Replaced {
    /// Adds events that were lost before all this.
    pub(super) fn recall(&mut self, lost: u64) {
        self.lost += lost;
    }
}

impl Site {
    /// From now on selects these interfaces and hooks: gives back what is not selected any more, puts
    /// the programs of `object`, if there is one, in the place of those that stay, and takes what is
    /// selected anew.
    pub fn change(
        &mut self,
        selection: Selection,
        hooks: &'static [Hook],
        object: Option<Object>,
    ) -> Vec<Outcome> {
        (self.selection, self.hooks) = (selection, hooks);
        let mut outcomes = Vec::new();
        let mut off = Vec::new();
        for (ifindex, attachments) in &mut self.attached {
            let goes = attachments.extract_if(.., |attachment| !hooks.contains(&attachment.hook));
            off.push((*ifindex, goes.collect()));
        }
        self.attached.retain(|_, attachments| !attachments.is_empty());
        outcomes.extend(self.detach(off).err().map(Err));
        if let Some(object) = object {
            outcomes.extend(self.replace(object).into_iter().map(Err));
        }
        let links = self.links.values().cloned().collect();
        outcomes.extend(self.follow(vec![Change::All(links)]));
        outcomes
    }

    /// What cannot be replaced is taken off, and is attached afresh with what is selected anew.
    fn replace(&mut self, object: Object) -> Vec<SiteError> {
        let mut old = mem::replace(&mut self.object, object);
        let mut errors = Vec::new();
        if let Some(inside) = &self.inside {
            let (attached, new) = (&mut self.attached, &mut self.object);
            let outcome = inside.netns.run(|| {
                let turn = Turn::wait(SHORT)?;
                for attachments in attached.values_mut() {
                    for attachment in mem::take(attachments) {
                        match new.replace(&turn, &mut old, attachment) {
                            Ok(attachment) => attachments.push(attachment),
                            Err(error) => errors.push(error.into()),
                        }
                    }
                }
                Ok(())
            });
            if let Err(error) = outcome.flatten() {
                mem::swap(&mut self.object, &mut old);
                return vec![SiteError::Enter(Arc::clone(&self.label), error)];
            }
        }
        self.attached.retain(|_, attachments| !attachments.is_empty());
        self.replaced.leaving.push((Instant::now(), self.replaced.present, old));
        self.replaced.present = self.replaced.present.next();
        errors
    }

    /// Lets go of programs that were replaced and have come to their end. What they counted stays.
    pub fn let_go(&mut self) {
        let is_over = |(since, ..): &mut (Instant, Generation, Object)| since.elapsed() > LINGER;
        for (_, generation, object) in self.replaced.leaving.extract_if(.., is_over) {
            self.replaced.lost += object.lost().unwrap_or_default();
            for row in object.counters().unwrap_or_default() {
                self.tally.end(self.names.get(row.ifindex), generation, row);
            }
        }
    }

    /// What the maps of these programs, and of those that they replaced, hold now.
    pub(super) fn rows(&self) -> impl Iterator<Item = (Generation, Row)> + '_ {
        self.objects().flat_map(|(generation, object)| {
            let rows = object.counters().unwrap_or_default().into_iter();
            rows.map(move |row| (generation, row))
        })
    }

    /// How many events found the ring buffer full.
    pub fn lost(&self) -> u64 {
        let lost = self.objects().map(|(_, object)| object.lost().unwrap_or_default());
        self.replaced.lost + lost.sum::<u64>()
    }

    fn objects(&self) -> impl Iterator<Item = (Generation, &Object)> + '_ {
        let leaving = self.replaced.leaving.iter();
        leaving
            .map(|(_, generation, object)| (*generation, object))
            .chain(iter::once((self.replaced.present, &self.object)))
    }

    /// An interface that is called otherwise from now on counts on.
    pub(super) fn settle(&mut self, ifindex: u32, name: &str) {
        let counted = |hook| {
            self.objects().filter_map(move |(generation, object)| {
                Some((generation, object.counted(ifindex, hook).ok()??))
            })
        };
        let rows: Vec<_> = HOOKS.into_iter().flat_map(counted).collect();
        for (generation, row) in rows {
            self.tally.rename(name.into(), generation, row);
        }
    }

    /// A hook that is not attached any more counts no more.
    pub(super) fn account(&mut self, ifindex: u32, hook: Hook) {
        let Replaced { present, leaving, .. } = &mut self.replaced;
        let leaving = leaving.iter_mut().map(|(_, generation, object)| (*generation, object));
        for (generation, object) in leaving.chain(iter::once((*present, &mut self.object))) {
            if let Ok(Some(row)) = object.take_counted(ifindex, hook) {
                self.tally.end(self.names.get(ifindex), generation, row);
            }
        }
    }
}

const HOOKS: [Hook; 2] = [Hook::Egress, Hook::Ingress];
