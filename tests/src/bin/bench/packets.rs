//! The packets that a server sends, each made the way servers make it.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result};
use fixer_tests::{
    command::output,
    frames::{Network, Packet},
};
use fixer_user::lab::{
    packet::{Message, PacketSocket, Partial, Received, wait_until_open},
    reply::{UDP_AT, verifies},
    scene::{BRIDGE, GUEST, SERVER, Scene},
};

/// The guest's addresses. It has them only in the eyes of the host, so that nothing answers.
const GUEST4: Ipv4Addr = Ipv4Addr::new(10, 0, 3, 129);
const GUEST6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x129);
const SERVER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
const GUEST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// How long a packet may take from the host to the guest.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a segment carries over Ethernet with TCP's timestamps, in bytes.
const SEGMENT: usize = 1448;

/// A kind of packet.
pub struct Kind {
    /// What it is called in tables.
    pub name: &'static str,
    open: fn(&Scene) -> Result<Sender>,
}

/// Sends one packet.
pub type Sender = Box<dyn Fn() -> io::Result<()>>;

/// Every kind, in the order of the tables.
pub const KINDS: &[Kind] = &[
    Kind {
        name: "UDP 300 B",
        open: |scene| udp(scene, (IpAddr::V4(SERVER), 5000), (IpAddr::V4(GUEST4), 5001), 300),
    },
    Kind {
        name: "UDP 300 B over IPv6",
        open: |scene| udp(scene, (IpAddr::V6(SERVER6), 5000), (IpAddr::V6(GUEST6), 5001), 300),
    },
    Kind { name: "TCP 1448 B", open: |scene| tcp(scene, 1) },
    Kind { name: "TCP 64 kB, GSO", open: |scene| tcp(scene, 44) },
    Kind { name: "ARP", open: arp },
    Kind { name: "DHCP reply 300 B", open: |scene| reply(scene, 300) },
    Kind { name: "DHCP reply 548 B", open: |scene| reply(scene, 548) },
    Kind { name: "DHCP reply 1400 B", open: |scene| reply(scene, 1400) },
];

/// A datagram of which much time goes into everything but its bytes.
pub const SMALL: Kind = Kind {
    name: "UDP 64 B",
    open: |scene| udp(scene, (IpAddr::V4(SERVER), 5000), (IpAddr::V4(GUEST4), 5001), 64),
};

impl Kind {
    /// Opens the socket, and says how to send one packet through it.
    pub fn open(&self, scene: &Scene) -> Result<Sender> {
        (self.open)(scene)
    }
}

/// A host and a guest that know each other and say nothing by themselves.
pub fn scene() -> Result<Scene> {
    let scene = Scene::new()?;
    // Nothing of IPv6 is sent unasked, and nothing is awaited.
    scene.guest.run(|| std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1"))??;
    let ip = |arguments: &str| output(&scene.host, "ip", &arguments.split(' ').collect::<Vec<_>>());
    let mac = GUEST_MAC.map(|byte| format!("{byte:02x}")).join(":");
    ip(&format!("address add {SERVER6}/64 dev {BRIDGE} nodad"))?;
    ip(&format!("neighbour add {GUEST4} lladdr {mac} nud permanent dev {BRIDGE}"))?;
    ip(&format!("neighbour add {GUEST6} lladdr {mac} nud permanent dev {BRIDGE}"))?;
    output(&scene.guest, "ip", &["link", "set", GUEST, "address", &mac])?;

    // The bridge learns where the guest is from the first frame that it sends.
    let (host, guest) =
        (PacketSocket::open(&scene.host, BRIDGE)?, PacketSocket::open(&scene.guest, GUEST)?);
    wait_until_open(&host, &guest)?;
    let mut hello = vec![0xff; 60];
    hello[6..12].copy_from_slice(&GUEST_MAC);
    guest.send(&hello, None)?;
    Ok(scene)
}

/// Whether a reply reaches the guest with its sum right, and no longer marked partial.
pub fn reply_arrives_finished(scene: &Scene) -> Result<bool> {
    let guest = PacketSocket::open(&scene.guest, GUEST)?;
    reply(scene, 300)?()?;
    let is_reply =
        |received: &Received| received.bytes.get(UDP_AT..UDP_AT + 4) == Some(&[0, 67, 0, 68]);
    let received = guest.receive(PATIENCE, is_reply)?.context("a reply does not arrive")?;
    Ok(!received.partial && verifies(&received.bytes))
}

fn udp(
    scene: &Scene,
    from: (IpAddr, u16),
    to: (IpAddr, u16),
    payload_len: usize,
) -> Result<Sender> {
    let socket = scene.host.run(|| UdpSocket::bind(SocketAddr::from(from)))??;
    let payload: Vec<u8> = (0..payload_len).map(|at| (at * 13 + 2) as u8).collect();
    Ok(Box::new(move || socket.send_to(&payload, to).map(drop)))
}

/// To a guest whose address the server knows, which is every one that does not ask for a broadcast.
fn reply(scene: &Scene, payload_len: usize) -> Result<Sender> {
    udp(scene, (IpAddr::V4(SERVER), 67), (IpAddr::V4(GUEST4), 68), payload_len)
}

/// One segment, or as many as the host hands over at once.
fn tcp(scene: &Scene, segments: usize) -> Result<Sender> {
    let socket = PacketSocket::open(&scene.host, BRIDGE)?;
    let packet = Packet {
        source: 5000,
        destination: 5001,
        ..Packet::segment(Network::V4(Vec::new()), segments * SEGMENT)
    };
    let partial =
        Partial { csum_start: packet.start() as u16, csum_offset: packet.checksum_offset() as u16 };
    let mut frame = packet.partial();
    frame[..6].copy_from_slice(&GUEST_MAC);
    let message = match segments {
        1 => Message::new(&frame, Some(partial)),
        _ => Message::uncut(&frame, partial, SEGMENT as u16),
    };
    Ok(Box::new(move || socket.send_ready(&message)))
}

/// Who has an address that nobody has? (RFC 826)
fn arp(scene: &Scene) -> Result<Sender> {
    let socket = PacketSocket::open(&scene.host, BRIDGE)?;
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend([2, 0, 0, 0, 0, 1]);
    frame.extend(SERVER.octets());
    frame.extend([0; 6]);
    frame.extend(GUEST4.octets());
    let message = Message::new(&frame, None);
    Ok(Box::new(move || socket.send_ready(&message)))
}
