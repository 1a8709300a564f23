//! A newer program takes the place of the running one: no reply leaves unfixed, and none is uncounted.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use fixer_user::lab::{
    packet::PacketSocket,
    reply::{self, PARTIAL},
    scene::{BRIDGE, GUEST, Scene},
};

use crate::{PATIENCE, private_mounts, run, status};

const UPGRADES: usize = 100;

#[test]
fn by_tcx_no_reply_leaves_unfixed_during_upgrades() -> Result<()> {
    no_reply_leaves_unfixed("tcx")
}

#[test]
fn by_clsact_no_reply_leaves_unfixed_during_upgrades() -> Result<()> {
    no_reply_leaves_unfixed("clsact")
}

/// Replies go out as fast as they can be looked at, one after the other, so that none is lost for want
/// of room, while the program is replaced.
fn no_reply_leaves_unfixed(mode: &str) -> Result<()> {
    private_mounts(true)?;
    let scene = Scene::new()?;
    let attach = ["attach", "-i", BRIDGE, "--attach-mode", mode, "--skip-selftest"];
    run(&scene.host, &attach)?.ok()?;
    let is_over = AtomicBool::new(false);
    let sent = thread::scope(|scope| -> Result<usize> {
        let sender = scope.spawn(|| send_until(&scene, &is_over));
        let upgraded = (0..UPGRADES).try_for_each(|_| {
            let ended = run(&scene.host, &attach)?.ok()?;
            ensure!(ended.stdout[0].starts_with("replaced at egress"), "{ended:?}");
            Ok(())
        });
        is_over.store(true, Ordering::Relaxed);
        let sent = sender.join().ok().context("the sender panicked")?;
        upgraded?;
        sent
    })?;
    println!("{mode}: {sent} replies during {UPGRADES} upgrades");
    ensure!(sent > 20 * UPGRADES, "only {sent} replies were sent");
    let counted = status(&scene.host)?;
    ensure!(counted["packets"]["fixed"] == sent, "{sent} sent, and {counted}");
    Ok(())
}

/// Sends partial replies until it is over. Each must arrive complete. Gives their number.
fn send_until(scene: &Scene, is_over: &AtomicBool) -> Result<usize> {
    let sender = PacketSocket::open(&scene.host, BRIDGE)?;
    let receiver = PacketSocket::open(&scene.guest, GUEST)?;
    let mut sent = 0;
    while !is_over.load(Ordering::Relaxed) {
        let mut frame = reply::frame(&[sent as u8; 300]);
        let right = frame.clone();
        reply::make_partial(&mut frame);
        sender.send(&frame, Some(PARTIAL))?;
        sent += 1;
        let ours = |frame: &fixer_user::lab::packet::Received| frame.bytes.len() == right.len();
        let got = receiver.receive(PATIENCE, ours)?;
        let got = got.with_context(|| format!("reply {sent} did not arrive"))?;
        ensure!(!got.partial && got.bytes == right, "reply {sent} arrived unfixed");
    }
    Ok(sent)
}
