//! What passes on the bridges while we listen: who asks, who answers, and in what state.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr},
    thread,
    time::{Duration, Instant},
};

use fixer_common::{
    decide::{Decision, decide},
    rule::Rule,
    verdict::Verdict,
};

use super::{
    facts::Facts,
    finding::{Source, Unseen},
};
use crate::{
    event::{Dhcp, Mac, Packet},
    lab::packet::{Direction, PacketSocket, Received},
};

/// The longest frame that is of interest, in bytes.
const LONGEST: u32 = 2048;
/// How many frames are kept of an interface, at most.
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

/// An interface that is listened at.
struct Ear {
    socket: PacketSocket,
    at: (usize, u32),
    interface: String,
    /// Whether what leaves here goes to guests.
    is_last: bool,
}

/// A frame, when it came.
struct Frame {
    after: Duration,
    received: Received,
    direction: Direction,
}

/// Listens at the interfaces that are looked at, and at the ports of the bridges among them.
pub fn listen(facts: &mut Facts, span: Duration) {
    let ears = match ears(facts) {
        Ok(ears) => ears,
        Err(error) => {
            let what = format!("what passes on the bridges: {error}; run as root (CAP_NET_RAW)");
            facts.unseen.push(Unseen { source: Source::Traffic, what });
            return;
        }
    };
    let begun = Instant::now();
    let heard: Vec<(&Ear, Vec<Frame>)> = thread::scope(|scope| {
        let threads: Vec<_> =
            ears.iter().map(|ear| (ear, scope.spawn(|| ear.hear(begun, span)))).collect();
        let frames = |(ear, thread): (_, thread::ScopedJoinHandle<'_, _>)| {
            (ear, thread.join().unwrap_or_default())
        };
        threads.into_iter().map(frames).collect()
    });
    let mut digest = Digest::default();
    for (ear, frames) in &heard {
        // Each message is counted where it was heard most often, not at every interface anew.
        let mut here = BTreeMap::new();
        frames.iter().for_each(|frame| digest.frame(ear, frame, &mut here));
        for (key, requests) in here {
            if let Some(exchange) = digest.exchanges.get_mut(&key) {
                exchange.requests = exchange.requests.max(requests);
            }
        }
    }
    for (ear, frames) in &heard {
        frames.iter().for_each(|frame| digest.answer(ear, frame));
    }
    facts.heard = Some(Heard {
        span,
        exchanges: digest.exchanges.into_values().collect(),
        sums: digest.sums.into_values().collect(),
        transfers: digest.transfers.into_values().collect(),
    });
}

fn ears(facts: &Facts) -> io::Result<Vec<Ear>> {
    let mut ears = Vec::new();
    for (place, network) in facts.selected() {
        for interface in network.selected() {
            let ports: Vec<_> = network.ports(interface.ifindex).collect();
            for heard in ports.iter().copied().chain([interface]) {
                let socket = PacketSocket::open(&network.netns, &heard.name)?;
                socket.only_udp(LONGEST)?;
                ears.push(Ear {
                    socket,
                    at: (place, interface.ifindex),
                    interface: network.place(&heard.name),
                    is_last: ports.is_empty() || heard.ifindex != interface.ifindex,
                });
            }
        }
    }
    Ok(ears)
}

impl Ear {
    fn hear(&self, begun: Instant, span: Duration) -> Vec<Frame> {
        let mut frames = Vec::new();
        while frames.len() < MOST {
            let left = span.saturating_sub(begun.elapsed());
            // An interface that goes away is heard no more.
            let Ok(Some((received, direction))) = self.socket.overhear(left) else { break };
            frames.push(Frame { after: begun.elapsed(), received, direction });
        }
        frames
    }
}

type Key = ((usize, u32), [u8; 6], String);
type TransferKey = ((usize, u32), (IpAddr, u16));

#[derive(Default)]
struct Digest {
    exchanges: BTreeMap<Key, Exchange>,
    sums: BTreeMap<String, Sums>,
    transfers: BTreeMap<TransferKey, Transfer>,
}

impl Digest {
    fn frame(&mut self, ear: &Ear, frame: &Frame, here: &mut BTreeMap<Key, usize>) {
        let tag = frame.received.tag.map(|(_, tci)| tci);
        let (packet, payload) = Packet::parse(&frame.received.bytes, tag);
        let (Some(sport), Some(dport), Some(payload)) = (packet.sport, packet.dport, payload)
        else {
            return;
        };
        if dport == TFTP {
            self.ask(ear, frame, &packet);
        }
        if (sport, dport) == (67, 68) && ear.is_last && frame.direction == Direction::Out {
            self.sum(ear, &frame.received);
        }
        if let Some(dhcp) = Dhcp::decode([sport, dport], payload)
            && let Some(client) = dhcp.client_mac
        {
            let key = (ear.at, client.0, dhcp.xid.to_string());
            let exchange = self.exchanges.entry(key.clone()).or_insert_with(|| Exchange {
                at: ear.at,
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
                "offer" | "ack" | "nak" | "bootp-reply" => exchange.reply(&packet, &dhcp, is_pxe),
                _ => {}
            }
        }
    }

    fn sum(&mut self, ear: &Ear, received: &Received) {
        let sums = self.sums.entry(ear.interface.clone()).or_insert_with(|| Sums {
            at: ear.at,
            interface: ear.interface.clone(),
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

    fn ask(&mut self, ear: &Ear, frame: &Frame, packet: &Packet) {
        if let (Some(client), Some(port), Some(server)) = (packet.src, packet.sport, packet.dst) {
            self.transfers.entry((ear.at, (client, port))).or_insert(Transfer {
                at: ear.at,
                client: (client, port),
                server,
                is_answered: false,
                first: frame.after,
            });
        }
    }

    /// An answer comes from another port than the one that was asked.
    fn answer(&mut self, ear: &Ear, frame: &Frame) {
        let (packet, _) = Packet::parse(&frame.received.bytes, None);
        if let (Some(server), Some(client), Some(port)) = (packet.src, packet.dst, packet.dport)
            && let Some(transfer) = self.transfers.get_mut(&(ear.at, (client, port)))
        {
            transfer.is_answered |= transfer.server == server;
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
