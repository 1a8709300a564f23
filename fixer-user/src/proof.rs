//! The proof that the fix holds on the running kernel: frames through a scratch veth pair.
//!
//! Whether shrinking a frame clears `CHECKSUM_PARTIAL` is the kernel's own affair. So before a real
//! interface is touched, the very programs that would be attached there show what they do here.

use std::{io, time::Duration};

use fixer_common::{abi::Hook, verdict::Verdict};
use serde::Serialize;

use crate::{
    bpf::{
        attach::{AttachError, Mode, Wish},
        load::{Config, LoadError, Object},
    },
    lab::{
        link,
        packet::{PacketSocket, Received},
        reply::{self, CHECKSUM_AT, PARTIAL},
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
    payload_len: usize,
    prepare: fn(&mut [u8]),
    partial: bool,
    verdict: Verdict,
}

const TRIALS: [Trial; 6] = [
    Trial {
        name: "a partial reply comes out right and no longer partial",
        payload_len: 300,
        prepare: reply::make_partial,
        partial: true,
        verdict: Verdict::Fixed,
    },
    Trial {
        name: "so does one of odd length",
        payload_len: 301,
        prepare: reply::make_partial,
        partial: true,
        verdict: Verdict::Fixed,
    },
    Trial {
        name: "so does one that fills an Ethernet frame",
        payload_len: 1472,
        prepare: reply::make_partial,
        partial: true,
        verdict: Verdict::Fixed,
    },
    Trial {
        name: "so does one that is shorter than what the fix takes out",
        payload_len: 5,
        prepare: reply::make_partial,
        partial: true,
        verdict: Verdict::Fixed,
    },
    Trial {
        name: "a valid reply is left alone",
        payload_len: 300,
        prepare: |_| (),
        partial: false,
        verdict: Verdict::Valid,
    },
    Trial {
        name: "a corrupt reply is left alone",
        payload_len: 300,
        prepare: |frame| frame[CHECKSUM_AT] ^= 0x55,
        partial: false,
        verdict: Verdict::Corrupt,
    },
];

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
    let mut object = Object::load(&Config { events: 0, shrink_twice, ..Config::default() })?;
    let sender = PacketSocket::open(&netns, HERE)?;
    let receiver = PacketSocket::open(&other, THERE)?;
    let attachment = netns.run(|| object.attach(HERE, Hook::Egress, wish))??;
    let mode: Mode = attachment.mode;

    let mut findings = Vec::new();
    let mut before = count_all(&object);
    for trial in &TRIALS {
        let seen = attempt(trial, &sender, &receiver)?;
        let after = count_all(&object);
        let counted = after[trial.verdict as usize] == before[trial.verdict as usize] + 1;
        let seen = seen.or_else(|| {
            (!counted).then(|| format!("it was not counted as {}", trial.verdict.name()))
        });
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
    let right = reply::frame(&payload);
    let mut frame = right.clone();
    (trial.prepare)(&mut frame);
    sender.send(&frame, trial.partial.then_some(PARTIAL))?;
    let expected = if trial.verdict == Verdict::Fixed { &right } else { &frame };
    let same = |received: &Received| is_same_datagram(&received.bytes, expected);
    Ok(match receiver.receive(PATIENCE, same)? {
        None => Some("the frame did not arrive".to_owned()),
        Some(received) if received.partial => Some("it is still partial".to_owned()),
        Some(received) if received.bytes != *expected => {
            Some(difference(&received.bytes, expected))
        }
        Some(_) => None,
    })
}

/// Whether two frames differ in their checksums at most.
fn is_same_datagram(one: &[u8], other: &[u8]) -> bool {
    let without = |frame: &[u8]| {
        let mut frame = frame.to_vec();
        if let Some(checksum) = frame.get_mut(CHECKSUM_AT..CHECKSUM_AT + 2) {
            checksum.fill(0);
        }
        frame
    };
    without(one) == without(other)
}

fn difference(seen: &[u8], expected: &[u8]) -> String {
    let checksum = |frame: &[u8]| u16::from_be_bytes([frame[CHECKSUM_AT], frame[CHECKSUM_AT + 1]]);
    format!("its checksum is {:#06x}, not {:#06x}", checksum(seen), checksum(expected))
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
