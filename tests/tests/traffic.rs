//! Real sockets in two namespaces: packets that the kernel's own stack made, in the shapes in which it
//! makes them.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use fixer_common::{
    rule::{Kinds, Rule},
    verdict::{TABLE, Verdict},
};
use fixer_tests::kernel::{HOOK, counted, load, require_root};
use fixer_user::{
    bpf::{
        attach::{Attachment, Wish},
        load::Object,
    },
    lab::{link, packet::PacketSocket, reply::verifies},
    net::netns::NetNs,
};

const PATIENCE: Duration = Duration::from_secs(10);
const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1));
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2));

/// A server and a client at the ends of a veth pair, the programs at the server's egress.
struct Net {
    server: NetNs,
    client: NetNs,
    object: Object,
    _attachment: Attachment,
}

impl Net {
    fn new(rules: &[Rule]) -> Result<Self> {
        require_root()?;
        let (server, client) = (NetNs::scratch("server")?, NetNs::scratch("client")?);
        link::veth(&server, "server0", &client, "client0")?;
        link::address(&server, "server0", SERVER, 24)?;
        link::address(&client, "client0", CLIENT, 24)?;
        let mut object = load(rules)?;
        let attachment = server.run(|| object.attach("server0", HOOK, Wish::Auto))??;
        Ok(Self { server, client, object, _attachment: attachment })
    }

    /// A server's and a client's DHCP socket, the former connected to the latter.
    fn dhcp(&self) -> Result<(UdpSocket, UdpSocket)> {
        let server = self.server.run(|| UdpSocket::bind((SERVER, 67)))??;
        let client = self.client.run(|| UdpSocket::bind((CLIENT, 68)))??;
        client.set_read_timeout(Some(PATIENCE))?;
        server.connect((CLIENT, 68))?;
        Ok((server, client))
    }

    fn counts(&self) -> Result<[u64; TABLE.len()]> {
        counted(&self.object)
    }
}

/// Turns a socket option with a number on.
fn set(socket: &UdpSocket, level: i32, option: i32, value: i32) -> Result<()> {
    // SAFETY: the value is a live number of the length that is given.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of_val(&value) as u32,
        )
    };
    ensure!(outcome == 0, "setsockopt: {}", std::io::Error::last_os_error());
    Ok(())
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 11 + at / 256) as u8).collect()
}

/// With `MSG_ZEROCOPY` all of a datagram but its headers lies in pages of the sender, out of reach of
/// a program that does not pull it in.
#[test]
fn a_reply_whose_payload_is_not_in_reach_is_mended() -> Result<()> {
    let net = Net::new(&[Rule::DHCP])?;
    let (server, client) = net.dhcp()?;
    let wire = PacketSocket::open(&net.client, "client0")?;
    set(&server, libc::SOL_SOCKET, libc::SO_ZEROCOPY, 1)?;
    for len in [1, 300, 301, 1472] {
        let payload = payload(len);
        // SAFETY: the payload is readable for its length, and lives until it was received.
        let sent = unsafe {
            libc::send(server.as_raw_fd(), payload.as_ptr().cast(), len, libc::MSG_ZEROCOPY)
        };
        ensure!(sent == len as isize, "send: {}", std::io::Error::last_os_error());
        let mut buffer = [0; 2048];
        let received = client.recv(&mut buffer).context("the datagram did not arrive")?;
        ensure!(buffer[..received] == payload[..], "{len} bytes: other bytes arrived");
        let frame = wire
            .receive(PATIENCE, |frame| frame.bytes.ends_with(&payload))?
            .context("the frame was not seen")?;
        ensure!(!frame.partial, "{len} bytes: still partial");
        ensure!(verifies(&frame.bytes), "{len} bytes: the sum is wrong");
    }
    let counts = net.counts()?;
    ensure!(counts[Verdict::Fixed as usize] == 4, "{counts:?}");
    Ok(())
}

/// One packet that travels as many datagrams is left to be cut up, and each of them gets its sum.
#[test]
fn datagrams_that_travel_as_one_packet_are_left_alone() -> Result<()> {
    let net = Net::new(&[Rule::DHCP])?;
    let (server, client) = net.dhcp()?;
    set(&server, libc::SOL_UDP, libc::UDP_SEGMENT, 500)?;
    let payload = payload(2900);
    ensure!(server.send(&payload)? == payload.len());
    for expected in payload.chunks(500) {
        let mut buffer = [0; 2048];
        let received = client.recv(&mut buffer).context("a datagram did not arrive")?;
        ensure!(buffer[..received] == *expected, "other bytes arrived");
    }
    let counts = net.counts()?;
    ensure!(counts[Verdict::Gso as usize] == 1, "{counts:?}");
    ensure!(counts.iter().sum::<u64>() == 1, "{counts:?}");
    Ok(())
}

/// A transfer over TCP: large segments are left alone, the others are mended, and every byte arrives.
#[test]
fn tcp_goes_on_while_its_segments_are_mended() -> Result<()> {
    let net = Net::new(&[Rule::new(Kinds::TCP, None, None)])?;
    let listener = net.client.run(|| TcpListener::bind((CLIENT, 0)))??;
    let address: SocketAddr = listener.local_addr()?;
    let expected = payload(20_000_000);
    let reader = thread::spawn(move || -> Result<Vec<u8>> {
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        Ok(bytes)
    });
    let mut stream = net.server.run(|| TcpStream::connect(address))??;
    stream.set_nodelay(true)?;
    let (start, rest) = expected.split_at(1_000_000);
    // Small segments first, each of them a packet of its own.
    for piece in start.chunks(1_000) {
        stream.write_all(piece)?;
    }
    stream.write_all(rest)?;
    drop(stream);
    let bytes = reader.join().ok().context("the reader failed")??;
    ensure!(bytes == expected, "other bytes arrived");

    let counts = net.counts()?;
    let of = |verdict: Verdict| counts[verdict as usize];
    println!("{} segments mended, {} too large", of(Verdict::Fixed), of(Verdict::Gso));
    ensure!(of(Verdict::Fixed) > 0 && of(Verdict::Gso) > 0, "{counts:?}");
    // A segment that answers without a connection has its sum from the start.
    let harmless = of(Verdict::Fixed) + of(Verdict::Gso) + of(Verdict::Valid);
    ensure!(counts.iter().sum::<u64>() == harmless, "{counts:?}");
    Ok(())
}
