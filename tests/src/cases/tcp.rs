//! TCP segments that are not segmentation-offload packets.

use fixer_common::{
    rule::{Kinds, Rule},
    verdict::Verdict,
};

use super::{Case, Group, fixed, untouched};
use crate::frames::{Network, Packet};

/// The cases.
pub fn groups() -> Vec<Group> {
    vec![("TCP segments", cases())]
}

/// Most of them under a rule for every TCP segment.
fn cases() -> Vec<Case> {
    let every_segment = vec![Rule::new(Kinds::TCP, None, None)];
    let mut cases = Vec::new();
    for (name, network) in [
        ("IPv4", Network::V4(Vec::new())),
        ("IPv4 with options", Network::V4(vec![1; 8])),
        ("IPv6", Network::V6(Vec::new())),
    ] {
        let segment = |len| Packet::segment(network.clone(), len);
        for len in [0, 1, 2, 33, 512, 1411] {
            cases.push(fixed(
                &format!("a partial segment of {len} bytes over {name}"),
                &segment(len),
            ));
        }
        let data_offset = segment(0).start() + 12;
        let mut too_long = segment(10).partial();
        too_long[data_offset] = 0xf0;
        let mut too_short = segment(10).partial();
        too_short[data_offset] = 0x40;
        let checksum = segment(90).checksum();
        cases.extend([
            untouched(&format!("a valid segment over {name}"), segment(91).right(), Verdict::Valid),
            untouched(
                &format!("a corrupt segment over {name}"),
                segment(90).with_checksum(checksum ^ 0x0100),
                Verdict::Corrupt,
            ),
            untouched(
                &format!("a checksum of 0 that is wrong, over {name}"),
                segment(90).with_checksum(0),
                Verdict::Corrupt,
            ),
            untouched(
                &format!("a checksum of 0 that is right, over {name}"),
                segment(90).aim_at_zero(),
                Verdict::Valid,
            ),
            untouched(
                &format!("a TCP header that is too long, over {name}"),
                too_long,
                Verdict::Malformed,
            ),
            untouched(
                &format!("a TCP header that is too short, over {name}"),
                too_short,
                Verdict::Malformed,
            ),
            Case {
                gso: true,
                ..untouched(
                    &format!("TCP segmentation offload over {name}"),
                    segment(1400).partial(),
                    Verdict::Gso,
                )
            },
        ]);
    }
    for case in &mut cases {
        case.rules.clone_from(&every_segment);
    }
    cases.push(Case {
        rules: vec![Rule::new(Kinds::TCP, Some(67), Some(68))],
        ..fixed("a TCP rule with ports", &Packet::segment(Network::V4(Vec::new()), 77))
    });
    cases.push(Case {
        rules: vec![Rule::new(Kinds::TCP, Some(67), Some(69))],
        ..untouched(
            "a TCP rule with other ports",
            Packet::segment(Network::V4(Vec::new()), 77).partial(),
            None,
        )
    });
    cases
}
