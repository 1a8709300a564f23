//! What a packet pays that is none of ours: a count of instructions that may shrink and not grow.
//!
//! How long they take is for `cargo xtask bench` to say; here nothing depends on the machine. The
//! program that does nothing has two instructions.

use anyhow::{Result, ensure};
use fixer_common::{
    abi::Hook,
    rule::{Kinds, MOST, Rule},
};
use fixer_tests::{
    bpf::{load_classifier, returning, translated},
    frames::{Network, Packet},
    kernel::load,
    walk::{Memory, Walk, walk},
};

/// `TC_ACT_UNSPEC`: let the others go on.
const UNSPEC: i32 = -1;

/// Packets to a port that nobody asks for, of every kind that there is much of, and the most
/// instructions that each may take under the rules of [`sets`].
fn packets() -> Vec<(&'static str, Vec<u8>, [usize; 3])> {
    let elsewhere = |packet: Packet| Packet { source: 5000, destination: 5001, ..packet };
    let v6 = || Network::V6(Vec::new());
    let arp = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1, 8, 6], &[0; 46]].concat();
    vec![
        ("UDP", elsewhere(Packet::reply(300)).right(), [15, 27, 63]),
        ("TCP", elsewhere(Packet::segment(Network::V4(vec![]), 1400)).right(), [15, 27, 63]),
        ("UDP over IPv6", elsewhere(Packet::reply6(300)).right(), [17, 42, 84]),
        ("TCP over IPv6", elsewhere(Packet::segment(v6(), 1400)).right(), [17, 42, 84]),
        ("ARP", arp, [17, 18, 18]),
    ]
}

/// Sets of rules: what is on by default, TCP on top of it, and as many as there can be, each about
/// every kind.
fn sets() -> [(&'static str, Vec<Rule>); 3] {
    let exact = |at: usize| Rule::new(Kinds::ALL, Some(1000 + at as u16), Some(2000 + at as u16));
    let tcp = Rule::new(Kinds::TCP, Some(3260), None);
    [
        ("dhcp", vec![Rule::DHCP]),
        ("dhcp and tcp", vec![Rule::DHCP, tcp]),
        ("as many rules as there can be", (0..MOST).map(exact).collect()),
    ]
}

#[test]
fn a_packet_that_is_none_of_ours_pays_no_more_than_it_did() -> Result<()> {
    let mut grown = Vec::new();
    for (at, (set, rules)) in sets().into_iter().enumerate() {
        let mut object = load(&rules)?;
        for hook in [Hook::Egress, Hook::Ingress] {
            let program = translated(object.classifier(hook)?.fd()?)?;
            for (name, frame, most) in packets() {
                let most = most[at];
                let walk = walk(&program, &Memory::new(&program, &frame)?)?;
                println!("{set}, {}, {name}: {walk:?}, at most {most}", hook.name());
                if !matches!(walk, Walk::Ended(steps, UNSPEC) if steps <= most) {
                    grown.push(format!("{set}, {}, {name}: {walk:?}, not {most}", hook.name()));
                }
            }
        }
    }
    ensure!(
        grown.is_empty(),
        "every packet pays for this: take it out again, or write the new number down if it is worth \
         that:\n{}",
        grown.join("\n")
    );
    Ok(())
}

#[test]
fn a_packet_that_is_ours_is_looked_at() -> Result<()> {
    let mut object = load(&[Rule::DHCP])?;
    let program = translated(object.classifier(Hook::Egress)?.fd()?)?;
    let frame = Packet::reply(300).partial();
    let walk = walk(&program, &Memory::new(&program, &frame)?)?;
    ensure!(matches!(walk, Walk::Called(_)), "{walk:?}");
    Ok(())
}

#[test]
fn the_shortest_program_is_walked_through() -> Result<()> {
    fixer_tests::kernel::require_root()?;
    let program = translated(load_classifier(&returning(UNSPEC))?)?;
    let walk = walk(&program, &Memory::new(&program, &[0; 60])?)?;
    ensure!(walk == Walk::Ended(2, UNSPEC), "{walk:?}");
    Ok(())
}
