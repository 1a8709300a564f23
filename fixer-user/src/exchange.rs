//! The conversation: which client got an address from which server, and who was left without.
//!
//! A [`Tracker`] is told of every event and of the time, and tells which exchanges are over. It knows
//! nothing of the kernel or of a clock. What it remembers is bounded, whoever sends what: when there
//! is no room, the exchange that has been silent for longest is forgotten, and that is counted.
//!
//! An exchange belongs to a client in a network namespace; a reply belongs to it if its transaction
//! is one of the client's. Clients may change the transaction from message to message (smoltcp does),
//! so that alone does not tell exchanges apart. DHCPv6 is not followed.
//!
//! Silence says something only where everything is heard. When events were lost, an exchange that was
//! going on may still end in an answer; if it would end in silence, it is forgotten instead.

mod closed;
mod ending;
mod ledger;
mod messages;
mod open;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;

use self::{
    closed::Closed,
    ending::Outcome::{Declined, Informed, Lease, Nak, Released},
    messages::Word,
    open::{Open, Spot},
};
pub use self::{
    ending::{Ending, Exchange, Outcome, TABLE},
    ledger::{BOUNDS, Ledger, Place, Row, Seconds},
    messages::Messages,
};
use crate::event::{Dhcp, Event, Mac, ServerId, Xid};

/// How many exchanges are followed at once.
pub const MOST: usize = 4096;

/// How many messages that are an exchange by themselves are remembered, to be told once although they
/// are seen on several interfaces.
const RECENT: usize = 64;

/// In how many namespaces it is remembered when events were lost there.
const DOUBTED: usize = 4096;

/// The port of a DHCP server. What PXE's boot servers say on another one is no part of an exchange.
const SERVER_PORT: Option<u16> = Some(67);

/// Who talks to servers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Who {
    netns: Arc<str>,
    client: Client,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Client {
    Mac(Mac),
    /// One without an Ethernet address.
    Xid(u32),
}

/// A moment, on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For lengths of time: `CLOCK_MONOTONIC`.
    pub monotonic: Duration,
    /// For people.
    pub time: Timestamp,
}

/// What follows from an event or from the passing of time.
#[derive(Debug, Default, PartialEq)]
pub struct Told {
    /// The exchanges that are over.
    pub over: Vec<Ending>,
    /// The namespace of each exchange that was forgotten: to make room, or because events were lost and
    /// how it ended is not known.
    pub forgotten: Vec<Arc<str>>,
}

impl Told {
    /// An exchange is over in which nobody says anything any more.
    fn silent(&mut self, open: Option<Open>, now: Now) {
        match open {
            Some(open) if open.is_doubtful() => self.forgotten.push(Arc::clone(open.netns())),
            Some(open) => self.over.push(open.silent(now)),
            None => {}
        }
    }
}

/// A DHCP message in an event, as the conversation sees it.
struct Message<'a> {
    word: Word,
    xid: u32,
    who: Who,
    dhcp: &'a Dhcp,
    event: &'a Event,
}

impl<'a> Message<'a> {
    fn of(event: &'a Event) -> Option<Self> {
        let dhcp = event.dhcp.as_ref()?;
        let Xid::V4(xid) = dhcp.xid else { return None };
        let ports = [event.packet.sport, event.packet.dport];
        let word = Word::of(dhcp.message_type).filter(|_| ports.contains(&SERVER_PORT))?;
        let client = dhcp.client_mac.map_or(Client::Xid(xid), Client::Mac);
        let who = Who { netns: Arc::clone(&event.netns), client };
        Some(Self { word, xid, who, dhcp, event })
    }

    /// The server that the message names, or else the one that sent it.
    fn server(&self) -> Option<Ipv4Addr> {
        match (&self.dhcp.server_id, self.event.packet.src) {
            (Some(ServerId::Address(address)), _) => Some(*address),
            (_, Some(IpAddr::V4(address))) if !self.word.is_clients() => Some(address),
            _ => None,
        }
    }

    fn your_ip(&self) -> Option<Ipv4Addr> {
        match self.dhcp.your_ip {
            Some(IpAddr::V4(address)) => Some(address),
            _ => None,
        }
    }

    fn spot(&self) -> Spot {
        (self.event.ifindex, self.event.hook)
    }

    fn is_pxe(&self) -> bool {
        self.dhcp.vendor_class.as_ref().is_some_and(|class| class.starts_with("PXEClient"))
    }

    fn now(&self) -> Now {
        Now { monotonic: self.event.monotonic, time: self.event.time }
    }
}

/// Follows exchanges.
#[derive(Clone, Debug)]
pub struct Tracker {
    /// After how long a silence an exchange is over.
    patience: Duration,
    /// The exchange that each client is in.
    open: HashMap<Who, Open>,
    /// Who they are in the order in which they were heard of, the latest last.
    turns: BTreeMap<u64, Who>,
    turn: u64,
    /// What was told of lately, of the messages that are an exchange by themselves.
    recent: VecDeque<(Who, u32)>,
    /// What was answered lately.
    closed: Closed,
    /// Until when events of a namespace were lost: `CLOCK_MONOTONIC`.
    doubted: HashMap<Arc<str>, Duration>,
}

impl Tracker {
    /// Nothing is followed yet. An exchange that is silent for `patience` is over. A client that keeps
    /// trying is told of after twice as long.
    pub fn new(patience: Duration) -> Self {
        let (open, turns, turn, recent, closed, doubted) = Default::default();
        Self { patience, open, turns, turn, recent, closed, doubted }
    }

    /// How many exchanges are followed at the moment.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Those that go on, the one that was heard of last first: each as it would be told if nothing more
    /// came.
    pub fn going_on(&self, now: Now) -> impl Iterator<Item = Ending> {
        let open = self.turns.values().rev().filter_map(|who| self.open.get(who));
        open.map(move |open| open.clone().silent(now))
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::new(self.patience);
    }

    /// An event was seen.
    pub fn see(&mut self, event: &Event) -> Told {
        let mut told = Told::default();
        let Some(message) = Message::of(event) else { return told };
        match message.word {
            Word::Discover | Word::Request | Word::Inform => self.client(&message, &mut told),
            Word::Offer => self.with(&message, |open| open.offered(&message)),
            Word::Ack if self.is_about_settings(&message) => {
                self.answer(&message, Informed, &mut told);
            }
            Word::Ack => self.answer(&message, Lease, &mut told),
            Word::Nak => self.answer(&message, Nak, &mut told),
            Word::Decline => self.alone(&message, Declined, &mut told),
            Word::Release => self.alone(&message, Released, &mut told),
        }
        told
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Now) -> Told {
        let mut told = Told::default();
        while let Some((_, who)) = self.turns.first_key_value() {
            let who = who.clone();
            let silent = self.open.get(&who).map(|open| now.monotonic.saturating_sub(open.heard));
            if silent.is_some_and(|silent| silent < self.patience) {
                break;
            }
            told.silent(self.close(&who), now);
        }
        told
    }

    /// Events of a namespace were lost at some time before this moment on `CLOCK_MONOTONIC`.
    pub fn doubt(&mut self, netns: &Arc<str>, until: Duration) {
        for open in self.open.values_mut().filter(|open| open.netns() == netns) {
            open.doubt();
        }
        // Namespaces may get new names for ever.
        if self.doubted.len() >= DOUBTED {
            self.doubted.clear();
        }
        self.doubted.insert(Arc::clone(netns), until);
    }

    /// Whether events that were lost may have come after this one.
    fn is_doubtful(&self, event: &Event) -> bool {
        self.doubted.get(&event.netns).is_some_and(|until| event.monotonic <= *until)
    }

    /// The client says something: again, or for the first time.
    fn client(&mut self, message: &Message<'_>, told: &mut Told) {
        let open = self.open.get(&message.who);
        if !open.is_some_and(|open| open.has(message.xid)) && self.closed.has(message) {
            return;
        }
        let is_doubtful = self.is_doubtful(message.event);
        if let Some(open) = open {
            let is_endless = open.is_endless(message, self.patience);
            // From here on everything is heard again.
            let is_clear = open.is_doubtful() && open.is_repeated_by(message) && !is_doubtful;
            if open.goes_on(message.word) && !is_endless && !is_clear {
                return self.with(message, |open| open.said(message));
            }
            if message.word == Word::Inform && !is_endless && !is_clear {
                return;
            }
            // The client has given it up and starts over, or has tried for long enough.
            told.silent(self.close(&message.who), message.now());
        }
        if self.open.len() >= MOST
            && let Some((_, oldest)) = self.turns.first_key_value()
        {
            let oldest = oldest.clone();
            self.close(&oldest);
            told.forgotten.push(oldest.netns);
        }
        self.turn += 1;
        self.turns.insert(self.turn, message.who.clone());
        let mut open = Open::new(message, self.turn);
        if is_doubtful {
            open.doubt();
        }
        self.open.insert(message.who.clone(), open);
    }

    /// Acts on the exchange that a message belongs to, if there is one.
    fn with(&mut self, message: &Message<'_>, act: impl FnOnce(&mut Open)) {
        let Some(open) = self.open.get_mut(&message.who) else { return };
        if !message.word.is_clients() && !open.has(message.xid) {
            return;
        }
        act(open);
        self.turns.remove(&open.turn);
        self.turn += 1;
        open.turn = self.turn;
        self.turns.insert(self.turn, message.who.clone());
    }

    fn is_about_settings(&self, message: &Message<'_>) -> bool {
        self.open.get(&message.who).is_some_and(|open| open.first == Word::Inform)
    }

    /// A server has the last word.
    fn answer(&mut self, message: &Message<'_>, outcome: Outcome, told: &mut Told) {
        if self.open.get(&message.who).is_some_and(|open| open.has(message.xid))
            && let Some(open) = self.close(&message.who)
        {
            let (xids, seen_at) = open.traces();
            self.closed.add(message, xids, seen_at);
            told.over.push(open.answered(message, outcome));
        }
    }

    /// A message that nobody answers.
    fn alone(&mut self, message: &Message<'_>, outcome: Outcome, told: &mut Told) {
        let key = (message.who.clone(), message.xid);
        if self.recent.contains(&key) {
            return;
        }
        self.recent.truncate(RECENT - 1);
        self.recent.push_front(key);
        told.over.push(Open::new(message, 0).answered(message, outcome));
    }

    fn close(&mut self, who: &Who) -> Option<Open> {
        let open = self.open.remove(who);
        match &open {
            Some(open) => self.turns.remove(&open.turn),
            None => None,
        };
        open
    }
}

#[cfg(test)]
mod tests;
