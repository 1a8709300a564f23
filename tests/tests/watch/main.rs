//! `fixer watch`: shows what others see, and leaves everything as it is.
//!
//! Each test's thread has a BPF file system of its own, so the host's pins are neither seen nor touched.

mod beside;
mod pinned;
mod slow;

use std::{collections::BTreeSet, ffi::CStr, fs, os::fd::AsRawFd as _, time::Instant};

use anyhow::{Context as _, Result, ensure};
use fixer_tests::{
    command::{Ended, PATIENCE, Running, fixer},
    kernel::require_root,
};
use fixer_user::{
    lab::{
        packet::PacketSocket,
        reply::{self, PARTIAL},
        scene::{BRIDGE, Dnsmasq, GUEST, Scene},
        strict,
    },
    net::netns::NetNs,
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::{
        signal::Signal,
        socket::{
            self, AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send,
        },
    },
};
use serde_json::Value;

/// A bridge with dnsmasq behind it.
struct Stage {
    scene: Scene,
    _dnsmasq: Dnsmasq,
}

impl Stage {
    fn new() -> Result<Self> {
        private_bpffs()?;
        let scene = Scene::new()?;
        let _dnsmasq = Dnsmasq::start(&scene)?;
        Ok(Self { scene, _dnsmasq })
    }

    /// A client with this number gets a lease.
    fn lease(&self, client: u8) -> Result<()> {
        let asked = strict::ask(&self.scene.guest, GUEST, [2, 0, 0, 0, 9, client], PATIENCE)?;
        ensure!(asked.lease.is_some(), "no lease: {asked:?}");
        Ok(())
    }
}

fn private_bpffs() -> Result<()> {
    const NONE: Option<&CStr> = None;
    require_root()?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(NONE, c"/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    Ok(mount(Some(c"bpf"), c"/sys/fs/bpf", Some(c"bpf"), MsFlags::empty(), NONE)?)
}

/// Runs `fixer` with these arguments to its end.
fn run(netns: &NetNs, arguments: &[&str]) -> Result<Ended> {
    Running::start(netns, fixer(arguments)?)?.end()
}

fn attach(netns: &NetNs, mode: &str) -> Result<()> {
    let how = ["attach", "-i", BRIDGE, "--attach-mode", mode, "--skip-selftest"];
    run(netns, &how)?.ok().map(drop)
}

/// `fixer watch` with these arguments, once it watches.
fn watch(netns: &NetNs, arguments: &[&str]) -> Result<Running> {
    let mut running = Running::start(netns, fixer(&[&["watch"], arguments].concat())?)?;
    running.stderr.wait("watching egress of")?;
    Ok(running)
}

/// Sends this many partial replies out of an interface.
fn send_partial(netns: &NetNs, interface: &str, count: usize) -> Result<()> {
    let sender = PacketSocket::open(netns, interface)?;
    let mut frame = reply::frame(&[7; 300]);
    reply::make_partial(&mut frame);
    (0..count).try_for_each(|_| Ok(sender.send(&frame, Some(PARTIAL))?))
}

/// Sends a reply that is in order.
fn send_valid(netns: &NetNs) -> Result<()> {
    Ok(PacketSocket::open(netns, BRIDGE)?.send(&reply::frame(&[9; 300]), None)?)
}

/// How many packets were fixed at the bridge, as the counters have it.
fn fixed(netns: &NetNs) -> Result<u64> {
    let ended = run(netns, &["status", "-i", BRIDGE, "--json"])?.ok()?;
    let entries: Vec<Value> = serde_json::from_str(&ended.stdout.join(""))?;
    entries[0]["packets"]["fixed"].as_u64().context("no counter")
}

/// What is read out of a pinned map of one number.
fn wanted(netns: &NetNs) -> Result<u32> {
    use std::os::unix::fs::MetadataExt as _;
    let inode = netns.file().metadata()?.ino();
    let path = format!("/sys/fs/bpf/fixer/v{}/{inode}/WANTED", fixer_common::abi::VERSION);
    let map = aya::maps::Map::Array(aya::maps::MapData::from_pin(path)?);
    Ok(aya::maps::Array::<_, u32>::try_from(&map)?.get(&0, 0)?)
}

/// The names of the sockets that events are handed out at.
fn sockets(netns: &NetNs) -> Result<Vec<String>> {
    let table = netns.run(|| fs::read_to_string("/proc/thread-self/net/unix"))??;
    let names = table.lines().filter_map(|line| line.split_once(" @fixer-events-"));
    // Each connection has the name as well.
    let names: BTreeSet<_> = names.map(|(_, name)| name.to_owned()).collect();
    Ok(names.into_iter().collect())
}

/// Whether a program takes a signal itself.
fn hears(running: &Running, signal: Signal) -> Result<bool> {
    let status = fs::read_to_string(format!("/proc/{}/status", running.pid()))?;
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = u64::from_str_radix(caught.context("no SigCgt")?.trim(), 16)?;
    Ok(caught & 1 << (signal as i32 - 1) != 0)
}

/// What a user with this id is told who asks for every event at one of these sockets: nothing, if the
/// connection is closed instead.
fn greeting(netns: &NetNs, socket: &str, user: u32) -> Result<Vec<u8>> {
    netns.run(|| {
        // SAFETY: takes and returns numbers only. It is of this thread alone, which ends here.
        let outcome = unsafe { libc::syscall(libc::SYS_setresuid, user, user, user) };
        ensure!(outcome == 0, "cannot become the user {user}");
        let (family, kind) = (AddressFamily::Unix, SockType::SeqPacket);
        let connection = socket::socket(family, kind, SockFlag::empty(), None)?;
        let address = UnixAddr::new_abstract(format!("fixer-events-{socket}").as_bytes())?;
        connect(connection.as_raw_fd(), &address)?;
        // It may be closed already.
        let _ = send(connection.as_raw_fd(), &u32::MAX.to_ne_bytes(), MsgFlags::MSG_NOSIGNAL);
        let mut answer = vec![0; 64];
        let len = recv(connection.as_raw_fd(), &mut answer, MsgFlags::empty()).unwrap_or(0);
        answer.truncate(len);
        Ok(answer)
    })?
}

/// Waits until this is so.
fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so()? {
        ensure!(Instant::now() < deadline, "not so: {what}");
        std::thread::sleep(std::time::Duration::from_millis(5)); // poll: nothing tells of it
    }
    Ok(())
}

/// Nothing of the last watcher is left.
fn nothing_is_left(netns: &NetNs) -> Result<()> {
    until("nobody wants events", || Ok(wanted(netns)? == 0))?;
    until("no socket is left", || Ok(sockets(netns)?.is_empty()))
}

/// Events without the time, which every process reads off the clock anew and so to a few nanoseconds.
fn events(lines: &[String]) -> Result<Vec<Value>> {
    let event = |line: &String| -> Result<Value> {
        let mut event: Value = serde_json::from_str(line).with_context(|| line.clone())?;
        ensure!(event["time"].is_string(), "no time in {line}");
        event["time"].take();
        Ok(event)
    };
    lines.iter().map(event).collect()
}
