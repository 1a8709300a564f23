//! Every call of a helper on the way of a fix is refused once. What comes out is the packet as it
//! went in (`failed`), the packet mended (`fixed`: the call was not on its way), or nothing at all
//! (`dropped`): never a packet that is half of each.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use aya::{TestRunOptions, programs::TestRun as _};
use fixer_common::{abi::Hook, rule::Rule, verdict::Verdict};
use fixer_tests::{
    cases::{Case, cases},
    faults::{Call, calls, refusing},
    frames::Packet,
    kernel::{counted, require_root, verdict_between},
};
use fixer_user::{
    bpf::{
        attach::Wish,
        load::{Config, Object},
    },
    lab::{
        link,
        packet::{PacketSocket, Partial, wait_until_open},
    },
    net::netns::NetNs,
};

/// What a classifier returns: the packet goes on, or it is dropped (linux/pkt_cls.h).
const UNSPEC: u32 = u32::MAX;
const SHOT: u32 = 2;

/// The object in which a call is refused.
fn load(call: Call) -> Result<Object> {
    let rules = vec![Rule::DHCP, Rule::DHCPV6];
    let config = Config { rules, events: 0, ..Config::default() };
    Object::load_from(&refusing(call), &config)
        .with_context(|| format!("the kernel does not take the object without {call:?}"))
}

#[test]
fn a_refused_helper_leaves_a_whole_packet_or_none() -> Result<()> {
    require_root()?;
    let mut cases = cases();
    cases.retain(|case| {
        case.verdict == Some(Verdict::Fixed)
            && case.rules == [Rule::DHCP, Rule::DHCPV6]
            && case.frame.len() < 3500
    });
    let mut seen = Vec::new();
    for call in calls()? {
        let mut object = load(call)?;
        for case in &cases {
            let verdict = run(&mut object, case)
                .with_context(|| format!("{}, with a refusal of {call:?}", case.name))?;
            seen.push((call.helper, verdict));
        }
    }
    let times = |wanted| seen.iter().filter(|found| **found == wanted).count();
    for (helper, verdict) in [
        ("bpf_skb_adjust_room", Verdict::Failed),
        ("bpf_skb_adjust_room", Verdict::Dropped),
        ("bpf_skb_store_bytes", Verdict::Dropped),
        ("bpf_skb_change_tail", Verdict::Failed),
        ("bpf_skb_change_tail", Verdict::Dropped),
        ("bpf_skb_vlan_pop", Verdict::Failed),
        ("bpf_skb_vlan_pop", Verdict::Dropped),
        ("bpf_skb_vlan_push", Verdict::Dropped),
    ] {
        let times = times((helper, verdict));
        println!("{helper} refused, {}: {times} packets", verdict.name());
        ensure!(times > 0, "no refusal of {helper} was counted as {}", verdict.name());
    }
    Ok(())
}

/// Runs one case, and looks at what came out. Gives the verdict.
fn run(object: &mut Object, case: &Case) -> Result<Verdict> {
    let before = counted(object)?;
    let mut out = vec![0; case.frame.len() + 512];
    let mut options = TestRunOptions::new();
    options.data_in = Some(&case.frame);
    options.data_out = Some(&mut out);
    let result = object.classifier(Hook::Egress)?.test_run(options)?;
    out.truncate(result.data_size_out as usize);
    let verdict = verdict_between(before, counted(object)?)?.context("it was not counted")?;
    let expected = match (verdict, result.return_value) {
        (Verdict::Failed, UNSPEC) => &case.frame,
        (Verdict::Fixed, UNSPEC) => &case.out,
        (Verdict::Dropped, SHOT) => return Ok(verdict),
        (verdict, action) => bail!("{verdict:?}, and the program returned {action}"),
    };
    // The outermost tag may have moved beside the frame, where it is not seen here.
    let without_tag = [&expected[..12], &expected[16..]].concat();
    let has_tag = [[0x81, 0x00], [0x88, 0xa8]].iter().any(|tag| expected[12..14] == *tag);
    ensure!(out == *expected || has_tag && out == without_tag, "{verdict:?}, with other bytes");
    Ok(verdict)
}

/// The same on a real interface: what is dropped does not arrive, and what is behind it does.
#[test]
fn a_dropped_frame_does_not_leave_and_a_failed_one_does() -> Result<()> {
    require_root()?;
    let (near, far) = (NetNs::scratch("near")?, NetNs::scratch("far")?);
    link::veth(&near, "near", &far, "far")?;
    let sender = PacketSocket::open(&near, "near")?;
    let receiver = PacketSocket::open(&far, "far")?;
    wait_until_open(&sender, &receiver)?;

    let packet = Packet::reply(300);
    let partial = Partial { csum_start: packet.start() as u16, csum_offset: 6 };
    let (mut dropped, mut failed) = (0, 0);
    for call in calls()? {
        let mut object = load(call)?;
        let attachment = near.run(|| object.attach("near", Hook::Egress, Wish::Auto))??;
        let before = counted(&object)?;
        let mut last = Packet::reply(200).right();
        last[11] = 0xee;
        // A raw sender is told when its frame is dropped.
        match sender.send(&packet.partial(), Some(partial)) {
            Err(error) if error.raw_os_error() != Some(libc::ENOBUFS) => return Err(error.into()),
            _ => {}
        }
        sender.send(&last, None)?;
        let mut arrived = Vec::new();
        loop {
            let received = receiver
                .receive(Duration::from_secs(5), |received| received.bytes.len() > 200)?
                .with_context(|| format!("the last frame did not arrive past {call:?}"))?;
            if received.bytes == last {
                break;
            }
            arrived.push(received);
        }
        let mut counts = counted(&object)?;
        for (count, before) in counts.iter_mut().zip(before) {
            *count -= before;
        }
        ensure!(counts[Verdict::Valid as usize] == 1, "the last frame was not counted once");
        counts[Verdict::Valid as usize] = 0;
        match verdict_between([0; _], counts)? {
            Some(Verdict::Dropped) => {
                ensure!(arrived.is_empty(), "{call:?}: counted as dropped, and arrived");
                dropped += 1;
            }
            Some(Verdict::Failed) => {
                let [frame] = &arrived[..] else { bail!("{call:?}: {arrived:?} arrived") };
                ensure!(frame.partial, "{call:?}: counted as failed, and no longer partial");
                ensure!(frame.bytes == packet.partial(), "{call:?}: failed, and changed");
                failed += 1;
            }
            Some(Verdict::Fixed) => {
                let [frame] = &arrived[..] else { bail!("{call:?}: {arrived:?} arrived") };
                ensure!(!frame.partial && frame.bytes == packet.right(), "{call:?}: not mended");
            }
            verdict => bail!("{call:?}: {verdict:?}"),
        }
        near.run(|| object.detach(attachment))??;
    }
    ensure!(dropped > 0 && failed > 0, "{dropped} were dropped, {failed} failed");
    Ok(())
}
