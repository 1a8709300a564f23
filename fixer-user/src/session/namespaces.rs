//! Which namespaces a session is in, as they are named and deleted.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use anyhow::{Context as _, Result};

use super::{Session, member::Member, plan::Plan, tell};
use crate::{
    cmd::checks,
    metrics::Snapshot,
    net::{
        links::Link,
        netns::{NetNs, Spec},
        select::Pattern,
    },
    say::say,
    site::Site,
};

/// What was counted in namespaces that were taken by a glob and are gone: made again, one goes on
/// counting where it ended.
#[derive(Default)]
pub(super) struct Past(VecDeque<Snapshot>);

/// How many counters of such namespaces are kept: those of the latest.
const REMEMBERED: usize = 4096;

impl Past {
    fn add(&mut self, gone: Snapshot) {
        if gone.counters.is_empty() && gone.lost == 0 {
            return;
        }
        self.0.push_back(gone);
        let size = |gone: &Snapshot| gone.counters.len().max(1);
        while self.0.iter().map(size).sum::<usize>() > REMEMBERED {
            self.0.pop_front();
        }
    }

    fn take(&mut self, label: &Arc<str>) -> Option<Snapshot> {
        let position = self.0.iter().position(|gone| gone.netns == *label)?;
        self.0.remove(position)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Snapshot> {
        self.0.iter()
    }
}

impl Session {
    /// Gives up namespaces that have lost their names, and enters those that have got them.
    pub(super) async fn look_for_namespaces(&mut self, plan: &Plan) {
        self.members.iter_mut().for_each(Member::follow_name);
        self.forget_gone();
        for number in 0..self.members.len() {
            let site = &self.members[number].site;
            let (named, present) = (site.named(), site.identity());
            // The same namespace under two names is one site.
            let is_taken = || self.members.iter().any(|member| member.site.identity() == named);
            if site.is_named() && present.is_none() && named.is_some() && !is_taken() {
                self.members[number].enter().await;
            }
        }
        self.take_matching(plan).await;
    }

    /// Forgets the namespaces that are gone and that nobody waits for, but not what was counted there.
    pub(super) fn forget_gone(&mut self) {
        let is_over = |member: &mut Member| !member.is_required && member.site.netns().is_none();
        for mut member in self.members.extract_if(.., is_over) {
            member.tick();
            self.past.add(member.snapshot());
            self.leaving.add(member.reader());
        }
    }

    /// Takes what the globs mean and is not taken yet. What cannot be is told once, and tried again.
    async fn take_matching(&mut self, plan: &Plan) {
        let matching = match checks::matching(plan.select()) {
            Ok(matching) => matching,
            Err(error) => return say(error),
        };
        let sites = || self.members.iter().map(|member| &member.site);
        let mut taken: BTreeSet<_> = sites().filter_map(Site::identity).collect();
        let waiting: Vec<_> = sites().filter_map(Site::spec).cloned().collect();
        let mut refused = BTreeMap::new();
        for spec in matching.into_iter().filter(|spec| !waiting.contains(spec)) {
            let Some(identity) = spec.present() else { continue };
            if taken.contains(&identity) {
                continue;
            }
            match self.take(plan, &spec).await {
                Ok(()) => drop(taken.insert(identity)),
                // It was deleted while we looked.
                Err(_) if spec.present().is_none() => {}
                Err(error) => {
                    let name = spec.given().to_owned();
                    let words = format!("cannot take the network namespace '{name}': {error:#}");
                    if self.refused.get(&name) != Some(&words) {
                        say(&words);
                    }
                    refused.insert(name, words);
                }
            }
        }
        self.refused = refused;
    }

    async fn take(&mut self, plan: &Plan, spec: &Spec) -> Result<()> {
        let (site, found) = plan.site(NetNs::open(spec)?).await?;
        self.begin(plan, site, found)
    }

    /// Goes on with one more site.
    pub(super) fn begin(&mut self, plan: &Plan, mut site: Site, found: Vec<Link>) -> Result<()> {
        if let Some(past) = self.past.take(site.label()) {
            site.recall(past);
        }
        let mut member = Member::new(site, plan);
        member.listen();
        let writer = self.writer.as_ref().context("nobody writes events any more")?;
        member.show(writer, plan.config().events, self.ledger.clone())?;
        say(format_args!("the network namespace '{}' is there", member.site.label()));
        tell(member.attach(found));
        member.tell_if_idle();
        self.members.push(member);
        Ok(())
    }

    /// Says which globs find nothing.
    pub(super) fn tell_idle_globs(&self, plan: &Plan) {
        let names: Vec<_> =
            self.members.iter().filter_map(|member| member.site.spec()?.name()).collect();
        let is_idle = |glob: &&Pattern| !names.iter().any(|name| glob.is_match(name));
        let idle: Vec<_> = plan.select().globs().filter(is_idle).collect();
        if !idle.is_empty() {
            let globs = checks::quoted(idle.into_iter());
            say(format_args!("no network namespace matches {globs} yet; waiting"));
        }
    }
}
