//! One exchange, as long as it goes on.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use fixer_common::abi::Hook;

use super::{
    Message, Now,
    ending::{Ending, Exchange, Outcome},
    messages::{Messages, Word},
};
use crate::event::{Mac, Xid};

/// How many servers and transactions of an exchange are remembered. Only a flood has more.
const MOST: usize = 8;

/// A hook of an interface, by its index.
pub(super) type Spot = (u32, Hook);

/// An exchange that goes on.
#[derive(Clone, Debug)]
pub(super) struct Open {
    /// When it was heard of last: `CLOCK_MONOTONIC`.
    pub(super) heard: Duration,
    /// Its place in the order in which exchanges were heard of.
    pub(super) turn: u64,
    /// The client's first message.
    pub(super) first: Word,
    began: Duration,
    netns: Arc<str>,
    interface: Arc<str>,
    /// Where the client was seen first. The same message may be seen elsewhere too, and is no
    /// repetition.
    seen_at: Spot,
    client_mac: Option<Mac>,
    /// The client's transactions, the latest last.
    xids: Vec<u32>,
    is_pxe: bool,
    /// Whether the client has asked for something, and not only for a server.
    has_asked: bool,
    discovers: u32,
    requests: u32,
    servers: Vec<Ipv4Addr>,
    boot_servers: Vec<Ipv4Addr>,
    /// Where each server was seen first.
    servers_at: Vec<(Option<Ipv4Addr>, Spot)>,
    messages: Messages,
    /// The first address that was offered.
    offered: Option<Ipv4Addr>,
    /// The server that the client asked.
    asked: Option<Ipv4Addr>,
    /// Whether some of what was said may have been lost, so that silence proves nothing.
    is_doubtful: bool,
}

impl Open {
    /// An exchange that begins with this message.
    pub(super) fn new(message: &Message<'_>, turn: u64) -> Self {
        let event = message.event;
        let mut open = Self {
            heard: event.monotonic,
            turn,
            first: message.word,
            began: event.monotonic,
            netns: Arc::clone(&event.netns),
            interface: Arc::clone(&event.interface),
            seen_at: message.spot(),
            client_mac: message.dhcp.client_mac,
            xids: Vec::new(),
            is_pxe: false,
            has_asked: false,
            discovers: 0,
            requests: 0,
            servers: Vec::new(),
            boot_servers: Vec::new(),
            servers_at: Vec::new(),
            messages: Messages::default(),
            offered: None,
            asked: None,
            is_doubtful: false,
        };
        open.said(message);
        open
    }

    /// Whether it goes on when the client says this.
    pub(super) fn goes_on(&self, word: Word) -> bool {
        match word {
            Word::Discover => self.first == Word::Discover && !self.has_asked,
            Word::Request => self.first != Word::Inform,
            word => self.first == word,
        }
    }

    /// Whether the client has asked the same for so long that this is told, and it asks anew.
    pub(super) fn is_endless(&self, message: &Message<'_>, patience: Duration) -> bool {
        self.is_repeated_by(message)
            && message.event.monotonic.saturating_sub(self.began) >= 2 * patience
    }

    /// Whether the client asks the same again.
    pub(super) fn is_repeated_by(&self, message: &Message<'_>) -> bool {
        (message.word == Word::Discover) != self.has_asked
    }

    /// Some of what was said may have been lost.
    pub(super) fn doubt(&mut self) {
        self.is_doubtful = true;
    }

    /// Whether some of what was said may have been lost.
    pub(super) fn is_doubtful(&self) -> bool {
        self.is_doubtful
    }

    /// The namespace that the client is in.
    pub(super) fn netns(&self) -> &Arc<str> {
        &self.netns
    }

    /// The client's transactions, and where it was seen first.
    pub(super) fn traces(&self) -> (Vec<u32>, Spot) {
        (self.xids.clone(), self.seen_at)
    }

    /// Whether the client used this transaction.
    pub(super) fn has(&self, xid: u32) -> bool {
        self.xids.contains(&xid)
    }

    /// The client says something.
    pub(super) fn said(&mut self, message: &Message<'_>) {
        self.hear(message);
        if !self.has(message.xid) {
            if self.xids.len() == MOST {
                self.xids.remove(0);
            }
            self.xids.push(message.xid);
        }
        self.is_pxe |= message.is_pxe();
        self.asked = message.server().or(self.asked);
        self.has_asked |= message.word != Word::Discover;
        if self.seen_at == message.spot() {
            self.messages.add(message.word);
            match message.word {
                Word::Discover => self.discovers = self.discovers.saturating_add(1),
                _ => self.requests = self.requests.saturating_add(1),
            }
        }
    }

    /// A server makes an offer. One without an address is about what to boot.
    pub(super) fn offered(&mut self, message: &Message<'_>) {
        self.hear(message);
        if self.is_first_sight(message) {
            self.messages.add(message.word);
        }
        self.offered = self.offered.or(message.your_ip());
        let servers = match message.your_ip() {
            Some(_) => &mut self.servers,
            None => &mut self.boot_servers,
        };
        if let Some(server) = message.server()
            && servers.len() < MOST
            && !servers.contains(&server)
        {
            servers.push(server);
        }
    }

    /// Whether a server's message is seen where the server was seen first, and not once more elsewhere.
    fn is_first_sight(&mut self, message: &Message<'_>) -> bool {
        let (server, here) = (message.server(), message.spot());
        match self.servers_at.iter().find(|(known, _)| *known == server) {
            Some((_, first)) => *first == here,
            None if self.servers_at.len() == MOST => false,
            None => {
                self.servers_at.push((server, here));
                true
            }
        }
    }

    fn hear(&mut self, message: &Message<'_>) {
        self.heard = self.heard.max(message.event.monotonic);
    }

    /// It is over: a server, or the client, has had the last word.
    pub(super) fn answered(mut self, message: &Message<'_>, outcome: Outcome) -> Ending {
        if !message.word.is_clients() {
            self.messages.add(message.word);
        }
        let your_ip = message.your_ip().filter(|_| outcome == Outcome::Lease);
        let server = message.server();
        self.ending(message.now(), outcome, server, your_ip)
    }

    /// It is over because nothing comes any more.
    pub(super) fn silent(self, now: Now) -> Ending {
        let outcome = if self.has_asked {
            Outcome::NoAck
        } else if self.servers.is_empty() {
            Outcome::NoOffer
        } else {
            Outcome::UnansweredOffer
        };
        let asked = self.asked;
        self.ending(now, outcome, asked, None)
    }

    fn ending(
        self,
        now: Now,
        outcome: Outcome,
        server: Option<Ipv4Addr>,
        your_ip: Option<Ipv4Addr>,
    ) -> Ending {
        let repeated = |count: u32| count.saturating_sub(1);
        let exchange = Exchange {
            outcome,
            xid: Xid::V4(self.xids.last().copied().unwrap_or_default()),
            client_mac: self.client_mac,
            pxe: self.is_pxe,
            began_with: self.first.name(),
            seconds: now.monotonic.saturating_sub(self.began).as_secs_f64(),
            retries: repeated(self.discovers).saturating_add(repeated(self.requests)),
            servers: self.servers,
            boot_servers: self.boot_servers,
            server,
            your_ip,
            messages: self.messages,
            offered: self.offered,
        };
        let (netns, interface, (ifindex, _)) = (self.netns, self.interface, self.seen_at);
        Ending { time: now.time, netns, interface, ifindex, exchange }
    }
}
