//! VLAN tags inside the frame, and, at ingress, the outer one beside it: there the kernel has moved it.

use std::mem;

use fixer_common::verdict::Verdict;

use super::{Case, Group, fixed, padded, untouched};
use crate::frames::{self, FRAGMENT, Packet, put};

/// A customer's tag: VLAN 100, priority 5.
const CUSTOMER: [u8; 4] = [0x81, 0x00, 0xa0, 100];
/// Another customer's tag: VLAN 4094, drop eligible.
const OTHER: [u8; 4] = [0x81, 0x00, 0x1f, 0xfe];
/// A provider's tag: VLAN 7.
const PROVIDER: [u8; 4] = [0x88, 0xa8, 0x00, 7];
/// A priority tag: no VLAN at all.
const PRIORITY: [u8; 4] = [0x81, 0x00, 0xe0, 0];

/// The cases.
pub fn groups() -> Vec<Group> {
    vec![("VLAN tags, one and two", cases())]
}

fn cases() -> Vec<Case> {
    let stacks: [(&str, &[[u8; 4]]); 6] = [
        ("a tag", &[CUSTOMER]),
        ("a provider's tag", &[PROVIDER]),
        ("a priority tag", &[PRIORITY]),
        ("QinQ", &[PROVIDER, CUSTOMER]),
        ("two customer's tags", &[CUSTOMER, OTHER]),
        ("two provider's tags", &[PROVIDER, PROVIDER]),
    ];
    let mut cases = Vec::new();
    for (name, tags) in stacks {
        let case = |case: Case| tagged(name, tags, case);
        for len in [3, 300, 301, 1472] {
            cases
                .push(case(fixed(&format!("a partial reply of {len} bytes"), &Packet::reply(len))));
        }
        let options = Packet::reply(244).with_options(24);
        let mut fragment = Packet::reply(300).partial();
        put(&mut fragment, FRAGMENT, 0x2000);
        let mut cut = Packet::reply(300).partial();
        cut.truncate(200);
        cases.extend([
            case(fixed("a partial reply with IP options", &options)),
            case(fixed("a partial DHCPv6 reply", &Packet::reply6(133))),
            case(fixed("a short partial DHCPv6 reply", &Packet::reply6(4))),
            case(padded(fixed("padding", &Packet::reply(2)), &[0x11; 16])),
            case(untouched("valid", Packet::reply(300).right(), Verdict::Valid)),
            case(untouched("corrupt", Packet::reply(300).with_checksum(0x1234), Verdict::Corrupt)),
            case(untouched("no checksum", Packet::reply(300).with_checksum(0), Verdict::Unchecked)),
            case(untouched("a first fragment", fragment, Verdict::Fragment)),
            case(untouched("cut short", cut, Verdict::Malformed)),
        ]);
        let stranger = Packet { destination: 69, ..Packet::reply(300) };
        cases.push(case(untouched("another port", stranger.partial(), None)));
    }
    cases
}

/// The same case with tags in the frame, the outermost first.
fn tagged(name: &str, tags: &[[u8; 4]], mut case: Case) -> Case {
    case.name = format!("{name}: {}", case.name);
    for frame in [&mut case.frame, &mut case.out] {
        *frame = frames::tagged(mem::take(frame), tags);
    }
    if let Some(partial) = &mut case.partial {
        partial.csum_start += 4 * tags.len() as u16;
    }
    case
}
