//! UDP over IPv4: the replies of a DHCP server, and what looks like them.

use etherparse::PacketBuilder;
use fixer_common::{parse::LONGEST_FRAME, rule::Rule, verdict::Verdict};

use super::{Case, Group, fixed, padded, untouched};
use crate::frames::{FRAGMENT, IP, Packet, TOTAL_LENGTH, get, put};

/// The cases.
pub fn groups() -> Vec<Group> {
    vec![
        ("partial replies over IPv4", fixable()),
        ("complete replies over IPv4", fine()),
        ("corrupt replies over IPv4", wrong()),
        ("fragments, segmentation offload, oversize", unsummable()),
        ("lengths that lie, frames cut short", malformed()),
        ("what only looks like a reply", not_ours()),
    ]
}

/// A valid reply after a change that makes it something else.
fn changed(
    name: &str,
    verdict: impl Into<Option<Verdict>>,
    change: impl FnOnce(&mut Vec<u8>),
) -> Case {
    let mut frame = Packet::reply(300).right();
    change(&mut frame);
    untouched(name, frame, verdict)
}

/// Partial packets of every shape.
fn fixable() -> Vec<Case> {
    // 236 bytes are BOOTP's fixed part, 240 with the magic cookie, 244 with the shortest message type
    // and end; 300 is what RFC 1542 pads to, 548 what every client must take, 1,472 fills a frame.
    let lengths =
        [0, 1, 2, 3, 5, 11, 12, 13, 31, 32, 33, 236, 240, 243, 244, 300, 301, 503, 504, 505];
    let long = [547, 548, 576, 1023, 1024, 1025, 1471, 1472];
    let mut cases: Vec<_> = lengths
        .into_iter()
        .chain(long)
        .map(|len| fixed(&format!("a partial reply of {len} bytes"), &Packet::reply(len)))
        .collect();
    for options in (4..=40).step_by(4) {
        let name = format!("a partial reply with {options} bytes of IP options");
        cases.push(fixed(&name, &Packet::reply(301).with_options(options)));
    }
    cases.extend([
        fixed("a short partial reply with IP options", &Packet::reply(7).with_options(40)),
        padded(fixed("Ethernet padding of zeros", &Packet::reply(4)), &[0; 14]),
        padded(fixed("Ethernet padding that is not zero", &Packet::reply(3)), &[0xa5; 15]),
        padded(fixed("padding behind an odd datagram", &Packet::reply(301)), &[0x5a; 9]),
        padded(fixed("much padding behind a reply", &Packet::reply(244)), &[0xff; 400]),
        fixed("a computed zero is stored as 0xffff", &Packet::reply(300).aim_at(0xffff)),
        fixed("a pseudo-header sum of 0xffff", &pseudo_header_of_ones()),
        // The mark was lost on the way, the sum was never finished.
        Case { partial: None, ..fixed("a sum that once was partial", &Packet::reply(300)) },
    ]);
    let mut do_not_fragment = fixed("the flag that forbids fragments", &Packet::reply(300));
    for frame in [&mut do_not_fragment.frame, &mut do_not_fragment.out] {
        put(frame, FRAGMENT, 0x4000);
    }
    cases.push(do_not_fragment);
    let other_port = Packet { source: 4011, destination: 4011, ..Packet::reply(300) };
    let pxe = Rule::new(Rule::DHCP.kinds, Some(4011), None);
    cases.push(Case {
        rules: vec![Rule::DHCP, pxe],
        ..fixed("the second rule matches", &other_port)
    });
    let any = Rule::new(Rule::DHCP.kinds, None, None);
    let ports = Packet { source: 9, destination: 65535, ..Packet::reply(90) };
    cases.push(Case { rules: vec![any], ..fixed("a rule for every port", &ports) });
    cases
}

/// The length that makes the pseudo-header sum fold to 0xffff with the addresses of the frames.
fn pseudo_header_of_ones() -> Packet {
    let addresses_and_protocol = 0x0a00 + 0x0301 + 0x0a00 + 0x0381 + 17;
    let len = 0xffff - addresses_and_protocol;
    // That is longer than a frame; a reply of ordinary length cannot get there with these addresses.
    assert!(len > 1480);
    Packet::reply(300).aim_at(0x0001)
}

/// Packets that need nothing.
fn fine() -> Vec<Case> {
    let reply = Packet::reply(300);
    // A field that equals the pseudo-header sum and verifies all the same: finishing would store what
    // is there already.
    let coincidence = Packet::reply(300);
    let coincidence = coincidence.clone().aim_at(coincidence.pseudo_header());
    let mut cases: Vec<_> = [0, 1, 240, 301, 548, 1472]
        .into_iter()
        .map(|len| {
            untouched(
                &format!("a valid reply of {len} bytes"),
                Packet::reply(len).right(),
                Verdict::Valid,
            )
        })
        .collect();
    cases.extend([
        untouched(
            "a valid reply with IP options",
            Packet::reply(300).with_options(12).right(),
            Verdict::Valid,
        ),
        untouched(
            "a valid sum of 0xffff",
            Packet::reply(300).aim_at(0xffff).right(),
            Verdict::Valid,
        ),
        untouched(
            "valid by coincidence with the pseudo-header",
            coincidence.right(),
            Verdict::Valid,
        ),
        untouched("no checksum", reply.with_checksum(0), Verdict::Unchecked),
        padded(
            untouched("valid, with padding", Packet::reply(3).right(), Verdict::Valid),
            &[9; 15],
        ),
    ]);
    cases
}

/// Packets that are damaged: they are reported and never repaired.
fn wrong() -> Vec<Case> {
    let reply = Packet::reply(300);
    let payload_at = reply.start() + 8;
    let mut cases = vec![
        untouched(
            "a checksum of 0xffff that is wrong",
            reply.with_checksum(0xffff),
            Verdict::Corrupt,
        ),
        untouched("a checksum of 1 that is wrong", reply.with_checksum(1), Verdict::Corrupt),
        untouched(
            "the complement of the right sum",
            reply.with_checksum(!reply.checksum()),
            Verdict::Corrupt,
        ),
        untouched(
            "the complement of a partial sum",
            reply.with_checksum(!reply.pseudo_header()),
            Verdict::Corrupt,
        ),
        untouched(
            "one more than a partial sum",
            reply.with_checksum(reply.pseudo_header() + 1),
            Verdict::Corrupt,
        ),
        untouched(
            "the bytes of the right sum swapped",
            reply.with_checksum(reply.checksum().swap_bytes()),
            Verdict::Corrupt,
        ),
        changed("a flipped bit in the payload", Verdict::Corrupt, |frame| {
            frame[payload_at + 100] ^= 4
        }),
        changed("a flipped bit in the last byte", Verdict::Corrupt, |frame| {
            if let Some(last) = frame.last_mut() {
                *last ^= 1;
            }
        }),
        changed("another source address", Verdict::Corrupt, |frame| frame[IP + 15] ^= 7),
    ];
    let mut odd = Packet::reply(301).right();
    if let Some(last) = odd.last_mut() {
        *last ^= 0x80;
    }
    cases.push(untouched("a flipped bit in an odd last byte", odd, Verdict::Corrupt));
    cases
}

/// Packets whose datagram is not there as a whole.
fn unsummable() -> Vec<Case> {
    let any = vec![Rule::new(Rule::DHCP.kinds, None, None)];
    vec![
        changed("a first fragment", Verdict::Fragment, |frame| put(frame, FRAGMENT, 0x2000)),
        // Its first bytes look like ports, and are payload.
        changed("a later fragment has no ports", None, |frame| put(frame, FRAGMENT, 0x2010)),
        changed("a last fragment has no ports", None, |frame| put(frame, FRAGMENT, 0x0010)),
        Case {
            rules: any,
            ..changed("a later fragment under a rule for every port", Verdict::Fragment, |frame| {
                put(frame, FRAGMENT, 0x0010);
            })
        },
        Case {
            gso: true,
            ..untouched(
                "a segmentation-offload packet",
                Packet::reply(1400).partial(),
                Verdict::Gso,
            )
        },
        untouched(
            "a datagram beyond a jumbo frame",
            Packet::reply(9209).partial(),
            Verdict::Oversize,
        ),
        fixed("a datagram that fills a jumbo frame", &Packet::reply(9208)),
        fixed("an odd datagram in a jumbo frame", &Packet::reply(9001)),
        // A frame that could not grow to its length again half-way must not be shrunk.
        padded(
            fixed("the longest frame that is looked into", &Packet::reply(300)),
            &vec![0; LONGEST_FRAME - 342],
        ),
        padded(
            untouched(
                "a frame with one byte of padding more",
                Packet::reply(300).partial(),
                Verdict::Oversize,
            ),
            &vec![0; LONGEST_FRAME - 341],
        ),
    ]
}

/// Packets that lie about their lengths, or are cut short.
fn malformed() -> Vec<Case> {
    use Verdict::Malformed;
    let udp_length = Packet::reply(300).start() + 4;
    let cut = |name: &str, len: usize, verdict: Option<Verdict>| {
        changed(name, verdict, |frame| frame.truncate(len))
    };
    vec![
        changed("a UDP length that is too long", Malformed, |frame| put(frame, udp_length, 309)),
        changed("a UDP length that is too short", Malformed, |frame| put(frame, udp_length, 307)),
        changed("a UDP length below its header's", Malformed, |frame| put(frame, udp_length, 7)),
        changed("a UDP length of 0", Malformed, |frame| put(frame, udp_length, 0)),
        changed("a UDP length of 65,535", Malformed, |frame| put(frame, udp_length, 65535)),
        changed("an IP length behind the frame", Malformed, |frame| {
            let len = get(frame, TOTAL_LENGTH);
            put(frame, TOTAL_LENGTH, len + 1);
        }),
        changed("an IP length that ends in the UDP header", Malformed, |frame| {
            put(frame, TOTAL_LENGTH, 27)
        }),
        changed("an IP length that ends in the IP header", Malformed, |frame| {
            put(frame, TOTAL_LENGTH, 19)
        }),
        changed("an IP length of 0", Malformed, |frame| put(frame, TOTAL_LENGTH, 0)),
        cut("a frame cut in the payload", 200, Some(Malformed)),
        cut("a frame cut by one byte", 341, Some(Malformed)),
        cut("a frame cut behind the UDP header", 42, Some(Malformed)),
        cut("a frame cut in the checksum", 41, Some(Malformed)),
        cut("a frame cut behind the ports", 38, Some(Malformed)),
        cut("a frame cut in the ports", 37, None),
        cut("a frame cut in the IP header", 30, None),
        cut("a frame cut behind the Ethernet header", 14, None),
        changed("options that reach behind the frame", None, |frame| {
            frame[IP] = 0x4f;
            frame.truncate(50);
        }),
    ]
}

/// Packets that no rule asks for, however much they look like it.
fn not_ours() -> Vec<Case> {
    let ports = |source, destination| Packet { source, destination, ..Packet::reply(300) };
    let mut cases: Vec<_> =
        [(68, 67), (67, 67), (68, 68), (67, 69), (66, 68), (53, 4000), (0x4300, 0x4400)]
            .into_iter()
            .map(|(source, destination)| {
                let name = format!("partial, from port {source} to {destination}");
                untouched(&name, ports(source, destination).partial(), None)
            })
            .collect();
    let mut tcp = Vec::new();
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [0xff; 6])
        .ipv4([10, 0, 3, 1], [10, 0, 3, 129], 64)
        .tcp(67, 68, 1, 1000)
        .write(&mut tcp, &[7; 300])
        .expect("a vector takes every byte");
    let mut ipv6 = Vec::new();
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [0xff; 6])
        .ipv6([1; 16], [2; 16], 64)
        .udp(67, 68)
        .write(&mut ipv6, &[7; 300])
        .expect("a vector takes every byte");
    cases.extend([
        untouched("TCP from port 67 to 68", tcp, None),
        untouched("UDP from port 67 to 68 over IPv6", ipv6, None),
        changed("an ARP frame that holds a reply", None, |frame| put(frame, 12, 0x0806)),
        changed("a frame of an unknown type", None, |frame| put(frame, 12, 0x88b5)),
        changed("IP version 6 in an IPv4 frame", None, |frame| frame[IP] = 0x65),
        changed("an IP header shorter than it can be", None, |frame| frame[IP] = 0x44),
        changed("ICMP that looks like it", None, |frame| frame[IP + 9] = 1),
        Case {
            rules: Vec::new(),
            ..untouched("no rule at all", Packet::reply(300).partial(), None)
        },
    ]);
    cases
}
