//! Every call of a helper on the way of a fix is refused once. What comes out is the packet as it
//! went in (`failed`), the packet mended (`fixed`: the call was not on its way), or nothing at all
//! (`dropped`): never a packet that is half of each.

use std::{collections::BTreeMap, io, panic, thread};

use anyhow::{Context as _, Result, bail, ensure};
use aya::{TestRunOptions, programs::TestRun as _};
use fixer_common::{
    abi::Hook,
    rule::Rule,
    verdict::{TABLE, Verdict},
};
use fixer_tests::{
    cases::{Case, cases},
    faults::{Call, calls, refusing},
    frames::{Packet, tagged},
    kernel::{counted, require_root, verdict_between},
    ways::veth::{Line, PATIENCE},
};
use fixer_user::{
    bpf::{
        attach::Wish,
        load::{Config, Object},
    },
    lab::packet::{PacketSocket, Partial, Received},
};

/// What a classifier returns: the packet goes on, or it is dropped (linux/pkt_cls.h).
const UNSPEC: u32 = u32::MAX;
const SHOT: u32 = 2;

/// The object in which a call is refused.
fn load(call: Call, shrink_twice: bool) -> Result<Object> {
    let rules = vec![Rule::DHCP, Rule::DHCPV6];
    let config = Config { rules, events: 0, shrink_twice, ..Config::default() };
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
        let mut object = load(call, false)?;
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
        ("bpf_skb_pull_data", Verdict::Failed),
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

/// The tags of a frame, the outermost first, and as many of them as are wanted.
const TAGS: [[u8; 4]; 3] =
    [[0x88, 0xa8, 0x00, 7], [0x81, 0x00, 0xa0, 100], [0x81, 0x00, 0x1f, 0xfe]];

/// Where the object is attached, and who looks on.
struct Place {
    name: &'static str,
    line: Line,
    hook: Hook,
    /// Reads what comes in before the program at ingress does.
    tap: Option<PacketSocket>,
    /// With more tags no rule matches.
    most_tags: usize,
}

fn places() -> Result<[Place; 3]> {
    let (bridged, forwarded, direct) = (Line::bridged()?, Line::forwarded()?, Line::direct()?);
    let tap = Some(PacketSocket::open(&bridged.netns, bridged.interface)?);
    let place = |name, line, hook, tap, most_tags| Place { name, line, hook, tap, most_tags };
    Ok([
        // Behind the way in the outermost tag is beside the frame, and up to two are read inside it.
        place("ingress", bridged, Hook::Ingress, tap, 3),
        place("forwarded egress", forwarded, Hook::Egress, None, 3),
        // What a raw sender hands over has all of them inside.
        place("egress", direct, Hook::Egress, None, 2),
    ])
}

/// The same on real interfaces. Here a tag that has moved beside the frame is told from one that is
/// lost, and whoever reads before the program keeps the frame as it was sent.
#[test]
fn on_an_interface_a_refused_helper_leaves_a_whole_frame_or_none() -> Result<()> {
    // Attaching is mostly waiting for the kernel: each setting waits at places of its own.
    thread::scope(|scope| {
        let settings = [false, true].map(|twice| scope.spawn(move || refuse_each(twice)));
        settings.into_iter().try_for_each(|setting| match setting.join() {
            Ok(outcome) => outcome,
            Err(panic) => panic::resume_unwind(panic),
        })
    })
}

/// Refuses every call once, at every place.
fn refuse_each(shrink_twice: bool) -> Result<()> {
    let places = places()?;
    let packets = [Packet::reply(1), Packet::reply(300), Packet::reply6(40)];
    let mut tally: BTreeMap<_, [usize; TABLE.len()]> = BTreeMap::new();
    for call in calls()? {
        let mut object = load(call, shrink_twice)?;
        for place in &places {
            let Place { name, line, hook, most_tags, .. } = place;
            let attachment =
                line.netns.run(|| object.attach(line.interface, *hook, Wish::Auto))??;
            for tags in 0..=*most_tags {
                let setting = format!("{name}, {tags} tags, shrink_twice={shrink_twice}");
                for packet in &packets {
                    let verdict = place
                        .send(&object, packet, &TAGS[..tags])
                        .with_context(|| format!("{setting}, with a refusal of {call:?}"))?;
                    tally.entry(setting.clone()).or_default()[verdict as usize] += 1;
                }
            }
            line.netns.run(|| object.detach(attachment))??;
        }
    }
    for (setting, counts) in tally {
        let [fixed, failed, dropped] = [Verdict::Fixed, Verdict::Failed, Verdict::Dropped]
            .map(|verdict| counts[verdict as usize]);
        println!("{setting}: {fixed} fixed, {failed} failed, {dropped} dropped");
        ensure!(fixed > 0 && failed > 0 && dropped > 0, "{setting}: not every end was seen");
    }
    Ok(())
}

impl Place {
    /// Sends a partial frame and another behind it, and looks at what arrived before that. Gives the
    /// verdict.
    fn send(&self, object: &Object, packet: &Packet, tags: &[[u8; 4]]) -> Result<Verdict> {
        let (frame, right) = (tagged(packet.partial(), tags), tagged(packet.right(), tags));
        let start = packet.start() + 4 * tags.len();
        let partial = Partial { csum_start: start as u16, csum_offset: 6 };
        let before = counted(object)?;
        let sent = self.line.sender.send(&frame, Some(partial));
        self.line.sender.send(&LAST, None)?;
        let arrived = until_last(&self.line.receiver)?;
        let verdict = verdict_between(before, counted(object)?)?.context("it was not counted")?;
        match (verdict, &arrived[..]) {
            (Verdict::Dropped, []) => {}
            (Verdict::Failed, [it]) if it.partial && it.on_wire() == frame => {}
            (Verdict::Fixed, [it]) if !it.partial && it.on_wire() == right => {}
            _ => bail!("counted as {}, and {arrived:02x?} arrived", verdict.name()),
        }
        if let Some(tap) = &self.tap {
            let seen = until_last(tap)?;
            let [it] = &seen[..] else { bail!("{seen:02x?} was seen before the program") };
            ensure!(it.partial && it.on_wire() == frame, "changed for who read before: {it:02x?}");
        }
        match sent {
            // A raw sender is told when its frame is dropped at its own interface.
            Err(error) if verdict == Verdict::Dropped && is_drop(&error) => {}
            sent => sent?,
        }
        Ok(verdict)
    }
}

/// The frame behind: none of ours, so it is not counted.
const LAST: [u8; 60] = {
    let mut frame = [0xff; 60];
    (frame[6], frame[7], frame[12], frame[13]) = (2, 1, 0x88, 0xb5);
    frame
};

/// Everything that comes before [`LAST`], but for the multicast that a new link begins with (IGMP and
/// MLD).
fn until_last(socket: &PacketSocket) -> Result<Vec<Received>> {
    let mut arrived = Vec::new();
    let is_ours = |received: &Received| {
        !received.bytes.starts_with(&[0x33, 0x33])
            && !received.bytes.starts_with(&[0x01, 0x00, 0x5e])
    };
    loop {
        let received =
            socket.receive(PATIENCE, is_ours)?.context("the frame behind it did not arrive")?;
        if received.bytes == LAST {
            return Ok(arrived);
        }
        arrived.push(received);
    }
}

fn is_drop(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOBUFS)
}
