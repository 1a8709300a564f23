//! Exchanges that are just over.
//!
//! A request that is flooded to many ports may be seen at some of them after its answer. Such a copy is no
//! new exchange, which nobody would answer.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use super::{Message, Who, open::Spot};

/// How long after an answer copies of what it answers may come.
const LINGER: Duration = Duration::from_secs(2);

/// How many exchanges are remembered: those that ended last.
const MOST: usize = 4096;

/// What is remembered, by client.
#[derive(Clone, Debug, Default)]
pub(super) struct Closed {
    past: HashMap<Who, Past>,
    /// When they ended, the latest last. A client that has ended another one since is in it twice.
    order: VecDeque<(Duration, Who)>,
}

#[derive(Clone, Debug)]
struct Past {
    ended: Duration,
    /// The client's transactions.
    xids: Vec<u32>,
    /// Where the client was seen first. What comes from there again is said again.
    seen_at: Spot,
}

impl Closed {
    /// An exchange ends with this message.
    pub(super) fn add(&mut self, message: &Message<'_>, xids: Vec<u32>, seen_at: Spot) {
        let (ended, who) = (message.event.monotonic, &message.who);
        self.past.insert(who.clone(), Past { ended, xids, seen_at });
        self.order.push_back((ended, who.clone()));
        while let Some((then, who)) = self.order.front()
            && (self.order.len() > MOST || ended.saturating_sub(*then) > LINGER)
        {
            if self.past.get(who).is_some_and(|past| past.ended == *then) {
                self.past.remove(who);
            }
            self.order.pop_front();
        }
    }

    /// How many are remembered, and in how many places.
    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize) {
        (self.past.len(), self.order.len())
    }

    /// Whether a client's message is one of an exchange that is over, seen once more elsewhere.
    pub(super) fn has(&self, message: &Message<'_>) -> bool {
        self.past.get(&message.who).is_some_and(|past| {
            past.xids.contains(&message.xid)
                && past.seen_at != message.spot()
                && message.event.monotonic.saturating_sub(past.ended) <= LINGER
        })
    }
}
