//! A host with two bridges: real clients and dnsmasq on one, a client without a server on the other, and
//! frames that are not as they should be.

use std::{
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use dhcproto::v4::{DhcpOption, MessageType};
use fixer_tests::{
    client,
    command::{Running, attached},
    prometheus::Prometheus,
};
use fixer_user::{
    lab::{
        link,
        packet::PacketSocket,
        reply::{self, PARTIAL},
        scene::{BRIDGE, Dnsmasq, GUEST, Scene},
        strict,
    },
    net::netns::NetNs,
};

/// The bridge without a server.
const OTHER: &str = "br1";

/// The length of the waves in which clients come.
const WAVE: f64 = 30.0;

/// What the server gives away, in the words of dnsmasq.
const ADDRESSES: &str = "10.0.3.20,10.0.3.250,255.255.255.0,1h";

/// How long a client without a server tries.
const HOPE: Duration = Duration::from_secs(4);

/// The scene with fixer in it, and a Prometheus that scrapes it every second.
pub struct Stage {
    scene: Scene,
    /// The client without a server.
    lonely: NetNs,
    prometheus: Prometheus,
    _fixer: Running,
    _dnsmasq: Dnsmasq,
}

impl Stage {
    pub fn start() -> Result<Self> {
        let scene = Scene::new()?;
        let lonely = NetNs::scratch("lonely")?;
        link::bridge(&scene.host, OTHER)?;
        link::veth(&scene.host, "guest1", &lonely, GUEST)?;
        link::enslave(&scene.host, "guest1", OTHER)?;
        let dnsmasq = Dnsmasq::with_range(&scene, ADDRESSES)?;
        let run = ["-i", BRIDGE, "-i", OTHER, "--all", "--hook", "both", "--events", "none"];
        let fixer = attached(&scene.host, &[&run[..], &["--exchange-timeout", "6"]].concat())?;
        let prometheus = Prometheus::start(&scene.host, "")?;
        Ok(Self { scene, lonely, prometheus, _fixer: fixer, _dnsmasq: dnsmasq })
    }

    /// Where fixer is.
    pub fn host(&self) -> &NetNs {
        &self.scene.host
    }

    pub fn prometheus(&self) -> &Prometheus {
        &self.prometheus
    }

    /// Begins the traffic.
    pub fn traffic(&self) -> Traffic {
        let [host, guest, lonely] =
            [&self.scene.host, &self.scene.guest, &self.lonely].map(NetNs::clone);
        let faulty = guest.clone();
        let mut traffic = Traffic::default();
        traffic.go(move |pace| leases(&guest, pace));
        traffic.go(move |pace| bad_frames(&host, pace));
        traffic.go(move |pace| odd_clients(&faulty, pace));
        traffic.go(move |pace| without_a_server(&lonely, pace));
        traffic
    }
}

/// Threads that send, until they are told to end.
#[derive(Default)]
pub struct Traffic(Vec<(Sender<()>, JoinHandle<Result<()>>)>);

impl Traffic {
    fn go(&mut self, send: impl FnOnce(&Pace) -> Result<()> + Send + 'static) {
        let (end, ended) = mpsc::channel();
        let pace = Pace { ended, began: Instant::now() };
        self.0.push((end, thread::spawn(move || send(&pace))));
    }

    /// Ends it. Fails if something could not be sent.
    pub fn end(self) -> Result<()> {
        for (end, thread) in self.0 {
            drop(end);
            thread.join().map_err(|_| anyhow!("a thread has panicked"))??;
        }
        Ok(())
    }
}

/// When to send the next.
struct Pace {
    ended: Receiver<()>,
    began: Instant,
}

impl Pace {
    /// Waits so long. Says whether to go on.
    fn goes_on(&self, milliseconds: u64) -> bool {
        let ended = self.ended.recv_timeout(Duration::from_millis(milliseconds));
        ended == Err(RecvTimeoutError::Timeout)
    }

    /// How much is done at the moment, from 0 to 1: it comes in waves.
    fn swell(&self) -> f64 {
        let turn = self.began.elapsed().as_secs_f64() / WAVE;
        0.5 - 0.5 * (turn * std::f64::consts::TAU).cos()
    }
}

/// Clients that get a lease, each with an address of its own.
fn leases(guest: &NetNs, pace: &Pace) -> Result<()> {
    for number in (1..=90).cycle() {
        if !pace.goes_on(400 + (1600.0 * (1.0 - pace.swell())) as u64) {
            break;
        }
        strict::ask(guest, GUEST, [0x52, 0x54, 0, 0x1c, 0x40, number], HOPE)?;
    }
    Ok(())
}

/// Replies that are partial, right, corrupt, without a sum, and cut short.
fn bad_frames(host: &NetNs, pace: &Pace) -> Result<()> {
    let sockets = [BRIDGE, OTHER].map(|bridge| PacketSocket::open(host, bridge));
    let [busy, quiet] = sockets;
    let (busy, quiet) = (busy?, quiet?);
    let valid = reply::frame(&[7; 300]);
    let [mut partial, mut corrupt, mut unchecked] = [(); 3].map(|()| valid.clone());
    reply::make_partial(&mut partial);
    corrupt[reply::CHECKSUM_AT] ^= 0x55;
    unchecked[reply::CHECKSUM_AT..][..2].fill(0);
    let cut = &valid[..valid.len() - 40];
    for round in 0_u32.. {
        if !pace.goes_on(250) {
            break;
        }
        for _ in 0..(4.0 * pace.swell()) as u32 {
            busy.send(&valid, None)?;
        }
        quiet.send(&partial, Some(PARTIAL))?;
        if round % 60 > 36 {
            busy.send(&corrupt, None)?;
        }
        for (often, frame) in [(5, &unchecked[..]), (11, cut)] {
            if round % often == 0 {
                busy.send(frame, None)?;
            }
        }
    }
    Ok(())
}

/// Clients that ask for an address of another network, that take no offer, and that are slow.
fn odd_clients(guest: &NetNs, pace: &Pace) -> Result<()> {
    let socket = PacketSocket::open(guest, GUEST)?;
    let foreign = DhcpOption::RequestedIpAddress([192, 168, 99, 9].into());
    let say = |client: u8, message_type, options: &[DhcpOption]| -> Result<()> {
        let mac = [0x52, 0x54, 0, 0x1c, 0x41, client];
        Ok(socket.send(&client::frame(mac, message_type, options)?, None)?)
    };
    for round in (0..=250_u8).cycle() {
        if !pace.goes_on(2100) {
            break;
        }
        match round % 5 {
            0 | 3 => say(round, MessageType::Request, std::slice::from_ref(&foreign))?,
            1 => say(round, MessageType::Discover, &[])?,
            _ => {
                say(round, MessageType::Discover, &[])?;
                let patience = 40 * u64::from(round % 20 + 1);
                let mac = [0x52, 0x54, 0, 0x1c, 0x41, round];
                if pace.goes_on(patience) {
                    strict::ask(guest, GUEST, mac, HOPE)?;
                }
            }
        }
    }
    Ok(())
}

/// Clients that nobody answers.
fn without_a_server(guest: &NetNs, pace: &Pace) -> Result<()> {
    for number in 1..=250 {
        strict::ask(guest, GUEST, [0x52, 0x54, 0, 0x1c, 0x42, number], HOPE)?;
        if !pace.goes_on(9000) {
            break;
        }
    }
    Ok(())
}
