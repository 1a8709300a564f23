//! What the tests of events and sinks look at: the example of the interface's description.

use std::net::Ipv4Addr;

use bytes::Bytes;
use dhcproto::{
    Encodable,
    v4::{DhcpOption, Message, MessageType, Opcode},
};
use etherparse::PacketBuilder;
use fixer_common::{
    abi::{
        Hook,
        event::{Header, LONG_SAMPLE, SHORT_SAMPLE, room},
    },
    verdict::Verdict,
};
use zerocopy::IntoBytes as _;

use super::{Clock, Event, Mac, Origin, Sample};

pub(crate) const CLIENT: Mac = Mac([0x0e, 0xeb, 0x4f, 0x74, 0x8d, 0x15]);
pub(crate) const SERVER: Mac = Mac([0x52, 0x54, 0x00, 0x0a, 0x03, 0x01]);

/// When the sample was taken, in nanoseconds of `CLOCK_MONOTONIC`.
pub(crate) const TIME: u64 = 5_015_772_001;

pub(crate) fn clock() -> Clock {
    Clock::new(5_000_000_000, "2026-11-21T10:15:53Z".parse().unwrap())
}

/// A DHCPOFFER of 300 bytes.
pub(crate) fn offer() -> Vec<u8> {
    offer_with(|_| ())
}

/// The offer after a change, and padded to at least 300 bytes again.
pub(crate) fn offer_with(change: impl FnOnce(&mut Message)) -> Vec<u8> {
    let server = Ipv4Addr::new(10, 0, 3, 1);
    let none = Ipv4Addr::UNSPECIFIED;
    let yours = Ipv4Addr::new(10, 0, 3, 129);
    let mut message = Message::new_with_id(0x6ce6_e42e, none, yours, none, none, &CLIENT.0);
    message.set_opcode(Opcode::BootReply);
    message.opts_mut().insert(DhcpOption::MessageType(MessageType::Offer));
    message.opts_mut().insert(DhcpOption::ServerIdentifier(server));
    change(&mut message);
    let mut bytes = message.to_vec().unwrap();
    bytes.resize(bytes.len().max(300), 0);
    bytes
}

/// The offer in a frame, with the right checksum.
pub(crate) fn offer_frame() -> Vec<u8> {
    frame(&offer())
}

/// A payload from the server to the client. The checksum is always that of the example.
pub(crate) fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(SERVER.0, CLIENT.0)
        .ipv4([10, 0, 3, 1], [10, 0, 3, 129], 64)
        .udp(67, 68)
        .write(&mut frame, payload)
        .unwrap();
    frame[40..42].copy_from_slice(&0x072b_u16.to_be_bytes());
    frame
}

/// The header of an event about this frame.
pub(crate) fn header(verdict: Verdict, frame: &[u8]) -> Header {
    Header {
        time: TIME,
        ifindex: 4,
        frame_len: frame.len() as u32,
        captured: frame.len() as u32,
        checksum_at: 40,
        stored: 0x1bc7,
        expected: 0x072b,
        vlan_tci: 0,
        vlan_protocol: 0,
        verdict: verdict as u8,
        hook: Hook::Egress as u8,
        padding: [0; 6],
    }
}

/// Header and frame, with exactly the room for them.
pub(crate) fn sample(header: Header, frame: &[u8]) -> Bytes {
    [header.as_bytes(), frame].concat().into()
}

/// The event of the example, after a change to the header.
pub(crate) fn event(verdict: Verdict, change: impl FnOnce(&mut Header)) -> Event {
    event_of(verdict, &offer_frame(), change)
}

/// An event about a frame on `virbr0` of the host, after a change to the header. The sample has the
/// length that the kernel would have given it.
pub(crate) fn event_of(verdict: Verdict, frame: &[u8], change: impl FnOnce(&mut Header)) -> Event {
    let mut header = header(verdict, frame);
    change(&mut header);
    let len = if frame.len() <= room(SHORT_SAMPLE) { SHORT_SAMPLE } else { LONG_SAMPLE };
    let mut frame = frame.to_vec();
    frame.resize(room(len), 0xa5);
    let sample = Sample::parse(sample(header, &frame)).unwrap();
    Event::new(sample, &Origin::new(super::HOST, "virbr0"), &clock())
}
