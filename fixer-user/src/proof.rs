//! The proof that the fix holds on the running kernel: frames through a scratch veth pair.
//!
//! Whether shrinking a frame clears `CHECKSUM_PARTIAL` is the kernel's own affair. So before a real
//! interface is touched, the very programs that would be attached there show what they do here.

use std::{io, ops::Range, time::Duration};

use fixer_common::{abi::Hook, rule::Rule, verdict::Verdict};
use serde::Serialize;

use crate::{
    bpf::{
        attach::{AttachError, Mode, Wish},
        load::{Config, LoadError, Object},
    },
    lab::{
        link,
        packet::{PacketSocket, Received},
        reply::Carrier,
    },
    net::netns::NetNs,
};

const HERE: &str = "here";
const THERE: &str = "there";

/// How long a frame may take from one end of a veth pair to the other.
const PATIENCE: Duration = Duration::from_secs(2);

/// One thing that has to hold.
struct Trial {
    name: &'static str,
    carrier: Carrier,
    payload_len: usize,
    state: State,
}

/// In what state a reply's checksum is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Partial,
    Valid,
    Corrupt,
}

impl State {
    /// What must be counted.
    fn verdict(self) -> Verdict {
        match self {
            Self::Partial => Verdict::Fixed,
            Self::Valid => Verdict::Valid,
            Self::Corrupt => Verdict::Corrupt,
        }
    }
}

const TRIALS: [Trial; 8] = [
    trial(
        "a partial reply comes out right and no longer partial",
        Carrier::Ipv4,
        300,
        State::Partial,
    ),
    trial("so does one of odd length", Carrier::Ipv4, 301, State::Partial),
    trial("so does one that fills an Ethernet frame", Carrier::Ipv4, 1472, State::Partial),
    trial(
        "so does one that is shorter than what the fix takes out",
        Carrier::Ipv4,
        5,
        State::Partial,
    ),
    // The longest that a raw sender may send: it is granted the room of one tag.
    trial(
        "so does one behind two VLAN tags that fills its frame",
        Carrier::Tagged,
        1468,
        State::Partial,
    ),
    trial("so does a DHCPv6 reply", Carrier::Ipv6, 300, State::Partial),
    trial("a valid reply is left alone", Carrier::Ipv4, 300, State::Valid),
    trial("a corrupt reply is left alone", Carrier::Ipv4, 300, State::Corrupt),
];

const fn trial(name: &'static str, carrier: Carrier, payload_len: usize, state: State) -> Trial {
    Trial { name, carrier, payload_len, state }
}

/// What was found out about one trial.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What had to hold.
    pub trial: &'static str,
    /// Whether it did.
    pub passed: bool,
    /// What was seen instead.
    pub seen: Option<String>,
}

/// What was found out about this kernel.
#[derive(Clone, Debug, Serialize)]
pub struct Proof {
    /// How programs are attached here.
    pub mode: &'static str,
    /// Whether the mark is cleared only by a second shrink.
    pub shrink_twice: bool,
    /// One finding for each trial.
    pub findings: Vec<Finding>,
}

impl Proof {
    /// Whether the fix holds.
    pub fn holds(&self) -> bool {
        self.findings.iter().all(|finding| finding.passed)
    }

    /// The first thing that did not hold.
    pub fn failure(&self) -> Option<&Finding> {
        self.findings.iter().find(|finding| !finding.passed)
    }
}

/// The proof could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// No scratch namespace, or no veth pair in it.
    #[error(
        "the self-test cannot make a scratch network namespace with a veth pair: {0}; \
         it needs root (CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_NET_RAW) and the kernel's veth"
    )]
    Scratch(#[from] io::Error),
    /// The programs did not load.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The programs were not attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
}

/// Tries the programs on this kernel, attached the way that was wished for: with one shrink, and where
/// that does not do, with two.
pub fn prove(wish: Wish) -> Result<Proof, ProofError> {
    let once = attempt_all(wish, false)?;
    if once.holds() {
        return Ok(once);
    }
    let twice = attempt_all(wish, true)?;
    Ok(if twice.holds() { twice } else { once })
}

fn attempt_all(wish: Wish, shrink_twice: bool) -> Result<Proof, ProofError> {
    let netns = NetNs::scratch("selftest")?;
    let other = NetNs::scratch("selftest-peer")?;
    link::veth(&netns, HERE, &other, THERE)?;
    let rules = vec![Rule::DHCP, Rule::DHCPV6];
    let mut object = Object::load(&Config { rules, events: 0, shrink_twice, ..Config::default() })?;
    let sender = PacketSocket::open(&netns, HERE)?;
    let receiver = PacketSocket::open(&other, THERE)?;
    let attachment = netns.run(|| object.attach(HERE, Hook::Egress, wish))??;
    let mode: Mode = attachment.mode;

    let mut findings = Vec::new();
    let mut before = count_all(&object);
    for trial in &TRIALS {
        let seen = attempt(trial, &sender, &receiver)?;
        let after = count_all(&object);
        let verdict = trial.state.verdict();
        let counted = after[verdict as usize] == before[verdict as usize] + 1;
        let seen = seen
            .or_else(|| (!counted).then(|| format!("it was not counted as {}", verdict.name())));
        findings.push(Finding { trial: trial.name, passed: seen.is_none(), seen });
        before = after;
    }
    netns.run(|| object.detach(attachment))??;
    Ok(Proof { mode: mode.name(), shrink_twice, findings })
}

/// Sends one frame, and says what was wrong with what arrived.
fn attempt(
    trial: &Trial,
    sender: &PacketSocket,
    receiver: &PacketSocket,
) -> io::Result<Option<String>> {
    let payload: Vec<u8> = (0..trial.payload_len).map(|at| (at * 7 + 1) as u8).collect();
    let Trial { carrier, state, .. } = *trial;
    let right = carrier.frame(&payload);
    let sum = carrier.checksum_at()..carrier.checksum_at() + 2;
    let mut frame = right.clone();
    match state {
        State::Partial => {
            let pseudo_header = carrier.pseudo_header(&frame);
            frame[sum.clone()].copy_from_slice(&pseudo_header.to_be_bytes());
        }
        State::Valid => {}
        State::Corrupt => frame[sum.start] ^= 0x55,
    }
    let is_partial = state == State::Partial;
    match sender.send(&frame, is_partial.then(|| carrier.partial())) {
        // Whoever sent it hears that a program threw it away.
        Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
            return Ok(Some("the frame was thrown away".to_owned()));
        }
        sent => sent?,
    }
    let expected = if is_partial { &right } else { &frame };
    let same = |received: &Received| is_same_datagram(&received.on_wire(), expected, &sum);
    let received = receiver.receive(PATIENCE, same)?;
    Ok(match received.map(|received| (received.partial, received.on_wire())) {
        None => Some("the frame did not arrive".to_owned()),
        Some((true, _)) => Some("it is still partial".to_owned()),
        Some((_, bytes)) if bytes != *expected => {
            let [seen, wanted] =
                [&bytes, expected].map(|frame| [frame[sum.start], frame[sum.start + 1]]);
            let [seen, wanted] = [seen, wanted].map(u16::from_be_bytes);
            Some(format!("its checksum is {seen:#06x}, not {wanted:#06x}"))
        }
        Some(_) => None,
    })
}

/// Whether two frames differ in their checksums at most.
fn is_same_datagram(one: &[u8], other: &[u8], sum: &Range<usize>) -> bool {
    one.len() == other.len()
        && one[..sum.start] == other[..sum.start]
        && one[sum.end..] == other[sum.end..]
}

fn count_all(object: &Object) -> [u64; fixer_common::verdict::TABLE.len()] {
    let mut counts = [0; _];
    for row in object.counters().unwrap_or_default() {
        for (count, (_, more)) in counts.iter_mut().zip(row.counts()) {
            *count += more;
        }
    }
    counts
}
