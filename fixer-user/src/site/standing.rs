//! Looks whether what is attached still stands, and puts back what others took off.

use std::{collections::BTreeSet, mem};

use nix::net::if_::if_nametoindex;

use super::{News, Outcome, Site};

/// How much may be looked at in one go, in interfaces: a thousand are looked through within some seconds, and
/// nobody waits long for it.
const SOME: usize = 128;

/// As how many interfaces entering a namespace counts.
const ENTERING: usize = 4;

/// What may still be looked at in one go.
pub struct Budget(usize);

impl Default for Budget {
    fn default() -> Self {
        Self(SOME)
    }
}

impl Budget {
    /// Whether nothing may.
    pub fn is_spent(&self) -> bool {
        self.0 == 0
    }
}

impl Site {
    /// Looks at the next interfaces, and attaches again where somebody else took the programs off. Says
    /// whether it came to the last one.
    pub fn look(&mut self, budget: &mut Budget) -> (Vec<Outcome>, bool) {
        let next = self.attached.range(self.looked + 1..).map(|(ifindex, _)| *ifindex);
        let next: BTreeSet<u32> = next.take(budget.0).collect();
        let last = self.attached.last_key_value().map(|(ifindex, _)| *ifindex);
        let is_through = next.last().copied() == last || next.is_empty();
        // Behind the last one it begins again.
        self.looked = next.last().copied().filter(|_| !is_through).unwrap_or(0);
        if next.is_empty() {
            return (Vec::new(), true);
        }
        budget.0 = budget.0.saturating_sub(next.len() + ENTERING);
        (self.look_at(next), is_through)
    }

    fn look_at(&mut self, next: BTreeSet<u32>) -> Vec<Outcome> {
        let Some(inside) = &self.inside else { return Vec::new() };
        let (object, attached, links) = (&mut self.object, &self.attached, &self.links);
        let fallen = inside.netns.run(|| {
            let mut fallen = Vec::new();
            for ifindex in next {
                let is_there = || {
                    let link = links.get(&ifindex);
                    link.is_some_and(|link| if_nametoindex(&*link.name) == Ok(ifindex))
                };
                for attachment in attached.get(&ifindex).into_iter().flatten() {
                    // Of an interface that is gone, or was renamed, there is news on the way; and where
                    // nothing can be seen, nothing is known to have fallen.
                    if matches!(object.stands(ifindex, attachment), Ok(false)) && is_there() {
                        fallen.push((ifindex, attachment.hook));
                    }
                }
            }
            fallen
        });
        // A namespace that cannot be entered is told of by whoever has to.
        let fallen: BTreeSet<_> = fallen.unwrap_or_default().into_iter().collect();
        if fallen.is_empty() {
            return Vec::new();
        }
        let mut outcomes = Vec::new();
        for (ifindex, attachments) in mem::take(&mut self.attached) {
            let (lost, stands): (Vec<_>, Vec<_>) = attachments
                .into_iter()
                .partition(|attachment| fallen.contains(&(ifindex, attachment.hook)));
            if !lost.is_empty() {
                let hooks = lost.iter().map(|attachment| attachment.hook.name()).collect();
                let place = self.place(&self.names.get(ifindex));
                outcomes.push(Ok(News::Lost { place, hooks }));
            }
            lost.into_iter().for_each(|attachment| self.object.forget(attachment));
            if !stands.is_empty() {
                self.attached.insert(ifindex, stands);
            }
        }
        outcomes.extend(self.retry());
        outcomes
    }
}
