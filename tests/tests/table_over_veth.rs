//! The table of cases over a real veth pair: partial packets go in, an `AF_PACKET` reader looks at
//! what comes out.

use std::{fs, io::ErrorKind, time::Duration};

use anyhow::{Context as _, Result, ensure};
use fixer_common::{abi::Hook, rule::Rule, verdict::Verdict};
use fixer_tests::{
    cases::{Case, cases},
    frames::{Packet, put},
    kernel::{counted, load, load_with, require_root, verdict_between},
};
use fixer_user::{
    bpf::attach::Wish,
    lab::{
        link,
        packet::{PacketSocket, Received, wait_until_open},
    },
    net::netns::NetNs,
};

const PATIENCE: Duration = Duration::from_secs(5);

/// Wide enough for jumbo frames.
const MTU: u32 = 9500;

/// A veth pair, a sender at its near end, and a reader that sees what the programs let through.
struct Way {
    near: NetNs,
    far: NetNs,
    sender: PacketSocket,
    receiver: PacketSocket,
    _behind: Option<NetNs>,
}

impl Way {
    /// The reader is at the far end.
    fn direct() -> Result<Self> {
        let (near, far) = (NetNs::scratch("near")?, NetNs::scratch("far")?);
        veth(&near, "near", &far, "far")?;
        let sender = PacketSocket::open(&near, "near")?;
        let receiver = PacketSocket::open(&far, "far")?;
        wait_until_open(&sender, &receiver)?;
        Ok(Self { near, far, sender, receiver, _behind: None })
    }

    /// The far end is a port of a bridge, and the reader is behind another port of it: at the far
    /// end itself an `AF_PACKET` socket would see frames before the programs at ingress do.
    fn over_bridge() -> Result<Self> {
        let (near, far, behind) =
            (NetNs::scratch("near")?, NetNs::scratch("far")?, NetNs::scratch("behind")?);
        link::bridge(&far, "bridge")?;
        veth(&near, "near", &far, "far")?;
        veth(&far, "out", &behind, "behind")?;
        for port in ["far", "out"] {
            link::enslave(&far, port, "bridge")?;
        }
        link::mtu(&far, "bridge", MTU)?;
        leave_bridged_packets_alone(&far)?;
        let sender = PacketSocket::open(&near, "near")?;
        let receiver = PacketSocket::open(&behind, "behind")?;
        wait_until_open(&sender, &receiver)?;
        Ok(Self { near, far, sender, receiver, _behind: Some(behind) })
    }
}

fn veth(netns: &NetNs, name: &str, other: &NetNs, peer: &str) -> Result<()> {
    link::veth(netns, name, other, peer)?;
    link::mtu(netns, name, MTU)?;
    Ok(link::mtu(other, peer, MTU)?)
}

/// Where br_netfilter is there, it collects fragments and trims or drops malformed packets by
/// default.
fn leave_bridged_packets_alone(netns: &NetNs) -> Result<()> {
    for switch in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
        let off = || fs::write(format!("/proc/sys/net/bridge/{switch}"), "0");
        match netns.run(off)? {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

#[test]
fn every_case_leaves_egress_with_its_verdict_and_its_bytes() -> Result<()> {
    over_veth(Hook::Egress, Wish::Auto, false)
}

#[test]
fn every_case_passes_ingress_with_its_verdict_and_its_bytes() -> Result<()> {
    over_veth(Hook::Ingress, Wish::Auto, false)
}

#[test]
fn every_case_leaves_egress_of_a_clsact_qdisc_alike() -> Result<()> {
    over_veth(Hook::Egress, Wish::Clsact, false)
}

/// What an older kernel needs does no harm on any other.
#[test]
fn every_case_leaves_alike_when_frames_are_shrunk_twice() -> Result<()> {
    over_veth(Hook::Egress, Wish::Auto, true)
}

fn over_veth(hook: Hook, wish: Wish, shrink_twice: bool) -> Result<()> {
    require_root()?;
    let way = match hook {
        Hook::Egress => Way::direct()?,
        Hook::Ingress => Way::over_bridge()?,
    };
    let mut cases: Vec<_> = cases().into_iter().filter(|case| !case.gso).collect();
    // One load for all cases of the same rules.
    cases.sort_by_key(|case| format!("{:?}", case.rules));
    for group in cases.chunk_by(|one, other| one.rules == other.rules) {
        let mut object = load_with(&group[0].rules, shrink_twice)?;
        let (netns, interface) = match hook {
            Hook::Egress => (&way.near, "near"),
            Hook::Ingress => (&way.far, "far"),
        };
        let attachment = netns.run(|| object.attach(interface, hook, wish))??;
        for (number, case) in group.iter().enumerate() {
            let before = counted(&object)?;
            pass(&way, case, number).with_context(|| case.name.clone())?;
            let verdict = verdict_between(before, counted(&object)?)?;
            ensure!(verdict == case.verdict, "{}: {verdict:?}, not {:?}", case.name, case.verdict);
        }
        netns.run(|| object.detach(attachment))??;
    }
    Ok(())
}

/// The kernel believes a raw sender's word for what a frame is. Where that and the frame disagree
/// about tags, the fix is not tried: `failed`, and not a byte is changed.
#[test]
fn a_frame_that_the_kernel_takes_for_another_is_left_intact() -> Result<()> {
    require_root()?;
    let way = Way::direct()?;
    let mut object = load(&[Rule::DHCP])?;
    let attachment = way.near.run(|| object.attach("near", Hook::Egress, Wish::Auto))??;
    let bare = Packet::reply(300);
    let tagged = {
        let mut frame = bare.partial();
        frame.splice(12..12, [0x81, 0, 0, 100]);
        frame
    };
    let tries = [
        (&tagged, 0x0800, Verdict::Failed),
        (&tagged, 0x86dd, Verdict::Failed),
        (&tagged, 0x88b5, Verdict::Failed),
        (&bare.partial(), 0x88b5, Verdict::Failed),
        (&bare.partial(), 0x8100, Verdict::Failed),
        (&bare.partial(), 0x0800, Verdict::Fixed),
        (&bare.partial(), 0x86dd, Verdict::Fixed),
    ];
    for (number, (frame, ether_type, expected)) in tries.into_iter().enumerate() {
        let mut frame = frame.clone();
        frame[11] = number as u8;
        let before = counted(&object)?;
        way.sender.send_as(&frame, None, ether_type)?;
        let is_it = |received: &Received| received.on_wire()[..12] == frame[..12];
        let received = way.receiver.receive(PATIENCE, is_it)?.context("it did not arrive")?;
        let verdict = verdict_between(before, counted(&object)?)?;
        ensure!(verdict == Some(expected), "as {ether_type:#06x}: {verdict:?}, not {expected:?}");
        if expected == Verdict::Fixed {
            put(&mut frame, bare.checksum_at(), bare.checksum());
        }
        ensure!(received.on_wire() == frame, "as {ether_type:#06x}: other bytes came out");
    }
    way.near.run(|| object.detach(attachment))??;
    Ok(())
}

/// Sends the case's frame and compares what arrives. The source address tells the frames apart.
fn pass(way: &Way, case: &Case, number: usize) -> Result<()> {
    let (mut frame, mut out) = (case.frame.clone(), case.out.clone());
    for frame in [&mut frame, &mut out] {
        frame[6..12].copy_from_slice(&[2, 0, 0, 9, (number >> 8) as u8, number as u8]);
    }
    way.sender.send(&frame, case.partial)?;
    let is_it = |bytes: &[u8]| bytes.get(6..12) == Some(&frame[6..12]);
    let received = way
        .receiver
        .receive(PATIENCE, |received| is_it(&received.bytes))?
        .context("it did not arrive")?;
    let may_stay = case.partial.is_some() && case.verdict != Some(Verdict::Fixed);
    ensure!(!received.partial || may_stay, "it is still partial");
    ensure!(received.on_wire() == out, "other bytes came out");
    Ok(())
}
