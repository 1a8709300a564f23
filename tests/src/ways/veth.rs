//! Over a real veth pair: partial packets go in, an `AF_PACKET` reader looks at what comes out.
//!
//! Frames of 4,096 bytes and more are sent with nothing but their Ethernet header in reach, so the
//! programs have to pull the rest in.

use std::{fs, io::ErrorKind, time::Duration};

use anyhow::{Context as _, Result, ensure};
use fixer_common::{abi::Hook, verdict::Verdict};
use fixer_user::{
    bpf::attach::Wish,
    lab::{
        link,
        packet::{PacketSocket, wait_until_open},
    },
    net::netns::NetNs,
};

use super::{Passed, groups};
use crate::{
    cases::Case,
    kernel::{counted, load_with, require_root, verdict_between},
};

/// How long a frame may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Wide enough for jumbo frames.
const MTU: u32 = 9500;

/// A sender, a reader, and an interface between them that programs are attached to.
pub struct Line {
    /// Where the interface is.
    pub netns: NetNs,
    /// The interface.
    pub interface: &'static str,
    /// The raw sender.
    pub sender: PacketSocket,
    /// The reader, which sees what the programs let through.
    pub receiver: PacketSocket,
    _others: Vec<NetNs>,
}

impl Line {
    /// A veth pair, the programs at its near end, the reader at the far one.
    pub fn direct() -> Result<Self> {
        require_root()?;
        let (near, far) = (NetNs::scratch("near")?, NetNs::scratch("far")?);
        veth(&near, "near", &far, "far")?;
        Self::open((&near, "near"), (&far, "far"), (near.clone(), "near"), vec![far.clone()])
    }

    /// A bridge of which the near end of a veth pair is a port, the programs at the bridge.
    pub fn bridge() -> Result<Self> {
        require_root()?;
        let (near, far) = (NetNs::scratch("near")?, NetNs::scratch("far")?);
        bridge(&near)?;
        veth(&near, "near", &far, "far")?;
        link::enslave(&near, "near", "bridge")?;
        link::mtu(&near, "bridge", MTU)?;
        Self::open((&near, "bridge"), (&far, "far"), (near.clone(), "bridge"), vec![far.clone()])
    }

    /// The far end of a veth pair is a port of a bridge and has the programs, and the reader is behind
    /// another port: at the far end itself an `AF_PACKET` socket would see frames before the programs
    /// at ingress do.
    pub fn bridged() -> Result<Self> {
        Self::across_a_bridge("far")
    }

    /// The same with the programs at the port by which frames leave the bridge again.
    pub fn forwarded() -> Result<Self> {
        Self::across_a_bridge("out")
    }

    fn across_a_bridge(interface: &'static str) -> Result<Self> {
        require_root()?;
        let (near, far, behind) =
            (NetNs::scratch("near")?, NetNs::scratch("far")?, NetNs::scratch("behind")?);
        bridge(&far)?;
        veth(&near, "near", &far, "far")?;
        veth(&far, "out", &behind, "behind")?;
        for port in ["far", "out"] {
            link::enslave(&far, port, "bridge")?;
        }
        link::mtu(&far, "bridge", MTU)?;
        let others = vec![near.clone(), behind.clone()];
        Self::open((&near, "near"), (&behind, "behind"), (far, interface), others)
    }

    fn open(
        sender: (&NetNs, &str),
        receiver: (&NetNs, &str),
        (netns, interface): (NetNs, &'static str),
        others: Vec<NetNs>,
    ) -> Result<Self> {
        let sender = PacketSocket::open(sender.0, sender.1)?;
        let receiver = PacketSocket::open(receiver.0, receiver.1)?;
        wait_until_open(&sender, &receiver)?;
        Ok(Self { netns, interface, sender, receiver, _others: others })
    }
}

fn veth(netns: &NetNs, name: &str, other: &NetNs, peer: &str) -> Result<()> {
    link::veth(netns, name, other, peer)?;
    link::mtu(netns, name, MTU)?;
    Ok(link::mtu(other, peer, MTU)?)
}

/// A bridge that leaves packets alone. Where br_netfilter is there, it collects fragments and trims
/// or drops malformed packets by default.
fn bridge(netns: &NetNs) -> Result<()> {
    link::bridge(netns, "bridge")?;
    for switch in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
        let off = || fs::write(format!("/proc/sys/net/bridge/{switch}"), "0");
        match netns.run(off)? {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// Sends every case that is not a segmentation-offload packet.
pub fn run(
    line: &Line,
    hook: Hook,
    wish: Wish,
    shrink_twice: bool,
    passed: Passed<'_>,
) -> Result<()> {
    for group in groups(|case| !case.gso) {
        let mut object = load_with(&group[0].rules, shrink_twice)?;
        let attachment = line.netns.run(|| object.attach(line.interface, hook, wish))??;
        for (number, case) in group.iter().enumerate() {
            let before = counted(&object)?;
            pass(line, case, number).with_context(|| case.name.clone())?;
            let verdict = verdict_between(before, counted(&object)?)?;
            ensure!(verdict == case.verdict, "{}: {verdict:?}, not {:?}", case.name, case.verdict);
            passed(case);
        }
        line.netns.run(|| object.detach(attachment))??;
    }
    Ok(())
}

/// Sends the case's frame and compares what arrives. The source address tells the frames apart.
fn pass(line: &Line, case: &Case, number: usize) -> Result<()> {
    let (mut frame, mut out) = (case.frame.clone(), case.out.clone());
    for frame in [&mut frame, &mut out] {
        frame[6..12].copy_from_slice(&[2, 0, 0, 9, (number >> 8) as u8, number as u8]);
    }
    line.sender.send(&frame, case.partial)?;
    let is_it = |bytes: &[u8]| bytes.get(6..12) == Some(&frame[6..12]);
    let received = line
        .receiver
        .receive(PATIENCE, |received| is_it(&received.bytes))?
        .context("it did not arrive")?;
    let may_stay = case.partial.is_some() && case.verdict != Some(Verdict::Fixed);
    ensure!(!received.partial || may_stay, "it is still partial");
    ensure!(received.on_wire() == out, "other bytes came out");
    Ok(())
}
