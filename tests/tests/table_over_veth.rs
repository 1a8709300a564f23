//! The table of cases over a real veth pair.

use anyhow::{Context as _, Result, ensure};
use fixer_common::{abi::Hook, rule::Rule, verdict::Verdict};
use fixer_tests::{
    frames::{Packet, put},
    kernel::{counted, load, verdict_between},
    ways::veth::{Line, PATIENCE, run},
};
use fixer_user::{bpf::attach::Wish, lab::packet::Received};

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
