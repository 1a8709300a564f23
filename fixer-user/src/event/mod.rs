//! What happened to one packet: from the kernel's bytes to an [`Event`] that can be kept and shown.
//!
//! [`Sample::parse`] takes a sample of the ring buffer apart, the interface's index in it tells the
//! caller the [`Origin`], and [`Event::new`] reads the frame: [`Packet`] and [`Dhcp`].

mod clock;
mod dhcp;
#[cfg(test)]
pub(crate) mod fixture;
mod packet;
mod printable;
mod sample;

use std::{sync::Arc, time::Duration};

use fixer_common::{abi::Hook, verdict::Verdict};
use jiff::Timestamp;
use serde::{Serialize, Serializer};

pub(crate) use self::printable::printable;
pub use self::{
    clock::Clock,
    dhcp::{Dhcp, Id, ServerId, Xid},
    packet::{Mac, Packet, Transport},
    sample::{Capture, Sample, SampleError, Stored, Tag},
};

use crate::names::shown;
pub use crate::net::netns::HOST;

/// What happened to one packet. Serialised it is the event of the interface's description.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// When the program saw the packet. RFC 3339, UTC, nanoseconds.
    #[serde(serialize_with = "nanoseconds")]
    pub time: Timestamp,
    /// The same moment as `CLOCK_MONOTONIC` has it, for lengths of time.
    #[serde(skip)]
    pub monotonic: Duration,
    /// The network namespace's label: [`HOST`], or what the user called it.
    pub netns: Arc<str>,
    /// The interface's name, safe to show.
    pub interface: Arc<str>,
    /// The interface's index in its network namespace.
    pub ifindex: u32,
    /// Where the program is attached. By name.
    #[serde(serialize_with = "hook_name")]
    pub hook: Hook,
    /// What became of the packet. By name.
    #[serde(serialize_with = "verdict_name")]
    pub verdict: Verdict,
    /// Who speaks to whom.
    #[serde(flatten)]
    pub packet: Packet,
    /// What the checksum field held, if it was looked at. As `0x1bc7`.
    #[serde(serialize_with = "hex")]
    pub checksum: Option<u16>,
    /// What it should have held, if that was computed. As `0x072b`.
    #[serde(serialize_with = "hex")]
    pub expected: Option<u16>,
    /// The DHCP message, if it is one.
    pub dhcp: Option<Dhcp>,
    /// The packet's bytes.
    #[serde(skip)]
    pub capture: Capture,
}

/// Where events come from: an interface in a network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    netns: Arc<str>,
    interface: Arc<str>,
}

impl Origin {
    /// An interface by its name, in the network namespace with this label. The name is made safe to show.
    pub fn new(netns: impl Into<Arc<str>>, interface: &str) -> Self {
        Self { netns: netns.into(), interface: shown(interface).into() }
    }
}

impl Event {
    /// The event that a sample tells of.
    pub fn new(sample: Sample, origin: &Origin, clock: &Clock) -> Self {
        let Sample { time, ifindex, hook, verdict, expected, capture } = sample;
        let (packet, payload) = Packet::parse(&capture.bytes, capture.tag.map(|tag| tag.tci));
        let dhcp = match (packet.sport, packet.dport, payload) {
            (Some(sport), Some(dport), Some(payload)) => Dhcp::decode([sport, dport], payload),
            _ => None,
        };
        Self {
            time: clock.at(time),
            monotonic: Duration::from_nanos(time),
            netns: Arc::clone(&origin.netns),
            interface: Arc::clone(&origin.interface),
            ifindex,
            hook,
            verdict,
            packet,
            checksum: capture.checksum.map(|stored| stored.value),
            expected,
            dhcp,
            capture,
        }
    }
}

/// What is missing in the stream, since the last time this was said: events that found the ring buffer
/// full, and what came while the reader of the stream was too far behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// When the loss was noticed. RFC 3339, UTC, nanoseconds.
    #[serde(serialize_with = "nanoseconds")]
    pub time: Timestamp,
    /// The network namespace's label.
    pub netns: Arc<str>,
    /// How many events.
    pub lost: u64,
    /// How many ends of exchanges. They were counted.
    #[serde(skip_serializing_if = "is_zero")]
    pub exchanges: u64,
}

const fn is_zero(number: &u64) -> bool {
    *number == 0
}

pub(crate) fn nanoseconds<S: Serializer>(
    time: &Timestamp,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{time:.9}"))
}

fn hook_name<S: Serializer>(hook: &Hook, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(hook.name())
}

fn verdict_name<S: Serializer>(verdict: &Verdict, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(verdict.name())
}

fn hex<S: Serializer>(sum: &Option<u16>, serializer: S) -> Result<S::Ok, S::Error> {
    match sum {
        Some(sum) => serializer.collect_str(&format_args!("{sum:#06x}")),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use fixer_common::verdict::Verdict;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_event_is_made_of_a_sample_and_its_origin() {
        let event = fixture::event(Verdict::Fixed, |_| ());
        assert_eq!(event.time.to_string(), "2026-11-21T10:15:53.015772001Z");
        assert_eq!((&*event.netns, &*event.interface, event.ifindex), ("host", "virbr0", 4));
        assert_eq!((event.checksum, event.expected), (Some(0x1bc7), Some(0x072b)));
        assert_eq!(event.packet.udp_len, Some(308));
        assert_eq!(event.dhcp.unwrap().message_type, "offer");
    }

    #[test]
    fn a_frame_that_was_not_captured_leaves_everything_unknown() {
        let event = fixture::event(Verdict::Dropped, |header| header.captured = 0);
        assert_eq!((event.packet, event.dhcp), (Packet::default(), None));
        assert_eq!(event.checksum, Some(0x1bc7));
    }

    #[test]
    fn a_datagram_that_is_not_dhcp_has_no_message() {
        let frame = fixture::frame(b"hello");
        assert_eq!(fixture::event_of(Verdict::Valid, &frame, |_| ()).dhcp, None);
    }

    #[test]
    fn a_message_is_longer_than_a_short_sample() {
        let mut payload = fixture::offer();
        payload.resize(1400, 0);
        let event = fixture::event_of(Verdict::Fixed, &fixture::frame(&payload), |_| ());
        assert_eq!(event.capture.bytes.len(), 1442);
        assert_eq!(event.dhcp.unwrap().message_type, "offer");
    }

    #[test]
    fn the_name_of_an_interface_is_safe_to_show() {
        let origin = Origin::new(HOST, "\x1b[2Jeth0");
        assert_eq!(&*origin.interface, "\u{fffd}[2Jeth0");
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_event_or_an_error(
            mut bytes in prop::collection::vec(any::<u8>(), 0..500),
            captured in 0u32..500,
        ) {
            if let Some(numbers) = bytes.get_mut(12..20) {
                numbers[..4].copy_from_slice(&500u32.to_ne_bytes());
                numbers[4..].copy_from_slice(&captured.to_ne_bytes());
            }
            if let Some(numbers) = bytes.get_mut(31..33) {
                numbers.iter_mut().for_each(|number| *number %= 3);
            }
            if let Ok(sample) = Sample::parse(bytes.into()) {
                Event::new(sample, &Origin::new(HOST, "virbr0"), &fixture::clock());
            }
        }
    }
}
