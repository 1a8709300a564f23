//! The table of cases over a real veth pair.

use anyhow::{Context as _, Result, ensure};
use fixer_common::{abi::Hook, rule::Rule, verdict::Verdict};
use fixer_tests::{
    frames::{Packet, put, tagged},
    kernel::{counted, load, load_with, verdict_between},
    ways::veth::{Line, PATIENCE, run},
};
use fixer_user::{
    bpf::attach::Wish,
    lab::packet::{Partial, Received},
};

#[test]
fn every_case_leaves_egress_of_a_port_with_its_verdict_and_its_bytes() -> Result<()> {
    run(&Line::direct()?, Hook::Egress, Wish::Auto, false, &mut |_| ())
}

#[test]
fn every_case_passes_ingress_of_a_port_with_its_verdict_and_its_bytes() -> Result<()> {
    run(&Line::bridged()?, Hook::Ingress, Wish::Auto, false, &mut |_| ())
}

#[test]
fn every_case_leaves_egress_of_a_bridge_with_its_verdict_and_its_bytes() -> Result<()> {
    run(&Line::bridge()?, Hook::Egress, Wish::Auto, false, &mut |_| ())
}

#[test]
fn every_case_leaves_egress_of_a_clsact_qdisc_alike() -> Result<()> {
    run(&Line::direct()?, Hook::Egress, Wish::Clsact, false, &mut |_| ())
}

/// What an older kernel needs does no harm on any other.
#[test]
fn every_case_leaves_alike_when_frames_are_shrunk_twice() -> Result<()> {
    run(&Line::direct()?, Hook::Egress, Wish::Auto, true, &mut |_| ())
}

/// The kernel believes a raw sender's word for what a frame is. Where that and the frame disagree
/// about tags, the fix is not tried: `failed`, and not a byte is changed.
#[test]
fn a_frame_that_the_kernel_takes_for_another_is_left_intact() -> Result<()> {
    let line = Line::direct()?;
    let mut object = load(&[Rule::DHCP])?;
    let attachment =
        line.netns.run(|| object.attach(line.interface, Hook::Egress, Wish::Auto))??;
    let bare = Packet::reply(300);
    let tagged = tagged(bare.partial(), &[[0x81, 0, 0, 100]]);
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
        line.sender.send_as(&frame, None, ether_type)?;
        let is_it = |received: &Received| received.on_wire()[..12] == frame[..12];
        let received = line.receiver.receive(PATIENCE, is_it)?.context("it did not arrive")?;
        let verdict = verdict_between(before, counted(&object)?)?;
        ensure!(verdict == Some(expected), "as {ether_type:#06x}: {verdict:?}, not {expected:?}");
        if expected == Verdict::Fixed {
            put(&mut frame, bare.checksum_at(), bare.checksum());
        }
        ensure!(received.on_wire() == frame, "as {ether_type:#06x}: other bytes came out");
    }
    line.netns.run(|| object.detach(attachment))??;
    Ok(())
}

/// Three tags are more than the programs read inside a frame. At a port the outermost is beside it.
#[test]
fn a_frame_with_three_tags_is_mended_at_ingress_of_a_port() -> Result<()> {
    let line = Line::bridged()?;
    let (provider, customer, other) =
        ([0x88, 0xa8, 0, 7], [0x81, 0, 0xa0, 100], [0x81, 0, 0x1f, 0xfe]);
    let stacks = [[provider, customer, other], [provider; 3], [customer; 3]];
    for (wish, shrink_twice) in
        [(Wish::Auto, false), (Wish::Auto, true), (Wish::Clsact, false), (Wish::Clsact, true)]
    {
        let mut object = load_with(&[Rule::DHCP, Rule::DHCPV6], shrink_twice)?;
        let attachment =
            line.netns.run(|| object.attach(line.interface, Hook::Ingress, wish))??;
        for tags in stacks {
            for packet in packets() {
                let (frame, right) =
                    (tagged(packet.partial(), &tags), tagged(packet.right(), &tags));
                let partial = Partial { csum_start: packet.start() as u16 + 12, csum_offset: 6 };
                let name =
                    format!("{} bytes in {tags:02x?}, {wish:?}, {shrink_twice}", frame.len());
                let before = counted(&object)?;
                line.sender.send(&frame, Some(partial))?;
                let is_it = |received: &Received| received.bytes.starts_with(&frame[..12]);
                let received = line.receiver.receive(PATIENCE, is_it)?;
                let verdict = verdict_between(before, counted(&object)?)?;
                ensure!(verdict == Some(Verdict::Fixed), "{name}: {verdict:?}");
                let received = received.with_context(|| format!("{name}: it did not arrive"))?;
                ensure!(!received.partial && received.on_wire() == right, "{name}: {received:?}");
            }
        }
        line.netns.run(|| object.detach(attachment))??;
    }
    Ok(())
}

/// Shorter than what the fix takes out, and longer than what is in reach.
fn packets() -> impl Iterator<Item = Packet> {
    let others = [Packet::reply(100).with_options(40), Packet::reply6(3), Packet::reply6(300)];
    [0, 1, 21, 300, 1401, 9000].map(Packet::reply).into_iter().chain(others)
}
