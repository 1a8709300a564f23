//! Beside libvirt's own filter, which finishes sums with the action `csum`: a reply that both mend is
//! right, and what is libvirt's is as it was.
//!
//! Run on the kernels of `cargo xtask vm`, for not every machine's kernel has the action.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fixer_common::{abi::Hook, rule::Rule};
use fixer_tests::{
    command::{output, turn_off},
    kernel::{load, require_root},
};
use fixer_user::{
    bpf::attach::Wish,
    lab::{
        packet::{PacketSocket, wait_until_open},
        reply::{self, PARTIAL},
        scene::{BRIDGE, GUEST, PORT, Scene},
    },
};

const PATIENCE: Duration = Duration::from_secs(20);

/// What libvirt puts at a bridge whose replies it mends.
const LIBVIRT: [&str; 2] = [
    "qdisc add dev br0 root handle 1: htb",
    "filter add dev br0 parent 1: prio 2 protocol ip u32 match ip dport 68 ffff action csum ip and udp",
];

fn tc(scene: &Scene, command: &str) -> Result<String> {
    output(&scene.host, "tc", &command.split(' ').collect::<Vec<_>>())
}

/// Everything of libvirt's, but for what the qdisc counts.
fn state(scene: &Scene) -> Result<[String; 2]> {
    let qdisc = tc(scene, "qdisc show dev br0 root")?;
    let (qdisc, _) = qdisc.split_once(" direct_packets_stat").context("this is no htb qdisc")?;
    Ok([qdisc.to_owned(), tc(scene, "filter show dev br0 parent 1:")?])
}

/// How many packets the filter's action has seen: `Sent 684 bytes 2 pkt (dropped 0, …`.
fn counted(scene: &Scene) -> Result<u64> {
    let shown = tc(scene, "-s filter show dev br0 parent 1:")?;
    let sent = shown.split_once("Sent ").and_then(|(_, sent)| sent.split_once(" pkt"));
    let count = sent.and_then(|(counts, _)| counts.split_whitespace().last()?.parse().ok());
    count.with_context(|| format!("no count in {shown}"))
}

#[test]
fn a_reply_that_libvirts_filter_mends_too_is_right() -> Result<()> {
    require_root()?;
    for has_offload in [true, false] {
        let scene = Scene::new()?;
        if !has_offload {
            turn_off(&scene.host, PORT, "tx")?;
        }
        LIBVIRT.iter().try_for_each(|command| tc(&scene, command).map(drop))?;
        let before = state(&scene)?;
        let sender = PacketSocket::open(&scene.host, BRIDGE)?;
        let receiver = PacketSocket::open(&scene.guest, GUEST)?;
        wait_until_open(&sender, &receiver)?;
        for wish in [None, Some(Wish::Auto), Some(Wish::Clsact)] {
            let mut object = load(&[Rule::DHCP])?;
            let mut attach = |wish| object.attach(BRIDGE, Hook::Egress, wish);
            let attachment = wish.map(|wish| scene.host.run(|| attach(wish))).transpose()?;
            let attachment = attachment.transpose()?;
            let seen = counted(&scene)?;
            let right = reply::frame(&[7; 301]);
            let mut frame = right.clone();
            reply::make_partial(&mut frame);
            sender.send(&frame, Some(PARTIAL))?;
            let got = receiver.receive(PATIENCE, |frame| frame.bytes.len() == right.len())?;
            let got = got.with_context(|| format!("{wish:?}: the reply did not arrive"))?;
            ensure!(!got.partial && got.bytes == right, "{wish:?}: {got:?}");
            ensure!(counted(&scene)? == seen + 1, "{wish:?}: the filter did not see it");
            if let Some(attachment) = attachment {
                scene.host.run(|| object.detach(attachment))??;
            }
            ensure!(state(&scene)? == before, "{wish:?}: {:?}, not {before:?}", state(&scene)?);
        }
    }
    Ok(())
}
