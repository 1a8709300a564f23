//! The names of a namespace's interfaces by their index, for everyone who shows them.
//!
//! The name of an interface may be anything that its namespace's owner fancies, but for white space and
//! slashes. Whatever is shown of it, in a line, a table or a label, is what [`shown`] makes of it, so that it
//! is the same everywhere and no terminal obeys it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, PoisonError, RwLock},
};

use crate::event::printable;

/// An interface's name, safe to show.
pub fn shown(name: &str) -> String {
    printable(name.as_bytes())
}

/// How many interfaces that are gone keep their names, for events that are still on their way.
const REMEMBERED: usize = 1024;

/// The names, shared by all clones.
#[derive(Clone, Debug, Default)]
pub struct Names(Arc<RwLock<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    names: BTreeMap<u32, Arc<str>>,
    /// The interfaces that are gone, the latest last.
    gone: VecDeque<u32>,
}

impl Names {
    /// The name of an interface, safe to show; its index, if it is not known.
    pub fn get(&self, ifindex: u32) -> Arc<str> {
        let inner = self.0.read().unwrap_or_else(PoisonError::into_inner);
        inner.names.get(&ifindex).cloned().unwrap_or_else(|| format!("if{ifindex}").into())
    }

    /// Remembers a name.
    pub fn set(&self, ifindex: u32, name: &str) {
        let mut inner = self.0.write().unwrap_or_else(PoisonError::into_inner);
        inner.names.insert(ifindex, shown(name).into());
        inner.gone.retain(|gone| *gone != ifindex);
    }

    /// An interface is gone. Its name is known for some time yet.
    pub fn forget(&self, ifindex: u32) {
        let mut inner = self.0.write().unwrap_or_else(PoisonError::into_inner);
        inner.gone.push_back(ifindex);
        if inner.gone.len() > REMEMBERED
            && let Some(oldest) = inner.gone.pop_front()
        {
            inner.names.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_the_latest_that_are_gone_are_kept() {
        let names = Names::default();
        let most = REMEMBERED as u32;
        for ifindex in 0..=most + 1 {
            names.set(ifindex, "tap0");
        }
        // The first comes back, and is none of those that are gone.
        names.forget(0);
        names.set(0, "tap1");
        (1..=most + 1).for_each(|ifindex| names.forget(ifindex));
        let known = |ifindex| names.get(ifindex).to_string();
        assert_eq!([known(0), known(1), known(2)], ["tap1", "if1", "tap0"]);
    }

    #[test]
    fn names_are_safe_to_show() {
        let names = Names::default();
        names.set(4, "br\x1b[31m");
        assert_eq!(*names.get(4), *"br\u{fffd}[31m");
        assert_eq!(shown(&names.get(4)), *names.get(4));
    }
}
