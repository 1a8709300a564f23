//! `fixer run` as it was built, on a bridge with a real dnsmasq behind it and a strict client before
//! it.

mod behind;
mod ending;
mod events;
mod exchange;
mod globs;
mod interfaces;
mod least;
mod many;
mod metrics;
mod namespaces;
mod neighbours;
mod reload;
mod renames;
mod rude;
mod standing;

use std::{fs::File, io, time::Duration};

use anyhow::{Context as _, Result, ensure};
use fixer_tests::kernel::require_root;
use fixer_user::lab::{
    packet::PacketSocket,
    reply::{self, PARTIAL},
    scene::{Dnsmasq, GUEST, Scene},
    strict,
};
use nix::fcntl::{Flock, FlockArg};

/// The client's hardware address.
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x77];

/// A scene on which dnsmasq serves, once its port forwards.
struct Stage {
    scene: Scene,
    _dnsmasq: Dnsmasq,
}

impl Stage {
    fn new() -> Result<Self> {
        let scene = scene()?;
        let _dnsmasq = Dnsmasq::start(&scene)?;
        Ok(Self { scene, _dnsmasq })
    }

    /// The strict client gets a lease; how many replies it saw.
    fn lease(&self) -> Result<usize> {
        let asked = strict::ask(&self.scene.guest, GUEST, MAC, fixer_tests::command::PATIENCE)?;
        ensure!(asked.lease.is_some(), "no lease: {asked:?}");
        Ok(asked.replies)
    }

    /// The strict client gets no lease, although there are offers.
    fn no_lease(&self) -> Result<()> {
        let asked = strict::ask(&self.scene.guest, GUEST, MAC, Duration::from_secs(2))?;
        ensure!(asked.lease.is_none() && !asked.bad.is_empty(), "{asked:?}");
        Ok(())
    }
}

/// A bridge and a guest behind its port, without a server.
fn scene() -> Result<Scene> {
    require_root()?;
    Scene::new().context("the scene cannot be made")
}

/// Keeps every fixer in the scene's host waiting, until this is dropped.
fn locked(scene: &Scene) -> Result<Flock<File>> {
    let namespace = scene.host.run(|| File::open("/proc/thread-self/ns/net"))??;
    let lock = Flock::lock(namespace, FlockArg::LockExclusive);
    lock.map_err(|(_, error)| io::Error::from(error).into())
}

/// Sends this many partial replies out of an interface of the scene's host.
fn send_partial(scene: &Scene, interface: &str, count: usize) -> Result<()> {
    let sender = PacketSocket::open(&scene.host, interface)?;
    let mut frame = reply::frame(&[7; 300]);
    reply::make_partial(&mut frame);
    for _ in 0..count {
        sender.send(&frame, Some(PARTIAL))?;
    }
    Ok(())
}
