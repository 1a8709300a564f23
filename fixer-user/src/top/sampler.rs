//! Looks at the kernel: rarely at what is attached, often at what it has counted.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use fixer_common::abi;
use jiff::Timestamp;

use super::{
    ears::Speaker,
    model::{Counts, Place, Reading, Sample},
};
use crate::{
    bpf::{
        counters::Counters,
        pin::Pins,
        remedy::errno,
        resident::{Holder, Resident, residents},
    },
    cli::{Hooks, Select},
    cmd::checks,
    event::Clock,
    names::{Names, shown},
    net::netns::NetNs,
    share::Feed,
};

/// How long what is attached is believed to be the same, at least.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Looking at a thousand interfaces takes long: this much longer is the pause after it.
const REST: u32 = 20;

/// Takes samples of some namespaces.
pub struct Sampler {
    namespaces: Vec<NetNs>,
    select: Select,
    hooks: Hooks,
    look_again: Instant,
    /// What is attached, by the last look, and in which namespace.
    there: Vec<(NetNs, Resident)>,
    /// Who hands out events of that.
    speakers: Vec<Speaker>,
    /// The names of the interfaces, by the labels of their namespaces.
    names: BTreeMap<Arc<str>, Names>,
    /// The maps of counters of what is attached, by id.
    counters: BTreeMap<u32, Counters>,
}

impl Sampler {
    /// A sampler of what is selected in these namespaces.
    pub fn new(namespaces: Vec<NetNs>, select: Select, hooks: Hooks) -> Self {
        let (there, speakers, names, counters) = Default::default();
        let look_again = Instant::now();
        Self { namespaces, select, hooks, look_again, there, speakers, names, counters }
    }

    /// What there is now.
    pub fn sample(&mut self) -> Result<Sample> {
        let begun = Instant::now();
        if begun >= self.look_again {
            self.look()?;
            self.look_again = Instant::now() + LOOK_EVERY.max(begun.elapsed() * REST);
        }
        let mut counted = BTreeMap::new();
        for (id, counters) in &self.counters {
            let rows = counters.rows().context("cannot read the counters")?;
            counted.extend(rows.into_iter().map(|row| ((*id, row.ifindex, row.hook), row)));
        }
        let mut readings = Vec::new();
        for (netns, there) in &self.there {
            let row = there.counters.and_then(|id| counted.get(&(id, there.ifindex, there.hook)));
            let mut counts = Counts::default();
            for (verdict, count) in row.iter().flat_map(|row| row.counts()) {
                counts[verdict as usize] = count;
            }
            readings.push(reading(netns, there, counts));
        }
        let at = Clock::monotonic().context("cannot read the clock")?;
        Ok(Sample { time: Timestamp::now(), at, readings, speakers: self.speakers.clone() })
    }

    /// Finds who hands out events of what is attached, and the names in them.
    fn find_speakers(&mut self) {
        self.speakers.clear();
        for (netns, there) in &self.there {
            let names = self.names.entry(Arc::clone(netns.label())).or_default();
            names.set(there.ifindex, &there.interface);
            let Some(feed) = feed(netns, there) else { continue };
            let is_it = |it: &Speaker| it.netns.label() == netns.label() && it.feed == feed;
            if !self.speakers.iter().any(is_it) {
                self.speakers.push(Speaker { netns: netns.clone(), feed, names: names.clone() });
            }
        }
    }

    /// Looks at what is attached. Maps that are open already stay open.
    fn look(&mut self) -> Result<()> {
        self.there.clear();
        for netns in &self.namespaces {
            let look = |links: &[(u32, &str)]| residents(links.iter().copied());
            let found = checks::attached(&self.select, self.hooks, netns, look)?;
            self.there.extend(found.into_iter().map(|there| (netns.clone(), there)));
        }
        self.find_speakers();
        let mut open = std::mem::take(&mut self.counters);
        for id in self.there.iter().filter_map(|(_, there)| there.counters) {
            if self.counters.contains_key(&id) {
                continue;
            }
            let counters = match open.remove(&id).map_or_else(|| Counters::open(id), Ok) {
                // Its last holder has gone since it was found.
                Err(error) if errno(&error) == Some(libc::ENOENT) => continue,
                counters => counters.context("cannot open the counters")?,
            };
            self.counters.insert(id, counters);
        }
        Ok(())
    }
}

/// Who hands out the events of a program, if anybody does.
fn feed(netns: &NetNs, there: &Resident) -> Option<Feed> {
    match there.holder {
        Holder::Run(pid) => Some(Feed::Run(pid)),
        Holder::Attach(abi::VERSION) => {
            Pins::of(netns).and_then(|pins| pins.event_maps()).ok().map(Feed::Pins)
        }
        Holder::Attach(_) | Holder::Elsewhere | Holder::Unknown | Holder::Nobody => None,
    }
}

fn reading(netns: &NetNs, there: &Resident, counts: Counts) -> Reading {
    let held_by = match there.holder {
        // There is less room than in the table of `fixer status`.
        Holder::Run(pid) => format!("run {pid}"),
        holder => holder.name().to_owned(),
    };
    let place = Place {
        netns: netns.label().clone(),
        interface: shown(&there.interface),
        ifindex: there.ifindex,
        hook: there.hook,
    };
    Reading { place, mode: there.mode().name(), held_by, counts }
}
