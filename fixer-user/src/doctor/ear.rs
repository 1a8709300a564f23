//! Listens at the bridges that are looked at, and at their ports.

use std::{
    collections::BTreeMap,
    io,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use libc::{
    BPF_ABS, BPF_B, BPF_H, BPF_IMM, BPF_IND, BPF_JA, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_LD, BPF_LDX,
    BPF_MSH, BPF_RET, BPF_W, sock_filter,
};

use super::{
    facts::Facts,
    finding::{Source, Unseen},
    heard::{Digest, Frame, Spot},
    network::leads_out,
};
use crate::lab::packet::PacketSocket;

/// How much of a frame is of interest, in bytes.
const LONGEST: u32 = 2048;

/// The ports of DHCP, of DHCPv6, of TFTP servers and of boot servers.
const PORTS: [u32; 6] = [67, 68, 546, 547, 69, 4011];

/// What a TFTP server answers from a port that nobody knows before, by the first bytes (RFC 1350): the
/// first block, and that it takes the first block of the client.
const FIRST: [u32; 2] = [0x0003_0001, 0x0004_0000];
/// An error, or the options that it grants (RFC 2347).
const OTHERWISE: [u32; 2] = [5, 6];

/// An interface that is listened at.
struct Ear {
    socket: PacketSocket,
    spot: Spot,
}

/// Listens for so long.
pub fn listen(facts: &mut Facts, span: Duration) {
    let ears = match ears(facts) {
        Ok(ears) => ears,
        Err(error) => {
            let remedy = match error.kind() {
                io::ErrorKind::PermissionDenied => "; run as root (CAP_NET_RAW)",
                _ => "",
            };
            let what = format!("what passes on the bridges: {error}{remedy}");
            facts.unseen.push(Unseen { source: Source::Traffic, what });
            return;
        }
    };
    let (begun, digest) = (Instant::now(), Mutex::new(Digest::default()));
    let outcomes: Vec<_> = thread::scope(|scope| {
        let digest = &digest;
        let hear = |ear: &'_ Ear| ear.hear(begun, span, digest);
        let threads: Vec<_> = ears.iter().map(|ear| scope.spawn(move || hear(ear))).collect();
        let died = || Err(io::Error::other("the thread that listened died"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| died())).collect()
    });
    let mut heard = digest.into_inner().unwrap_or_else(PoisonError::into_inner).end(span);
    for at in &heard.missed {
        if let Some((network, interface)) =
            facts.networks.get(at.0).and_then(|network| Some((network, network.interface(at.1)?)))
        {
            let place = network.place(&interface.name);
            let what = format!("some clients on {place}: there are too many to remember them all");
            facts.unseen.push(Unseen { source: Source::Traffic, what });
        }
    }
    for (ear, outcome) in ears.iter().zip(outcomes) {
        if let Err(error) = outcome {
            heard.missed.insert(ear.spot.at);
            let what = format!("some of what passed at {}: {error}", ear.spot.place);
            facts.unseen.push(Unseen { source: Source::Traffic, what });
        }
    }
    facts.heard = Some(heard);
}

fn ears(facts: &Facts) -> io::Result<Vec<Ear>> {
    let filter = filter();
    let mut ears = Vec::new();
    for (place, network) in facts.selected() {
        for interface in network.selected() {
            let ports: Vec<_> = network.ports(interface.ifindex).collect();
            for heard in ports.iter().copied().chain([interface]) {
                let socket = match PacketSocket::open_for(&network.netns, &heard.name, &filter) {
                    // It went away since it was listed.
                    Err(error) if error.raw_os_error() == Some(libc::ENODEV) => continue,
                    socket => socket?,
                };
                let is_end = ports.is_empty() || heard.ifindex != interface.ifindex;
                let spot = Spot {
                    at: (place, interface.ifindex),
                    interface: heard.name.clone(),
                    place: network.place(&heard.name),
                    is_last: is_end && !leads_out(heard),
                };
                ears.push(Ear { socket, spot });
            }
        }
    }
    Ok(ears)
}

impl Ear {
    /// Hears everything until the time is over. Fails if it did not.
    fn hear(&self, begun: Instant, span: Duration, digest: &Mutex<Digest>) -> io::Result<()> {
        let mut here = BTreeMap::new();
        let digest = || digest.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = loop {
            match self.socket.overhear(span.saturating_sub(begun.elapsed())) {
                Ok(Some((received, direction))) => {
                    let frame = Frame { after: begun.elapsed(), received, direction };
                    digest().frame(&self.spot, &frame, &mut here);
                }
                Ok(None) => break Ok(()),
                // What went down may come up again.
                Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => {}
                Err(error) => break Err(error),
            }
        };
        digest().asked(here);
        outcome?;
        match self.socket.lost()? {
            0 => Ok(()),
            lost => Err(io::Error::other(format!("{lost} frames came faster than they were read"))),
        }
    }
}

/// Where the filter goes on.
#[derive(Clone, Copy)]
enum To {
    /// So many instructions behind the next.
    Skip(u8),
    /// To the end that takes the frame.
    Take,
    /// To the end that leaves it.
    Leave,
}

/// Takes UDP with one of these ports, and the answers to TFTP. A guest may be busy with other things,
/// of which nothing is to get as far as here.
fn filter() -> Vec<sock_filter> {
    const NEXT: To = To::Skip(0);
    let load = |width, at| (BPF_LD | width | BPF_ABS, at, NEXT, NEXT);
    // Behind the headers of Ethernet and of IP, whose length is in the index register.
    let behind = |width, at: u32| (BPF_LD | width | BPF_IND, 14 + at, NEXT, NEXT);
    let is = |value, yes, no| (BPF_JMP | BPF_JEQ, value, yes, no);
    let mut steps = vec![
        load(BPF_H, 12),
        is(libc::ETH_P_IPV6 as u32, To::Skip(7), NEXT),
        is(libc::ETH_P_IP as u32, NEXT, To::Leave),
        load(BPF_B, 23),
        is(libc::IPPROTO_UDP as u32, NEXT, To::Leave),
        // Only the first fragment has ports.
        load(BPF_H, 20),
        (BPF_JMP | BPF_JSET, 0x1fff, To::Leave, NEXT),
        (BPF_LDX | BPF_B | BPF_MSH, 14, NEXT, NEXT),
        (BPF_JMP | BPF_JA, 3, NEXT, NEXT),
        load(BPF_B, 20),
        is(libc::IPPROTO_UDP as u32, NEXT, To::Leave),
        (BPF_LDX | BPF_W | BPF_IMM, 40, NEXT, NEXT),
    ];
    for port in [0, 2] {
        steps.push(behind(BPF_H, port));
        steps.extend(PORTS.map(|port| is(port, To::Take, NEXT)));
    }
    steps.push(behind(BPF_W, 8));
    steps.extend(FIRST.map(|word| is(word, To::Take, NEXT)));
    steps.push(behind(BPF_H, 8));
    steps.extend(OTHERWISE.map(|word| is(word, To::Take, NEXT)));
    let end = steps.len();
    let mut filter: Vec<_> = (1..)
        .zip(steps)
        .map(|(next, (code, k, yes, no))| {
            let [jt, jf] = [yes, no].map(|to| match to {
                To::Skip(count) => count,
                To::Leave => (end - next) as u8,
                To::Take => (end - next) as u8 + 1,
            });
            sock_filter { code: code as u16, jt, jf, k }
        })
        .collect();
    let ends = [0, LONGEST].map(|k| sock_filter { code: BPF_RET as u16, jt: 0, jf: 0, k });
    filter.extend(ends);
    filter
}
