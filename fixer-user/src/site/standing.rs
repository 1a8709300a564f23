//! Looks whether what is attached still stands, and puts back what others took off.

use std::{collections::BTreeSet, mem};

use nix::net::if_::if_nametoindex;

use super::{News, Outcome, Site};

/// How many interfaces are looked at in one go: a thousand are looked through within some seconds, and
/// nobody else waits for it.
const SOME: usize = 128;

impl Site {
    /// Looks at the next interfaces, and attaches again where somebody else took the programs off.
    pub fn look(&mut self) -> Vec<Outcome> {
        let Some(inside) = &self.inside else { return Vec::new() };
        let next = self.attached.range(self.looked + 1..).map(|(ifindex, _)| *ifindex);
        let next: BTreeSet<u32> = next.take(SOME).collect();
        // Behind the last one it begins again.
        self.looked = next.last().copied().filter(|_| next.len() == SOME).unwrap_or(0);
        if next.is_empty() {
            return Vec::new();
        }
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
