//! The one table of cases: a frame, and what must become of it.

use fixer_common::{rule::Rule, verdict::Verdict};
use fixer_user::lab::packet::Partial;

use crate::frames::Packet;

mod ipv4;
mod ipv6;
mod tcp;
mod vlan;

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    /// The group it belongs to.
    pub group: &'static str,
    /// What it is about.
    pub name: String,
    /// The rules that are loaded.
    pub rules: Vec<Rule>,
    /// The frame as the program sees it.
    pub frame: Vec<u8>,
    /// Where its sum is to be finished, if the packet is marked partial.
    pub partial: Option<Partial>,
    /// Whether it is a segmentation-offload packet.
    pub gso: bool,
    /// What must become of it; `None`: no rule matches, and nothing is counted.
    pub verdict: Option<Verdict>,
    /// What must come out.
    pub out: Vec<u8>,
}

/// Every case, group by group.
pub fn cases() -> Vec<Case> {
    [ipv4::groups(), ipv6::groups(), tcp::groups(), vlan::groups()]
        .concat()
        .into_iter()
        .flat_map(|(group, cases)| cases.into_iter().map(move |case| Case { group, ..case }))
        .collect()
}

/// Cases under a common title.
type Group = (&'static str, Vec<Case>);

/// A case under the rules for DHCP whose frame must come out as it went in.
fn untouched(name: &str, frame: Vec<u8>, verdict: impl Into<Option<Verdict>>) -> Case {
    Case {
        group: "",
        name: name.to_owned(),
        rules: vec![Rule::DHCP, Rule::DHCPV6],
        out: frame.clone(),
        frame,
        partial: None,
        gso: false,
        verdict: verdict.into(),
    }
}

/// A partial packet that must come out with its right sum.
fn fixed(name: &str, packet: &Packet) -> Case {
    let partial =
        Partial { csum_start: packet.start() as u16, csum_offset: packet.checksum_offset() as u16 };
    Case {
        partial: Some(partial),
        verdict: Some(Verdict::Fixed),
        out: packet.right(),
        ..untouched(name, packet.partial(), None)
    }
}

/// The same with bytes behind the datagram: Ethernet padding is not part of it.
fn padded(mut case: Case, padding: &[u8]) -> Case {
    case.frame.extend_from_slice(padding);
    case.out.extend_from_slice(padding);
    case
}
