//! How a guest's network card hangs on the bridge.

use std::{
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use fixer_user::{
    lab::{link, packet::PacketSocket},
    net::netns::NetNs,
};
use tun_rs::{DeviceBuilder, Layer};

/// How QEMU passes on what its guest sends and receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Card {
    /// A tap. iPXE takes no checksum offload, so QEMU turns the tap's off, and the kernel finishes
    /// every sum that is still partial.
    Tap,
    /// A raw socket behind a veth pair, as userspace switches use. Nobody finishes anything.
    RawSocket,
}

impl Card {
    /// Its name in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tap => "tap",
            Self::RawSocket => "raw socket",
        }
    }

    /// Makes a port of a bridge for it.
    pub fn plug_in(self, host: &NetNs, bridge: &str, port: &str) -> Result<Plugged> {
        let plugged = match self {
            Self::Tap => tap(host, bridge, port),
            Self::RawSocket => raw_socket(host, bridge, port),
        };
        plugged.with_context(|| format!("cannot make {port}, a port of {bridge}"))
    }
}

/// A port that waits for its guest.
#[derive(Debug)]
pub struct Plugged {
    /// What QEMU calls the card's other side.
    pub(super) netdev: String,
    /// QEMU's standard input, which the card may need.
    pub(super) stdin: Stdio,
}

/// A tap without a user yet: it stays until the namespace goes.
fn tap(host: &NetNs, bridge: &str, port: &str) -> io::Result<Plugged> {
    host.run(|| DeviceBuilder::new().name(port).layer(Layer::L2).build_sync()?.persist())??;
    link::enslave(host, port, bridge)?;
    link::up(host, port)?;
    let netdev = format!("tap,ifname={port},script=no,downscript=no");
    Ok(Plugged { netdev, stdin: Stdio::null() })
}

/// A veth pair with a socket at its far end, and a stream from there to QEMU, which dies with it.
fn raw_socket(host: &NetNs, bridge: &str, port: &str) -> io::Result<Plugged> {
    let far = NetNs::scratch("card")?;
    link::veth(host, port, &far, "card")?;
    link::enslave(host, port, bridge)?;
    let inward = Arc::new(PacketSocket::open(&far, "card")?);
    let outward = Arc::clone(&inward);
    let (ours, theirs) = UnixStream::pair()?;
    let (to_guest, from_guest) = (ours.try_clone()?, ours);
    let over = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&over);
    // An error is QEMU's end on either way.
    thread::spawn(move || {
        let _ = from_bridge(&inward, to_guest, &seen);
    });
    thread::spawn(move || {
        let _ = from_qemu(from_guest, &outward);
        over.store(true, Ordering::Relaxed);
    });
    Ok(Plugged { netdev: "socket,fd=0".to_owned(), stdin: OwnedFd::from(theirs).into() })
}

/// QEMU's stream holds frames, each behind its length in four bytes.
fn from_bridge(socket: &PacketSocket, mut guest: impl Write, over: &AtomicBool) -> io::Result<()> {
    while !over.load(Ordering::Relaxed) {
        if let Some(frame) = socket.receive(Duration::from_millis(100), |_| true)? {
            let frame = frame.on_wire();
            guest.write_all(&(frame.len() as u32).to_be_bytes())?;
            guest.write_all(&frame)?;
        }
    }
    Ok(())
}

fn from_qemu(mut guest: impl Read, socket: &PacketSocket) -> io::Result<()> {
    loop {
        let mut len = [0; 4];
        guest.read_exact(&mut len)?;
        let mut frame = vec![0; u32::from_be_bytes(len) as usize];
        guest.read_exact(&mut frame)?;
        socket.send(&frame, None)?;
    }
}
