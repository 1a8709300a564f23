//! Which events a watcher shows, and the names of the interfaces in them.

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, PoisonError, RwLock},
};

use bytes::Bytes;
use fixer_common::abi::Hook;
use nix::time::{ClockId, clock_gettime};

use super::counted::Events;
use crate::{
    event::Sample,
    names::Names,
    net::{
        links::{Change, Changes, Link},
        select::Selection,
    },
};

/// The interfaces of a namespace, and which of them are shown. Shared by all clones.
#[derive(Clone)]
pub(super) struct View {
    pub(super) names: Names,
    selection: Option<Selection>,
    selected: Arc<RwLock<BTreeSet<u32>>>,
    hooks: &'static [Hook],
    /// The events that were shown.
    pub(super) shown: Events,
    /// When it began, in nanoseconds of `CLOCK_MONOTONIC`.
    began: u64,
}

impl View {
    pub(super) fn new(
        selection: Option<Selection>,
        hooks: &'static [Hook],
        links: Vec<Link>,
    ) -> io::Result<Self> {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
        let began = now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64;
        let (names, selected, shown) = Default::default();
        let view = Self { names, selection, selected, hooks, shown, began };
        view.change(Change::All(links));
        Ok(view)
    }

    /// Follows what happens to the interfaces, for ever.
    pub(super) async fn follow(self, mut changes: Changes) {
        while let Ok(batch) = changes.next().await {
            batch.into_iter().for_each(|change| self.change(change));
        }
    }

    fn change(&self, change: Change) {
        match change {
            Change::Present(link) => {
                self.names.set(link.ifindex, &link.name);
                if let Some(selection) = &self.selection {
                    let mut selected =
                        self.selected.write().unwrap_or_else(PoisonError::into_inner);
                    if selection.means(&link) {
                        selected.insert(link.ifindex);
                    } else {
                        selected.remove(&link.ifindex);
                    }
                }
            }
            // Its events, and what it counted, may be on their way yet.
            Change::Gone(ifindex) => self.names.forget(ifindex),
            Change::All(links) => {
                links.into_iter().for_each(|link| self.change(Change::Present(link)));
            }
        }
    }

    /// Whether a hook is one of those that are shown.
    pub(super) fn is_shown(&self, ifindex: u32, hook: Hook) -> bool {
        let is_selected =
            || self.selected.read().unwrap_or_else(PoisonError::into_inner).contains(&ifindex);
        self.hooks.contains(&hook) && (self.selection.is_none() || is_selected())
    }

    /// Whether an event is shown, and counts it: those that waited in the ring buffer for nobody are not. One that
    /// cannot be read is handed on to who says so.
    pub(super) fn shows(&self, sample: &Bytes) -> bool {
        let Ok(sample) = Sample::parse(sample.clone()) else { return true };
        let is_shown = sample.time >= self.began && self.is_shown(sample.ifindex, sample.hook);
        if is_shown {
            self.shown.saw(&sample);
        }
        is_shown
    }
}
