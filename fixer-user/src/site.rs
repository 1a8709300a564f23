//! One network namespace under fixer's care: a loaded object, and where it is attached.

pub mod change;

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, RwLock},
};

use fixer_common::abi::Hook;

use change::Past;

use crate::{
    bpf::{
        attach::{AttachError, Attachment, Mode, Wish},
        counters::Row,
        load::{Config, LoadError, Object},
    },
    metrics::Snapshot,
    net::{
        links::Link,
        netns::{HOST, NetNs},
        qdisc,
        select::Selection,
    },
};

/// The names of a namespace's interfaces by their index, for everyone who shows them.
#[derive(Clone, Debug, Default)]
pub struct Names(Arc<RwLock<BTreeMap<u32, Arc<str>>>>);

impl Names {
    /// The name of an interface; its index, if it is not known.
    pub fn get(&self, ifindex: u32) -> Arc<str> {
        let names = self.0.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        names.get(&ifindex).cloned().unwrap_or_else(|| format!("if{ifindex}").into())
    }

    /// Remembers a name. Says whether it is a new one.
    fn set(&self, link: &Link) -> bool {
        let mut names = self.0.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        let before = names.insert(link.ifindex, link.name.as_str().into());
        before.as_deref() != Some(&*link.name)
    }
}

/// Where an interface is, as messages name it.
pub fn place(netns: &NetNs, interface: &str) -> String {
    match &**netns.label() {
        HOST => interface.to_owned(),
        netns => format!("{netns}/{interface}"),
    }
}

/// A namespace, the object loaded for it, and its attachments.
pub struct Site {
    /// The namespace.
    pub netns: NetNs,
    /// The programs and maps.
    pub object: Object,
    /// The names of its interfaces.
    pub names: Names,
    selection: Selection,
    hooks: &'static [Hook],
    wish: Wish,
    attached: BTreeMap<u32, Vec<Attachment>>,
    past: Past,
}

/// An interface was named whose packets no program of ours can read: it would take their IP header for
/// an Ethernet header, and change bytes that it knows nothing about.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot attach to {place}: it is of the kind '{kind}', whose packets have no Ethernet header to \
     find DHCP behind; name the bridge, a veth or a tap that carries the replies"
)]
pub struct NoEthernet {
    /// Where it is.
    pub place: String,
    /// Its kind.
    pub kind: String,
}

/// An interface could not be taken or given back.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// Its namespace could not be entered.
    #[error("cannot enter the network namespace '{0}': {1}")]
    Enter(Arc<str>, io::Error),
    /// It has no Ethernet header.
    #[error(transparent)]
    NoEthernet(#[from] NoEthernet),
    /// The programs were not attached or detached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The clsact qdisc that fixer had made could not be removed.
    #[error("cannot remove the clsact qdisc from {0}: {1}; remove it: tc qdisc del dev {0} clsact")]
    Qdisc(Arc<str>, io::Error),
}

impl Site {
    /// Loads an object for a namespace. Nothing is attached yet.
    pub fn new(
        netns: NetNs,
        config: &Config,
        selection: Selection,
        hooks: &'static [Hook],
        wish: Wish,
    ) -> Result<Self, LoadError> {
        let object = Object::load(config)?;
        let (names, attached, past) = Default::default();
        Ok(Self { netns, object, names, selection, hooks, wish, attached, past })
    }

    /// Attaches to an interface if it is selected and not attached yet. Says how it is attached if
    /// that is new.
    pub fn take(&mut self, link: &Link) -> Result<Option<Mode>, SiteError> {
        let is_new = self.names.set(link);
        // The kernel tells of an interface again with every change of its state: told once is enough.
        if let (true, Some(kind)) = (is_new, self.selection.mistakes(link)) {
            let place = place(&self.netns, &link.name);
            return Err(NoEthernet { place, kind: kind.to_owned() }.into());
        }
        let there = self.attached.get(&link.ifindex).map(Vec::as_slice).unwrap_or_default();
        let is_there = |hook: &Hook| there.iter().any(|attachment| attachment.hook == *hook);
        let lacking: Vec<Hook> =
            self.hooks.iter().copied().filter(|hook| !is_there(hook)).collect();
        if lacking.is_empty() || !self.selection.takes(link) {
            return Ok(None);
        }
        let Self { netns, object, wish, .. } = self;
        let mut made = Vec::new();
        let outcome = netns.run(|| {
            for hook in &lacking {
                made.push(object.attach(&link.name, *hook, *wish)?);
            }
            Ok(())
        });
        let mode = made.first().map(|attachment| attachment.mode);
        // Also what was half done is remembered, so that it is undone at the end.
        self.attached.entry(link.ifindex).or_default().extend(made);
        match outcome {
            Ok(Ok(())) => Ok(mode),
            Ok(Err(error)) => {
                self.give_back(link.ifindex, |attachment| lacking.contains(&attachment.hook))?;
                Err(SiteError::Attach(error))
            }
            Err(error) => Err(SiteError::Enter(Arc::clone(self.netns.label()), error)),
        }
    }

    /// Forgets an interface that is gone. Says whether it was attached.
    pub fn forget(&mut self, ifindex: u32) -> bool {
        let Some(attachments) = self.attached.remove(&ifindex) else {
            return false;
        };
        let Self { netns, object, .. } = self;
        // The kernel has detached already; this gives back what is left of it here.
        let _ = netns.run(|| attachments.into_iter().try_for_each(|gone| object.detach(gone)));
        true
    }

    /// Every interface that is attached, with the hook and how.
    pub fn attachments(&self) -> impl Iterator<Item = (u32, Hook, Mode)> + '_ {
        self.attached.iter().flat_map(|(ifindex, attachments)| {
            attachments.iter().map(|attachment| (*ifindex, attachment.hook, attachment.mode))
        })
    }

    /// The counters and attachments at this moment.
    pub fn snapshot(&self) -> Snapshot {
        // An interface that was made again has a new index, and is the same to whoever reads its name.
        let mut counters: BTreeMap<(Arc<str>, Hook), Row> = BTreeMap::new();
        for row in self.rows() {
            let key = (self.names.get(row.ifindex), row.hook);
            counters.entry(key).and_modify(|sum| sum.add(&row)).or_insert(row);
        }
        let attached: Vec<_> = self
            .attachments()
            .map(|(ifindex, hook, mode)| (self.names.get(ifindex), hook, mode.name()))
            .collect();
        let missing = self.selection.patterns.iter().filter(|pattern| pattern.is_plain());
        Snapshot {
            netns: Arc::clone(self.netns.label()),
            counters: counters.into_iter().map(|((name, _), row)| (name, row)).collect(),
            lost: self.lost(),
            missing: missing
                .map(|pattern| pattern.given().to_owned())
                .filter(|name| !attached.iter().any(|(attached, ..)| **attached == **name))
                .collect(),
            attached,
        }
    }

    /// Detaches from everything. What fails does not keep the rest from being detached; the first
    /// failure is told.
    pub fn close(&mut self) -> Result<(), SiteError> {
        let attached: Vec<u32> = self.attached.keys().copied().collect();
        let outcomes: Vec<_> =
            attached.into_iter().map(|ifindex| self.give_back(ifindex, |_| true)).collect();
        outcomes.into_iter().collect()
    }

    /// Detaches from an interface where `goes` says so.
    fn give_back(
        &mut self,
        ifindex: u32,
        goes: impl Fn(&Attachment) -> bool,
    ) -> Result<(), SiteError> {
        let Some(attachments) = self.attached.remove(&ifindex) else {
            return Ok(());
        };
        let (attachments, mut stays): (Vec<_>, Vec<_>) = attachments.into_iter().partition(goes);
        let made_qdisc = attachments.iter().any(|attachment| attachment.made_qdisc);
        if let Some(heir) = stays.first_mut() {
            // The qdisc is removed with the last that is on it.
            heir.made_qdisc |= made_qdisc;
            self.attached.insert(ifindex, stays);
        }
        let Self { netns, object, .. } = self;
        let enter = |error| SiteError::Enter(Arc::clone(netns.label()), error);
        let outcome = netns
            .run(|| attachments.into_iter().try_for_each(|attachment| object.detach(attachment)))
            .map_err(enter)?;
        if made_qdisc {
            qdisc::remove_unused_clsact(netns, ifindex)
                .map_err(|error| SiteError::Qdisc(self.names.get(ifindex), error))?;
        }
        Ok(outcome?)
    }
}
