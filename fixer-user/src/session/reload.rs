//! Reading the configuration again, without a packet that passes unseen.
//!
//! All that can fail is tried first; until then, and if it does, everything stays as it was.

use std::collections::BTreeSet;

use anyhow::{Result, bail};

use super::{Session, plan::Plan};
use crate::{
    bpf::{
        load::Object,
        ring::{Ring, Wanted},
    },
    cli::{Cli, Verb},
    cmd::checks,
    config,
    net::{
        links::Link,
        named::Choice,
        netns::{Identity, NetNs, Spec},
    },
    say::say,
    service,
    site::Site,
};

/// One site's new programs, if it needs any, once everything that can fail has been done.
type Ready = Option<(Object, (Ring, Wanted))>;

impl Session {
    /// Reads the configuration again, and does as it says. If that cannot be, says why in a line, and
    /// all stays as it was.
    pub(super) async fn reload(&mut self, plan: &mut Plan) {
        service::reloading();
        match self.try_reload(plan).await {
            Ok(()) => say("the configuration was read again"),
            Err(error) => say(format_args!("the configuration stays as it was: {error:#}")),
        }
        service::ready(&self.status());
    }

    async fn try_reload(&mut self, plan: &mut Plan) -> Result<()> {
        let Cli { verb: Verb::Run(args), .. } = config::read(std::env::args_os().collect())? else {
            bail!("the command line is another verb's");
        };
        let next = plan.next(&args)?;
        let is_new = next.config() != plan.config();
        let mut ready = Vec::new();
        for member in &self.members {
            let stays = next.select().means(member.site.spec());
            ready.push(if stays { Some(renewed(&member.site, &next, is_new)?) } else { None });
        }
        let fresh = self.fresh(&next).await?;

        let changed = plan.changed(&args);
        if !changed.is_empty() {
            let names = changed.join(", ");
            say(format_args!("{names} cannot change while it runs: that needs a restart"));
        }
        *plan = next;
        self.ledger.follow(args.sees_exchanges());
        for (member, ready) in self.members.iter_mut().zip(ready) {
            match ready {
                Some(ready) => {
                    self.leaving.add(member.change(plan, ready, self.writer.as_ref()));
                }
                None => {
                    member.is_required = false;
                    if member.site.netns().is_some() {
                        member.leave("it is none of those that were selected");
                    }
                }
            }
        }
        self.forget_gone();
        for (site, found) in fresh {
            self.begin(plan, site, found)?;
        }
        self.look_for_namespaces(plan).await;
        self.tell_idle_globs(plan);
        Ok(())
    }

    /// Sites of the namespaces that were named just now, and have to be there.
    async fn fresh(&self, plan: &Plan) -> Result<Vec<(Site, Vec<Link>)>> {
        let sites = || self.members.iter().map(|member| &member.site);
        let known: Vec<_> = sites().filter_map(Site::spec).collect();
        let stays = |site: &&Site| plan.select().means(site.spec());
        let mut taken: BTreeSet<Identity> =
            sites().filter(stays).filter_map(Site::identity).collect();
        let mut fresh = Vec::new();
        for spec in plan.select().netns.iter().filter_map(one).filter(|spec| !known.contains(spec))
        {
            let netns = NetNs::open(spec)?;
            if !taken.insert(netns.identity()?) {
                continue;
            }
            let (site, found) = plan.site(netns.clone()).await?;
            checks::every_name_will_do(plan.select(), &netns, &found)?;
            fresh.push((site, found));
        }
        Ok(fresh)
    }
}

fn one(choice: &Choice) -> Option<&Spec> {
    match choice {
        Choice::One(spec) => Some(spec),
        Choice::Every(_) => None,
    }
}

/// The programs that a site needs for another plan.
fn renewed(site: &Site, plan: &Plan, is_new: bool) -> Result<Ready> {
    if plan.select().requires(site.spec()) {
        site.check(plan.select())?;
    }
    let load = || -> Result<_> {
        let mut object = Object::load(plan.config())?;
        for hook in plan.hooks() {
            object.classifier(*hook)?;
        }
        let ring = object.take_ring()?;
        let wanted = object.take_wanted()?;
        Ok((object, (ring, wanted)))
    };
    is_new.then(load).transpose()
}
