//! UDP over IPv6: the replies of a DHCPv6 server, with and without extension headers.

use fixer_common::{rule::Rule, verdict::Verdict};

use super::{Case, Group, fixed, padded, untouched};
use crate::frames::{IP, NEXT_HEADER, PAYLOAD_LENGTH, Packet, get, put};

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const ESP: u8 = 50;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// The cases.
pub fn groups() -> Vec<Group> {
    vec![
        ("partial replies over IPv6, extension headers", fixable()),
        ("complete and corrupt replies over IPv6", left_alone()),
        ("fragments over IPv6", fragments()),
        ("lengths that lie, over IPv6", malformed()),
        ("what only looks like a reply, over IPv6", not_ours()),
    ]
}

/// Options of this length in all, a multiple of 8: one PadN option.
fn options(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    bytes[1] = (len / 8 - 1) as u8;
    bytes[2] = 1;
    bytes[3] = (len - 4) as u8;
    bytes
}

/// A routing header of type 4 with an empty list, with this many segments left.
fn routing(segments_left: u8) -> Vec<u8> {
    vec![0, 0, 4, segments_left, 0, 0, 0, 0]
}

/// A fragment header with this offset in units of 8 bytes.
fn fragment(offset: u16, more: bool) -> Vec<u8> {
    let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
    vec![0, 0, high, low, 1, 2, 3, 4]
}

/// An authentication header with an integrity check value of 12 bytes.
fn authentication() -> Vec<u8> {
    let mut bytes = vec![7; 24];
    bytes[1] = 4;
    bytes
}

fn fixable() -> Vec<Case> {
    let lengths = [0, 1, 2, 3, 19, 20, 21, 36, 37, 87, 88, 300, 301, 548, 1451, 1452];
    let mut cases: Vec<_> = lengths
        .into_iter()
        .map(|len| fixed(&format!("a partial DHCPv6 reply of {len} bytes"), &Packet::reply6(len)))
        .collect();
    let chains = [
        ("hop-by-hop options", vec![(HOP_BY_HOP, options(8))]),
        ("destination options", vec![(DESTINATION, options(24))]),
        ("long destination options", vec![(DESTINATION, options(64))]),
        ("the longest that is taken out", vec![(DESTINATION, options(96))]),
        ("a routing header at its end", vec![(ROUTING, routing(0))]),
        ("an authentication header", vec![(AUTHENTICATION, authentication())]),
        ("an atomic fragment", vec![(FRAGMENT, fragment(0, false))]),
        (
            "six extension headers",
            vec![
                (HOP_BY_HOP, options(8)),
                (DESTINATION, options(8)),
                (ROUTING, routing(0)),
                (FRAGMENT, fragment(0, false)),
                (AUTHENTICATION, authentication()),
                (DESTINATION, options(8)),
            ],
        ),
    ];
    for (name, chain) in chains {
        for len in [9, 200] {
            let packet = Packet::reply6(len).with_extensions(&chain);
            cases.push(fixed(&format!("{name} before {len} bytes"), &packet));
        }
    }
    cases.extend([
        padded(fixed("padding behind a DHCPv6 reply", &Packet::reply6(101)), &[0xee; 31]),
        fixed("a computed zero over IPv6", &Packet::reply6(200).aim_at(0xffff)),
        Case {
            rules: vec![Rule::new(fixer_common::rule::Kinds::UDP, Some(67), Some(68))],
            ..fixed(
                "UDP from port 67 to 68 over IPv6, asked for",
                &Packet { source: 67, destination: 68, ..Packet::reply6(300) },
            )
        },
    ]);
    cases
}

fn left_alone() -> Vec<Case> {
    let reply = Packet::reply6(300);
    let wrong =
        |name: &str, checksum| untouched(name, reply.with_checksum(checksum), Verdict::Corrupt);
    // A right sum of 0 is sent as 0xffff: over IPv6 a 0 is never right, whatever it adds up to.
    let adds_up = Packet::reply6(200).aim_at(0xffff).with_checksum(0);
    let chain = [(HOP_BY_HOP, options(16))];
    vec![
        untouched("a valid DHCPv6 reply", reply.right(), Verdict::Valid),
        untouched("an odd valid DHCPv6 reply", Packet::reply6(77).right(), Verdict::Valid),
        untouched(
            "a valid DHCPv6 reply behind options",
            Packet::reply6(50).with_extensions(&chain).right(),
            Verdict::Valid,
        ),
        wrong("no checksum over IPv6", 0),
        untouched("no checksum over IPv6 that would add up", adds_up, Verdict::Corrupt),
        wrong("a wrong checksum over IPv6", reply.checksum() ^ 0x10),
        untouched(
            "more extension headers than fixer takes out",
            Packet::reply6(200).with_extensions(&[(DESTINATION, options(104))]).partial(),
            Verdict::Oversize,
        ),
    ]
}

fn fragments() -> Vec<Case> {
    let fragmented = |name: &str, header: Vec<u8>, verdict: Option<Verdict>| {
        let packet = Packet::reply6(300).with_extensions(&[(FRAGMENT, header)]);
        untouched(name, packet.partial(), verdict)
    };
    vec![
        fragmented("a first fragment over IPv6", fragment(0, true), Some(Verdict::Fragment)),
        fragmented("a later fragment over IPv6", fragment(8, true), None),
        fragmented("a last fragment over IPv6", fragment(8, false), None),
        Case {
            rules: vec![Rule::new(fixer_common::rule::Kinds::UDP, None, None)],
            ..fragmented(
                "a later fragment over IPv6, every port",
                fragment(8, true),
                Some(Verdict::Fragment),
            )
        },
    ]
}

fn malformed() -> Vec<Case> {
    use Verdict::Malformed;
    let changed = |name: &str, verdict: Option<Verdict>, change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = Packet::reply6(300).right();
        change(&mut frame);
        untouched(name, frame, verdict)
    };
    let longer = |frame: &mut Vec<u8>, by: i16| {
        let len = get(frame, PAYLOAD_LENGTH).wrapping_add_signed(by);
        put(frame, PAYLOAD_LENGTH, len);
    };
    vec![
        changed("an IPv6 length behind the frame", Some(Malformed), &|frame| longer(frame, 1)),
        changed("an IPv6 length before the UDP length", Some(Malformed), &|frame| {
            longer(frame, -1)
        }),
        changed("an IPv6 length of 0", Some(Malformed), &|frame| put(frame, PAYLOAD_LENGTH, 0)),
        changed("a UDP length of 0 over IPv6", Some(Malformed), &|frame| put(frame, IP + 44, 0)),
        changed("an IPv6 frame cut behind the ports", Some(Malformed), &|frame| frame.truncate(58)),
        changed("an IPv6 frame cut in the ports", None, &|frame| frame.truncate(57)),
        changed("options that reach behind the IPv6 frame", None, &|frame| {
            frame[NEXT_HEADER] = DESTINATION;
            frame[IP + 41] = 200;
        }),
    ]
}

fn not_ours() -> Vec<Case> {
    let ports = Packet { source: 546, destination: 547, ..Packet::reply6(100) };
    let with = |kind: u8, bytes: Vec<u8>| Packet::reply6(100).with_extensions(&[(kind, bytes)]);
    let seven: Vec<_> = (0..7).map(|_| (DESTINATION, options(8))).collect();
    vec![
        untouched("partial, from port 546 to 547", ports.partial(), None),
        untouched("on its way to another address first", with(ROUTING, routing(1)).partial(), None),
        untouched("encrypted", with(ESP, options(8)).partial(), None),
        untouched(
            "seven extension headers",
            Packet::reply6(100).with_extensions(&seven).partial(),
            None,
        ),
        Case {
            rules: vec![Rule::DHCP],
            ..untouched("DHCPv6 that was not asked for", Packet::reply6(100).partial(), None)
        },
    ]
}
