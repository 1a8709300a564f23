//! One network namespace under fixer's care: a loaded object, and where it is attached.

mod batch;
pub mod change;
pub mod news;
pub mod standing;

use std::{
    collections::{BTreeMap, BTreeSet},
    io, mem,
    sync::Arc,
};

use fixer_common::abi::Hook;

use batch::{Failures, Plan};
use change::Replaced;

use crate::{
    bpf::{
        attach::{Attachment, Mode, Wish},
        load::{Config, Object},
    },
    cli::Select,
    cmd::checks::every_name_will_do,
    metrics::Snapshot,
    names::{Names, shown},
    net::{
        lifetime::Process,
        links::{self, Change, Changes, Link},
        netns::{HOST, Identity, NetNs, Spec},
        select::Selection,
    },
    tally::Tally,
};

pub use news::{News, NoEthernet, Outcome, SiteError};

/// Where an interface is, as messages name it: safe to show.
pub fn place(netns: &NetNs, interface: &str) -> String {
    place_in(netns.label(), interface)
}

fn place_in(netns: &str, interface: &str) -> String {
    let interface = shown(interface);
    match netns {
        HOST => interface,
        netns => format!("{netns}/{interface}"),
    }
}

/// A namespace, the object loaded for it, and its attachments.
///
/// The namespace may go and come back, the object stays: whoever reads the counters of a name sees
/// one namespace.
pub struct Site {
    /// The programs and maps.
    pub object: Object,
    /// The names of its interfaces.
    pub names: Names,
    label: Arc<str>,
    spec: Option<Spec>,
    inside: Option<Inside>,
    selection: Selection,
    hooks: &'static [Hook],
    wish: Wish,
    /// Every interface that there is.
    links: BTreeMap<u32, Link>,
    attached: BTreeMap<u32, Vec<Attachment>>,
    tally: Tally,
    replaced: Replaced,
    /// What could not be attached, and what was said about it.
    failures: Failures,
    /// Up to which interface it was looked whether what is attached still stands.
    looked: u32,
}

/// What keeps a namespace alive, and so is dropped when it is given up.
struct Inside {
    netns: NetNs,
    changes: Changes,
    /// The process that was named in place of the namespace.
    process: Option<Process>,
}

impl Inside {
    /// Looks around in a namespace. Must be called on a tokio runtime.
    async fn new(netns: NetNs) -> io::Result<(Self, Vec<Link>)> {
        let process = netns.spec().and_then(Spec::process).map(Process::open).transpose()?;
        let (links, changes) = links::follow(&netns).await?;
        Ok((Self { netns, changes, process }, links))
    }
}

/// Something to react to.
#[derive(Debug)]
pub enum Happening {
    /// Interfaces have changed.
    Changes(Vec<Change>),
    /// The namespace has ended, with the process that was named in its place.
    End,
    /// The namespace cannot be followed any more.
    Failed(io::Error),
}

impl Site {
    /// Loads the programs for a namespace, and lists the interfaces there. Nothing is attached yet.
    /// Must be called on a tokio runtime.
    pub async fn new(
        netns: NetNs,
        config: &Config,
        selection: Selection,
        hooks: &'static [Hook],
        wish: Wish,
    ) -> Result<(Self, Vec<Link>), SiteError> {
        let (label, spec) = (Arc::clone(netns.label()), netns.spec().cloned());
        let looked = Inside::new(netns).await;
        let (inside, found) = looked.map_err(|error| SiteError::List(Arc::clone(&label), error))?;
        let mut object = Object::load(config)?;
        for hook in hooks {
            object.classifier(*hook)?;
        }
        let (names, links, attached, tally, replaced, failures, looked) = Default::default();
        let inside = Some(inside);
        let site = Self {
            object,
            names,
            label,
            spec,
            inside,
            selection,
            hooks,
            wish,
            links,
            attached,
            tally,
            replaced,
            failures,
            looked,
        };
        Ok((site, found))
    }

    /// The namespace's label.
    pub fn label(&self) -> &Arc<str> {
        &self.label
    }

    /// Where it is, while it is there.
    pub fn netns(&self) -> Option<&NetNs> {
        self.inside.as_ref().map(|inside| &inside.netns)
    }

    /// What tells the namespace from others, while it is there.
    pub fn identity(&self) -> Option<Identity> {
        self.inside.as_ref().and_then(|inside| inside.netns.identity().ok())
    }

    /// How the user named it, if it is not our own.
    pub fn spec(&self) -> Option<&Spec> {
        self.spec.as_ref()
    }

    /// The namespace that now has the name, or lies at the path, that the user gave. `None`: there is
    /// none, or it is not found in this way.
    pub fn named(&self) -> Option<Identity> {
        self.spec.as_ref().and_then(Spec::present)
    }

    /// Whether the name or path may come to mean another namespace.
    pub fn is_named(&self) -> bool {
        self.spec.as_ref().is_some_and(|spec| spec.process().is_none())
    }

    /// Goes on counting where a site of this label ended.
    pub fn recall(&mut self, past: Snapshot) {
        for (name, row) in past.counters {
            self.tally.recall(name, row);
        }
        self.replaced.recall(past.lost);
    }

    /// Waits for something to react to. Nothing is lost if the waiting is given up.
    pub async fn happening(&mut self) -> Happening {
        let Some(Inside { changes, process, .. }) = &mut self.inside else {
            return std::future::pending().await;
        };
        let end = async {
            match process {
                Some(process) => process.end().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changes = changes.next() => match changes {
                Ok(changes) => Happening::Changes(changes),
                Err(error) => Happening::Failed(error),
            },
            _ = end => Happening::End,
        }
    }

    /// Enters the namespace that has the name now.
    pub async fn enter(&mut self) -> Result<Vec<Outcome>, SiteError> {
        let Some(spec) = &self.spec else { return Ok(Vec::new()) };
        let failed = |error| SiteError::List(Arc::clone(&self.label), error);
        let netns = NetNs::open(spec).map_err(|error| failed(io::Error::other(error)))?;
        let (inside, found) = Inside::new(netns).await.map_err(failed)?;
        self.inside = Some(inside);
        Ok(self.follow(vec![Change::All(found)]))
    }

    /// Detaches from everything and lets go of the namespace, so that it can end.
    pub fn leave(&mut self) -> Result<(), SiteError> {
        let outcome = self.close();
        self.object.unclaim();
        for ifindex in mem::take(&mut self.links).into_keys() {
            self.names.forget(ifindex);
        }
        self.inside = None;
        outcome
    }

    /// Reacts to what happened to interfaces: first all of it is read, and then all is done at once
    /// that is still to be done.
    pub fn follow(&mut self, changes: Vec<Change>) -> Vec<Outcome> {
        let mut plan = Plan::default();
        for change in changes {
            match change {
                Change::Present(link) => self.present(link, &mut plan),
                Change::Gone(ifindex) => self.gone(ifindex, &mut plan),
                Change::All(links) => {
                    let there: BTreeSet<u32> = links.iter().map(|link| link.ifindex).collect();
                    let known = self.links.keys().copied();
                    let gone: Vec<_> = known.filter(|known| !there.contains(known)).collect();
                    gone.into_iter().for_each(|ifindex| self.gone(ifindex, &mut plan));
                    links.into_iter().for_each(|link| self.present(link, &mut plan));
                }
            }
        }
        self.carry_out(plan)
    }

    fn present(&mut self, link: Link, plan: &mut Plan) {
        let before = self.links.insert(link.ifindex, link.clone());
        let is_attached = self.attached.contains_key(&link.ifindex);
        let is_whole = self.lacking(link.ifindex).is_empty();
        if before.as_ref().is_none_or(|before| before.name != link.name) {
            if is_attached && let Some(before) = &before {
                self.settle(link.ifindex, &shown(&before.name));
                let from = self.place(&before.name);
                plan.outcomes.push(Ok(News::Renamed { from, to: shown(&link.name) }));
            }
            self.names.set(link.ifindex, &link.name);
        }
        // The kernel tells of an interface again with every change of its state: told once is enough.
        let is_told = before
            .as_ref()
            .is_some_and(|before| (&before.name, &before.header) == (&link.name, &link.header));
        if let (false, Some(kind)) = (is_told, self.selection.mistakes(&link)) {
            let (place, kind) = (self.place(&link.name), kind.to_owned());
            plan.outcomes.push(Err(NoEthernet { place, kind }.into()));
        }
        let ifindex = link.ifindex;
        if self.selection.takes(&link) {
            plan.leave.remove(&ifindex);
            if !is_whole {
                plan.take.insert(ifindex, link);
            }
        } else {
            plan.take.remove(&ifindex);
            if is_attached {
                plan.leave.insert(ifindex, link);
            }
        }
    }

    fn gone(&mut self, ifindex: u32, plan: &mut Plan) {
        self.links.remove(&ifindex);
        self.names.forget(ifindex);
        self.failures.forget(ifindex);
        plan.take.remove(&ifindex);
        plan.leave.remove(&ifindex);
        if let Some(attachments) = self.attached.remove(&ifindex) {
            plan.off.push((ifindex, attachments));
            let place = self.place(&self.names.get(ifindex));
            plan.outcomes.push(Ok(News::Gone { place }));
        }
    }

    fn carry_out(&mut self, Plan { take, leave, mut off, mut outcomes }: Plan) -> Vec<Outcome> {
        for (ifindex, link) in leave {
            if let Some(attachments) = self.attached.remove(&ifindex) {
                off.push((ifindex, attachments));
                outcomes.push(Ok(News::left(self.place(&link.name), &link)));
            }
        }
        outcomes.extend(self.detach(off).err().map(Err));
        outcomes.extend(self.attach(take));
        outcomes
    }

    /// Every interface that is attached, with the hook and how.
    pub fn attachments(&self) -> impl Iterator<Item = (u32, Hook, Mode)> + '_ {
        self.attached.iter().flat_map(|(ifindex, attachments)| {
            attachments.iter().map(|attachment| (*ifindex, attachment.hook, attachment.mode))
        })
    }

    /// The hooks of an interface at which there should be a program and is none.
    fn lacking(&self, ifindex: u32) -> Vec<Hook> {
        let there = self.attached.get(&ifindex).map(Vec::as_slice).unwrap_or_default();
        let is_there = |hook: &Hook| there.iter().any(|attachment| attachment.hook == *hook);
        self.hooks.iter().copied().filter(|hook| !is_there(hook)).collect()
    }

    /// Whether what a user selects can be had among the interfaces that are there now.
    pub fn check(&self, select: &Select) -> anyhow::Result<()> {
        let Some(inside) = &self.inside else { return Ok(()) };
        let links: Vec<_> = self.links.values().cloned().collect();
        every_name_will_do(select, &inside.netns, &links)
    }

    /// The counters and attachments at this moment.
    pub fn snapshot(&self) -> Snapshot {
        let attached: Vec<_> = self
            .attachments()
            .map(|(ifindex, hook, mode)| (self.names.get(ifindex), hook, mode.name()))
            .collect();
        let takes = |link: &&Link| self.selection.takes(link);
        let taken = self.links.values().filter(takes).map(|link| link.name.as_str());
        let missing = self.selection.missing(taken);
        let lacking = self.links.values().filter(|link| self.lacks(link));
        Snapshot {
            netns: Arc::clone(&self.label),
            counters: self.tally.with(self.rows(), &self.names),
            lost: self.lost(),
            missing: missing.map(shown).collect(),
            lacking: lacking.map(|link| self.names.get(link.ifindex)).collect(),
            attached,
        }
    }

    /// Whether an interface is selected and not attached as it should be.
    fn lacks(&self, link: &Link) -> bool {
        self.selection.takes(link) && !self.lacking(link.ifindex).is_empty()
    }

    /// Detaches from everything. What fails does not keep the rest from being detached; the first
    /// failure is told.
    pub fn close(&mut self) -> Result<(), SiteError> {
        let all = mem::take(&mut self.attached);
        self.detach(all.into_iter().collect())
    }

    /// Where one of its interfaces is, as messages name it.
    pub fn place(&self, interface: &str) -> String {
        place_in(&self.label, interface)
    }
}
