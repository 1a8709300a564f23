//! Other programs in the chain of tcx.

use std::os::fd::OwnedFd;

use anyhow::{Result, ensure};
use aya::programs::{SchedClassifier, TcAttachType};
use fixer_tests::{
    bpf::{Place, attach_to_egress, load_classifier, returning},
    mounts::private_mounts,
};
use fixer_user::lab::{
    packet::{PacketSocket, wait_until_open},
    scene::{BRIDGE, GUEST, Scene},
};
use nix::net::if_::if_nametoindex;

use crate::{WAYS, arrives_mended, attached};

/// What a program returns that passes packets on to the next one.
const NEXT: i32 = -1;
/// What one returns that ends the chain: the packet goes out.
const PASS: i32 = 0;

/// Somebody's program at a place of the chain.
fn put(scene: &Scene, returned: i32, place: Place) -> Result<OwnedFd> {
    let program = load_classifier(&returning(returned))?;
    scene.host.run(|| attach_to_egress(&program, if_nametoindex(BRIDGE)?, place))?
}

/// The chain: the ids of programs, 0 for ours.
fn chain(scene: &Scene) -> Result<Vec<u32>> {
    let query = || SchedClassifier::query_tcx(BRIDGE, TcAttachType::Egress);
    let (_, programs) = scene.host.run(query)??;
    let is_ours = |name: &[u8]| name == b"fixer_egress";
    Ok(programs.iter().map(|it| if is_ours(it.name()) { 0 } else { it.id() }).collect())
}

/// Programs at both ends, links and all: none is replaced, moved or removed, and one behind ours that
/// ends the chain hides nothing from us. One that comes later may stand before us.
#[test]
fn the_order_of_others_is_kept() -> Result<()> {
    private_mounts(true)?;
    for way in WAYS {
        let scene = Scene::new()?;
        let sender = PacketSocket::open(&scene.host, BRIDGE)?;
        let receiver = PacketSocket::open(&scene.guest, GUEST)?;
        wait_until_open(&sender, &receiver)?;
        // To filters the end of this chain is the end.
        let ends = if way.1 == "tcx" { PASS } else { NEXT };
        let _theirs = [put(&scene, NEXT, Place::First)?, put(&scene, ends, Place::Last)?];
        let before = chain(&scene)?;
        let mut later = None;
        attached(&scene, way, || {
            let ours = if way.1 == "tcx" { &[0][..] } else { &[] };
            let wanted = [ours, &before].concat();
            let now = chain(&scene)?;
            ensure!(now == wanted, "{way:?}: {now:?}, not {wanted:?}");
            arrives_mended(&sender, &receiver, 1)?;
            later = Some(put(&scene, NEXT, Place::First)?);
            let now = chain(&scene)?;
            ensure!(now[1..] == wanted, "{way:?}: {now:?}, not one more than {wanted:?}");
            arrives_mended(&sender, &receiver, 2)
        })?;
        let after = chain(&scene)?;
        ensure!(after[1..] == before, "{way:?}: {after:?}, not one more than {before:?}");
    }
    Ok(())
}
