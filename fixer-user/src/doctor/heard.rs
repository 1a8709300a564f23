//! What passed on the bridges while we listened: who asked, who answered, and in what state.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use fixer_common::{
    decide::{Decision, decide},
    rule::Rule,
    verdict::Verdict,
};

use super::finding::Likelihood;
use crate::{
    event::{Dhcp, Mac, Packet},
    lab::packet::{Direction, Received},
};

/// How many clients, transfers and answers are kept, of each at most so many.
const MOST: usize = 20_000;
/// How long a server may take: who asked later is not said to have had no answer. dnsmasq pings an
/// address for three seconds before it offers it.
pub const GRACE: Duration = Duration::from_millis(3500);
/// The port of TFTP servers.
const TFTP: u16 = 69;

/// What passed.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// How long we listened.
    pub span: Duration,
    /// Who asked for a lease, and what came of it.
    pub exchanges: Vec<Exchange>,
    /// The sums of replies that left through an interface.
    pub sums: Vec<Sums>,
    /// Who asked for a file.
    pub transfers: Vec<Transfer>,
    /// The bridges on which something may have been missed: namespace and index.
    pub missed: BTreeSet<(usize, u32)>,
}

impl Heard {
    /// Whether a server answered anybody on a bridge.
    pub fn has_reply(&self, at: (usize, u32)) -> bool {
        self.exchanges.iter().any(|it| it.at == at && !it.servers.is_empty())
            || self.sums.iter().any(|it| it.at == at && it.replies > 0)
    }

    /// Whether somebody asked on a bridge.
    pub fn has_request(&self, at: (usize, u32)) -> bool {
        self.exchanges.iter().any(|it| it.at == at && it.requests > 0)
    }

    /// How likely it can be said to be that something did not come.
    pub fn at_most(&self, at: (usize, u32), likelihood: Likelihood) -> Likelihood {
        match self.missed.contains(&at) {
            true => likelihood.max(Likelihood::Possible),
            false => likelihood,
        }
    }
}

/// The messages of one client about one lease.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// On which bridge: namespace and index.
    pub at: (usize, u32),
    /// The client.
    pub client: Mac,
    /// How often it asked.
    pub requests: usize,
    /// When it asked first, from when we began to listen.
    pub first: Duration,
    /// Whether it says that it boots over the network.
    pub is_pxe: bool,
    /// The servers that answered.
    pub servers: BTreeSet<String>,
    /// Those that said no.
    pub refusals: BTreeSet<String>,
    /// Offers, and of those the ones that told what to boot and from where.
    pub offers: [usize; 3],
}

/// The checksums of replies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sums {
    /// On which bridge: namespace and index.
    pub at: (usize, u32),
    /// Through which of its ports they left.
    pub interface: String,
    /// How that is called in findings.
    pub place: String,
    /// All of them.
    pub replies: usize,
    /// Those that were partial.
    pub partial: usize,
    /// Those that were wrong.
    pub corrupt: usize,
}

/// A file that a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// On which bridge: namespace and index.
    pub at: (usize, u32),
    /// Who asked: address and port.
    pub client: (IpAddr, u16),
    /// Whom.
    pub server: IpAddr,
    /// Whether there was an answer.
    pub is_answered: bool,
    /// When it asked first.
    pub first: Duration,
}

/// Where something was heard.
#[derive(Clone, Debug)]
pub struct Spot {
    /// On which bridge: namespace and index.
    pub at: (usize, u32),
    /// At which interface.
    pub interface: String,
    /// How that is called in findings.
    pub place: String,
    /// Whether what leaves here goes to guests as it is.
    pub is_last: bool,
}

/// A frame, when it came.
pub struct Frame {
    /// From when we began to listen.
    pub after: Duration,
    /// The frame.
    pub received: Received,
    /// Which way it went.
    pub direction: Direction,
}

/// One lease: the bridge, the client, and the number that it gave to its messages.
pub type Key = ((usize, u32), [u8; 6], String);

/// The bridge, and who asked for a file.
type TransferKey = ((usize, u32), (IpAddr, u16));

/// What frames say, put together while they come.
#[derive(Default)]
pub struct Digest {
    exchanges: BTreeMap<Key, Exchange>,
    sums: BTreeMap<String, Sums>,
    transfers: BTreeMap<TransferKey, Transfer>,
    answers: BTreeSet<(TransferKey, IpAddr)>,
    missed: BTreeSet<(usize, u32)>,
}

impl Digest {
    /// Takes a frame. How often each client asked here is counted apart: the same message passes
    /// several interfaces.
    pub fn frame(&mut self, spot: &Spot, frame: &Frame, here: &mut BTreeMap<Key, usize>) {
        let tag = frame.received.tag.map(|(_, tci)| tci);
        let (packet, payload) = Packet::parse(&frame.received.bytes, tag);
        let (Some(sport), Some(dport), Some(payload)) = (packet.sport, packet.dport, payload)
        else {
            return;
        };
        if dport == TFTP {
            self.ask(spot, frame, &packet);
        } else if let (Some(server), Some(client)) = (packet.src, packet.dst) {
            // An answer comes from another port than the one that was asked.
            if self.has_room(self.answers.len(), spot) {
                self.answers.insert(((spot.at, (client, dport)), server));
            }
        }
        if (sport, dport) == (67, 68) && spot.is_last && frame.direction == Direction::Out {
            self.sum(spot, &frame.received);
        }
        if let Some(dhcp) = Dhcp::decode([sport, dport], payload)
            && let Some(client) = dhcp.client_mac
        {
            self.exchange(spot, frame, (&packet, &dhcp, client), here);
        }
    }

    fn exchange(
        &mut self,
        spot: &Spot,
        frame: &Frame,
        (packet, dhcp, client): (&Packet, &Dhcp, Mac),
        here: &mut BTreeMap<Key, usize>,
    ) {
        let key = (spot.at, client.0, dhcp.xid.to_string());
        if !self.exchanges.contains_key(&key) && !self.has_room(self.exchanges.len(), spot) {
            return;
        }
        let exchange = self.exchanges.entry(key.clone()).or_insert_with(|| Exchange {
            at: spot.at,
            client,
            requests: 0,
            first: frame.after,
            is_pxe: false,
            servers: BTreeSet::new(),
            refusals: BTreeSet::new(),
            offers: [0; 3],
        });
        exchange.first = exchange.first.min(frame.after);
        let is_pxe = dhcp.vendor_class.as_deref().is_some_and(|it| it.starts_with("PXEClient"));
        match dhcp.message_type {
            "discover" | "request" | "bootp-request" => {
                *here.entry(key).or_default() += 1;
                exchange.is_pxe |= is_pxe;
            }
            "offer" | "ack" | "nak" | "bootp-reply" => exchange.reply(packet, dhcp, is_pxe),
            _ => {}
        }
    }

    /// Whether one more can be kept. If not, something is missed.
    fn has_room(&mut self, count: usize, spot: &Spot) -> bool {
        if count >= MOST {
            self.missed.insert(spot.at);
        }
        count < MOST
    }

    /// How often each client asked at one interface: it counts where that was most often.
    pub fn asked(&mut self, here: BTreeMap<Key, usize>) {
        for (key, requests) in here {
            if let Some(exchange) = self.exchanges.get_mut(&key) {
                exchange.requests = exchange.requests.max(requests);
            }
        }
    }

    /// Everything together, of so long a time.
    pub fn end(mut self, span: Duration) -> Heard {
        for (key, transfer) in &mut self.transfers {
            transfer.is_answered = self.answers.contains(&(*key, transfer.server));
        }
        Heard {
            span,
            exchanges: self.exchanges.into_values().collect(),
            sums: self.sums.into_values().collect(),
            transfers: self.transfers.into_values().collect(),
            missed: self.missed,
        }
    }

    fn sum(&mut self, spot: &Spot, received: &Received) {
        let sums = self.sums.entry(spot.place.clone()).or_insert_with(|| Sums {
            at: spot.at,
            interface: spot.interface.clone(),
            place: spot.place.clone(),
            replies: 0,
            partial: 0,
            corrupt: 0,
        });
        sums.replies += 1;
        match decide(&received.bytes[..], &[Rule::DHCP][..]) {
            Some(Decision::Fix(..)) => sums.partial += 1,
            Some(Decision::Leave(Verdict::Corrupt, _)) => sums.corrupt += 1,
            _ => {}
        }
    }

    fn ask(&mut self, spot: &Spot, frame: &Frame, packet: &Packet) {
        let (Some(client), Some(port), Some(server)) = (packet.src, packet.sport, packet.dst)
        else {
            return;
        };
        if self.has_room(self.transfers.len(), spot) {
            self.transfers.entry((spot.at, (client, port))).or_insert(Transfer {
                at: spot.at,
                client: (client, port),
                server,
                is_answered: false,
                first: frame.after,
            });
        }
    }
}

impl Exchange {
    fn reply(&mut self, packet: &Packet, dhcp: &Dhcp, is_boot_server: bool) {
        let server = dhcp.server_id.as_ref().map(ToString::to_string);
        let server = server.or_else(|| packet.src.map(|address| address.to_string()));
        let server = server.unwrap_or_else(|| "somebody".to_owned());
        if dhcp.message_type == "nak" {
            self.refusals.insert(server.clone());
        }
        if dhcp.message_type == "offer" {
            let next = dhcp.next_server.is_some_and(|at| at != Ipv4Addr::UNSPECIFIED);
            let [all, named, placed] = &mut self.offers;
            *all += 1;
            // A boot server beside the DHCP server tells the rest when it is asked itself.
            *named += usize::from(dhcp.boot_file.is_some() || is_boot_server);
            *placed += usize::from(next || is_boot_server);
        }
        self.servers.insert(server);
    }
}
