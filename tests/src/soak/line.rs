//! A bridge with a guest behind it, and DHCP replies on their way from one to the other.
//!
//! A reply counts if its bridge was meant to be attached from before it was sent until after it arrived.
//! Whoever is about to take fixer off says so first, and so waits for the replies that are on their way.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use fixer_user::{
    lab::{
        link,
        packet::{PacketSocket, Received, wait_until_open},
        reply::{self, PARTIAL, UDP_AT},
    },
    net::netns::NetNs,
};
use socket2::{Domain, Socket, Type};

use crate::command::output;

/// How many replies are on their way at once: fewer than a receiver has room for.
const BATCH: u64 = 16;
/// How long they may take before they are given up.
const PATIENCE: Duration = Duration::from_secs(5);
/// What the payload of every reply begins with; its number follows.
const MAGIC: [u8; 8] = *b"soaking!";
/// The least payload that a BOOTP message has, in bytes.
const LEAST: u64 = 236;

/// What became of replies.
#[derive(Debug, Default)]
pub struct Tally {
    /// Those sent while the bridge was meant to be attached.
    pub sent: AtomicU64,
    /// Of these, those that arrived complete, right, and without the mark.
    pub fixed: AtomicU64,
    /// Of these, those that arrived otherwise.
    pub unfixed: AtomicU64,
    /// Of these, those that did not arrive.
    pub lost: AtomicU64,
    /// Those sent while nobody promised anything.
    pub beside: AtomicU64,
    /// What the first of the unfixed were.
    pub first: Mutex<Vec<String>>,
}

/// How many of the unfixed are described.
const DESCRIBED: usize = 8;

impl Tally {
    fn describe(&self, line: &Line, what: &str) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        if first.len() < DESCRIBED {
            first.push(format!("{} of '{}': {what}", line.bridge, line.host));
        }
    }
}

/// A bridge, a guest behind its only port, and what the bridge is meant to do.
#[derive(Debug)]
pub struct Line {
    /// Where the bridge is.
    pub host: NetNs,
    /// The bridge.
    pub bridge: String,
    guest: NetNs,
    number: u8,
    is_meant: RwLock<bool>,
}

/// The sockets at both ends.
pub struct Traffic {
    raw: PacketSocket,
    server: UdpSocket,
    guest: PacketSocket,
    serial: u64,
}

impl Line {
    /// Makes the bridge with this number in a namespace, and its guest.
    pub fn new(host: &NetNs, number: u8) -> Result<Self> {
        let line = Self {
            host: host.clone(),
            bridge: format!("br{number}"),
            guest: NetNs::scratch("guest")?,
            number,
            is_meant: RwLock::new(false),
        };
        let port = format!("guest{number}");
        link::bridge(host, &line.bridge)?;
        link::address(host, &line.bridge, line.address(1).into(), 24)?;
        link::veth(host, &port, &line.guest, "eth0")?;
        link::enslave(host, &port, &line.bridge)?;
        Ok(line)
    }

    /// Gives the bridge another name. Sockets on it have to be opened again: it goes down meanwhile.
    pub fn rename(&mut self, to: &str) -> Result<()> {
        output(&self.host, "ip", &["link", "set", &self.bridge, "down", "name", to])?;
        link::up(&self.host, to)?;
        self.bridge = to.to_owned();
        Ok(())
    }

    /// An address on the bridge.
    const fn address(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.number, last)
    }

    /// From now on every reply must arrive fixed, or no longer.
    pub fn mean(&self, is_meant: bool) {
        *self.is_meant.write().unwrap_or_else(PoisonError::into_inner) = is_meant;
    }

    /// Does something while no reply is on its way.
    pub fn between_replies<T>(&self, act: impl FnOnce() -> T) -> T {
        let _none = self.is_meant.write().unwrap_or_else(PoisonError::into_inner);
        act()
    }

    /// Opens sockets at both ends, once the bridge forwards.
    pub fn open(&self) -> Result<Traffic> {
        let raw = PacketSocket::open(&self.host, &self.bridge)?;
        let guest = PacketSocket::open(&self.guest, "eth0")?;
        wait_until_open(&raw, &guest)?;
        let server = self.host.run(|| server(self.address(1)))??;
        Ok(Traffic { raw, server, guest, serial: 0 })
    }

    /// Sends replies as fast as they can be looked at, until it is over.
    pub fn send_until(&self, is_over: &AtomicBool, tally: &Tally) -> Result<()> {
        let mut traffic = self.open()?;
        while !is_over.load(Ordering::Relaxed) {
            self.send(&mut traffic, tally)?;
        }
        Ok(())
    }

    /// Sends some replies, from a raw socket and from a real one in turn, and looks at what arrives.
    pub fn send(&self, traffic: &mut Traffic, tally: &Tally) -> Result<()> {
        let is_meant = self.is_meant.read().unwrap_or_else(PoisonError::into_inner);
        let first = traffic.serial;
        for serial in first..first + BATCH {
            traffic.send(serial, self.address(255))?;
        }
        traffic.serial += BATCH;
        let mut is_missing = [true; BATCH as usize];
        let mut good = 0;
        let deadline = Instant::now() + PATIENCE;
        while is_missing.contains(&true) {
            let left = deadline.saturating_duration_since(Instant::now());
            let place = |frame: &Received| Some((serial_of(frame)?.checked_sub(first)?) as usize);
            let is_one = |frame: &Received| place(frame).is_some_and(|at| at < is_missing.len());
            let Some(frame) = traffic.guest.receive(left, is_one)? else { break };
            let Some(at) = place(&frame) else { continue };
            ensure!(std::mem::take(&mut is_missing[at]), "a reply arrived twice");
            let is_good = is_good(&frame);
            good += u64::from(is_good);
            if *is_meant && !is_good {
                tally.describe(self, &format!("reply {} arrived unfixed", first + at as u64));
            }
        }
        let lost = is_missing.iter().filter(|missing| **missing).count() as u64;
        if *is_meant {
            if lost > 0 {
                let which: Vec<_> =
                    is_missing.iter().map(|lost| if *lost { 'x' } else { '.' }).collect();
                let which: String = which.iter().collect();
                tally.describe(self, &format!("{lost} replies from {first} on were lost {which}"));
            }
            tally.sent.fetch_add(BATCH, Ordering::Relaxed);
            tally.fixed.fetch_add(good, Ordering::Relaxed);
            tally.unfixed.fetch_add(BATCH - lost - good, Ordering::Relaxed);
            tally.lost.fetch_add(lost, Ordering::Relaxed);
        } else {
            tally.beside.fetch_add(BATCH, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// A DHCP server's socket. The one before it may still be open: a program that another thread is starting has a
/// copy of every descriptor until it is executed.
fn server(address: Ipv4Addr) -> Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((address, 67)).into())?;
    socket.set_broadcast(true)?;
    Ok(socket.into())
}

impl Traffic {
    /// Sends one reply. Their lengths differ, odd and even ones.
    fn send(&self, serial: u64, everyone: Ipv4Addr) -> Result<()> {
        let mut payload = [&MAGIC[..], &serial.to_be_bytes()].concat();
        payload.resize((LEAST + serial % 331) as usize, serial as u8);
        if serial.is_multiple_of(2) {
            let mut frame = reply::frame(&payload);
            reply::make_partial(&mut frame);
            self.raw.send(&frame, Some(PARTIAL))?;
        } else {
            self.server.send_to(&payload, (everyone, 68))?;
        }
        Ok(())
    }
}

/// The sum is right, and stays so whether somebody finishes it or not: the mark is gone, or the half sum
/// is the whole one. That is so in one of 65,536, and those are left alone.
fn is_good(Received { bytes, partial, .. }: &Received) -> bool {
    let mut half = bytes.clone();
    reply::make_partial(&mut half);
    reply::verifies(bytes) && (!partial || half == *bytes)
}

/// The number of one of our replies.
fn serial_of(frame: &Received) -> Option<u64> {
    let payload = frame.bytes.get(UDP_AT + 8..)?.strip_prefix(&MAGIC)?;
    payload.first_chunk().map(|number| u64::from_be_bytes(*number))
}
