//! The scene of the fault: a host with a bridge and dnsmasq on it, and a guest behind a port.

use std::{
    io::{self, BufRead as _, BufReader},
    net::{IpAddr, Ipv4Addr},
    process::{Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use super::{link, sandbox::Sandboxed};
use crate::net::netns::NetNs;

/// The bridge's name in the host's namespace.
pub const BRIDGE: &str = "br0";
/// The port's name in the host's namespace.
pub const PORT: &str = "guest0";
/// The guest's interface.
pub const GUEST: &str = "eth0";
/// The server's address on the bridge.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 3, 1);

/// How long the server may take to start.
const PATIENCE: Duration = Duration::from_secs(10);
/// What dnsmasq says when it listens.
const LISTENING: &str = "sockets bound exclusively to interface";

/// A host and a guest, joined by a bridge.
#[derive(Debug)]
pub struct Scene {
    /// Where the bridge and the server are.
    pub host: NetNs,
    /// Where the client is.
    pub guest: NetNs,
}

impl Scene {
    /// Makes both namespaces, the bridge with its address, and the guest's port.
    pub fn new() -> io::Result<Self> {
        let scene = Self { host: NetNs::scratch("host")?, guest: NetNs::scratch("guest")? };
        link::up(&scene.host, "lo")?;
        link::bridge(&scene.host, BRIDGE)?;
        link::address(&scene.host, BRIDGE, IpAddr::V4(SERVER), 24)?;
        link::veth(&scene.host, PORT, &scene.guest, GUEST)?;
        link::enslave(&scene.host, PORT, BRIDGE)?;
        Ok(scene)
    }
}

/// A running dnsmasq that serves DHCP on the bridge.
#[derive(Debug)]
pub struct Dnsmasq {
    log: Receiver<String>,
    offers: usize,
    _process: Sandboxed,
}

impl Dnsmasq {
    /// Starts it, and waits until it listens.
    ///
    /// It does not ping before it offers: that takes three seconds, and a client that gives up in
    /// the meantime would fail for another reason than ours.
    pub fn start(scene: &Scene) -> io::Result<Self> {
        Self::with_range(scene, "10.0.3.100,10.0.3.199,255.255.255.0,1h")
    }

    /// The same with other addresses to give away, as its option `--dhcp-range` takes them.
    pub fn with_range(scene: &Scene, range: &str) -> io::Result<Self> {
        let mut command = Command::new("dnsmasq");
        command
            .args(["--keep-in-foreground", "--log-facility=-", "--conf-file=/dev/null"])
            .args(["--port=0", "--no-resolv", "--no-hosts", "--no-ping", "--leasefile-ro"])
            .args(["--user=root", "--group=root", "--pid-file", "--bind-interfaces"])
            .arg(format!("--interface={BRIDGE}"))
            .arg(format!("--dhcp-range={range}"))
            .arg("--dhcp-authoritative")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut process = Sandboxed::spawn(&scene.host, command).map_err(|error| {
            let advice = match error.kind() {
                io::ErrorKind::NotFound => "; install it: apt-get install dnsmasq-base",
                _ => "",
            };
            io::Error::new(error.kind(), format!("cannot start dnsmasq: {error}{advice}"))
        })?;
        let log = match process.child().stderr.take() {
            Some(stderr) => lines(stderr),
            None => return Err(io::Error::other("dnsmasq has no log")),
        };
        let deadline = Instant::now() + PATIENCE;
        let mut said = Vec::new();
        while let Ok(line) = log.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            if line.contains(LISTENING) {
                return Ok(Self { log, offers: 0, _process: process });
            }
            said.push(line);
        }
        Err(io::Error::other(format!("dnsmasq did not start: {}", said.join("; "))))
    }

    /// Waits until it logs these words. Says whether it does, before `patience` is over.
    pub fn says(&mut self, words: &str, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let left = || deadline.saturating_duration_since(Instant::now());
        while let Ok(line) = self.log.recv_timeout(left()) {
            self.offers += usize::from(line.contains("DHCPOFFER"));
            if line.contains(words) {
                return true;
            }
        }
        false
    }

    /// How many OFFERs it has sent so far, by its own log.
    pub fn offers(&mut self) -> usize {
        self.offers += self.log.try_iter().filter(|line| line.contains("DHCPOFFER")).count();
        self.offers
    }
}

/// The lines of a pipe, as they come.
pub fn lines(pipe: impl io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}
