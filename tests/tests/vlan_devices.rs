//! Replies over VLAN devices, and between the access ports of a bridge: the kernel itself adds and takes
//! the tags.
//!
//! Run on the kernels of `cargo xtask vm`, for not every machine's kernel has such devices.

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use fixer_common::{abi::Hook, rule::Rule, verdict::Verdict};
use fixer_tests::{
    command::{output, turn_off},
    frames::Packet,
    kernel::{counted, load, require_root},
};
use fixer_user::{
    bpf::attach::Wish,
    lab::{
        link,
        packet::{PacketSocket, Partial, Received, wait_until_open},
        reply::verifies,
    },
    net::netns::NetNs,
};

const PATIENCE: Duration = Duration::from_secs(5);

/// VLAN devices at both ends of a veth pair.
struct Pair {
    near: NetNs,
    far: NetNs,
}

impl Pair {
    /// `offload`: whether the veth pair keeps tags beside frames, or has them put in.
    fn new(offload: bool) -> Result<Self> {
        require_root()?;
        let pair = Self { near: NetNs::scratch("near")?, far: NetNs::scratch("far")? };
        link::veth(&pair.near, "near", &pair.far, "far")?;
        if !offload {
            turn_off(&pair.near, "near", "txvlan")?;
            turn_off(&pair.far, "far", "txvlan")?;
        }
        let vlan = "cannot make a VLAN device; the kernel needs 802.1Q (CONFIG_VLAN_8021Q)";
        link::vlan(&pair.near, "near.100", "near", 100).context(vlan)?;
        link::vlan(&pair.far, "far.100", "far", 100).context(vlan)?;
        link::address(&pair.near, "near.100", [10, 9, 0, 1].into(), 24)?;
        link::address(&pair.far, "far.100", [10, 9, 0, 2].into(), 24)?;
        Ok(pair)
    }
}

#[test]
fn replies_of_a_raw_sender_and_of_a_socket_are_mended_wherever_the_programs_are() -> Result<()> {
    for offload in [true, false] {
        for (place, hook) in [
            ("near.100", Hook::Egress),
            ("near", Hook::Egress),
            ("far", Hook::Ingress),
            ("far.100", Hook::Ingress),
        ] {
            pass(offload, place, hook)
                .with_context(|| format!("tag offload {offload}, {} of {place}", hook.name()))?;
        }
    }
    Ok(())
}

fn pass(offload: bool, place: &str, hook: Hook) -> Result<()> {
    let pair = Pair::new(offload)?;
    let sender = PacketSocket::open(&pair.near, "near.100")?;
    let receiver = PacketSocket::open(&pair.far, "far.100")?;
    wait_until_open(&sender, &receiver)?;
    let server = pair.near.run(|| UdpSocket::bind("10.9.0.1:67"))??;
    let client = pair.far.run(|| UdpSocket::bind("10.9.0.2:68"))??;
    client.set_read_timeout(Some(PATIENCE))?;

    let mut object = load(&[Rule::DHCP])?;
    let netns = if place.starts_with("near") { &pair.near } else { &pair.far };
    let attachment = netns.run(|| object.attach(place, hook, Wish::Auto))??;
    let lengths = [5, 244, 300, 1401];
    for len in lengths {
        let packet = Packet::reply(len);
        let partial = Partial { csum_start: packet.start() as u16, csum_offset: 6 };
        // Linux 5.10 cannot tell by itself what is sent raw over a VLAN device.
        sender.send_as(&packet.partial(), Some(partial), libc::ETH_P_IP as u16)?;
        let right = packet.right();
        // An `AF_PACKET` reader sees a frame before the programs at ingress of its own interface do.
        if (place, hook) != ("far.100", Hook::Ingress) {
            let received = receiver
                .receive(PATIENCE, |received| received.bytes.len() == right.len())?
                .with_context(|| format!("{len} bytes from a raw sender did not arrive"))?;
            ensure!(
                received.bytes == right,
                "{len} bytes from a raw sender: {:02x?} arrived, not {right:02x?}",
                received.bytes
            );
            ensure!(!received.partial, "{len} bytes from a raw sender: still partial");
        }
        let payload = vec![len as u8; len + 1];
        server.send_to(&payload, "10.9.0.2:68")?;
        let mut buffer = [0; 2048];
        let received = client.recv(&mut buffer).context("a socket's datagram did not arrive")?;
        ensure!(buffer[..received] == payload[..], "{len} bytes from a socket: other bytes");
        if (place, hook) != ("far.100", Hook::Ingress) {
            let frame = receiver
                .receive(PATIENCE, |received| received.bytes.ends_with(&payload))?
                .context("a socket's frame was not seen")?;
            ensure!(!frame.partial && verifies(&frame.bytes), "{len} bytes from a socket");
        }
    }
    let counts = counted(&object)?;
    let fixed = counts[Verdict::Fixed as usize];
    ensure!(fixed == 2 * lengths.len() as u64, "{counts:?}");
    ensure!(counts.iter().sum::<u64>() == fixed, "{counts:?}");
    netns.run(|| object.detach(attachment))??;
    Ok(())
}

/// A bridge that keeps VLANs apart, as the CNI plugin `bridge` sets it up for an access port: the VLAN of
/// a port is its own, untagged.
struct Access {
    host: NetNs,
    server: NetNs,
    guests: [NetNs; 2],
}

impl Access {
    /// A server in VLAN 100, a guest in the same one, and a guest in another.
    fn new() -> Result<Self> {
        require_root()?;
        let scratch = NetNs::scratch;
        let guests = [scratch("guest")?, scratch("stranger")?];
        let access = Self { host: scratch("host")?, server: scratch("server")?, guests };
        link::bridge(&access.host, "br1")?;
        output(&access.host, "ip", &words("link set br1 type bridge vlan_filtering 1"))?;
        let [guest, stranger] = &access.guests;
        for (port, pod, vlan) in
            [("veth0", &access.server, 100), ("veth1", guest, 100), ("veth2", stranger, 200)]
        {
            link::veth(&access.host, port, pod, "net1")?;
            link::enslave(&access.host, port, "br1")?;
            let add = format!("vlan add dev {port} vid {vlan} pvid untagged");
            output(&access.host, "bridge", &words(&add))?;
            output(&access.host, "bridge", &words(&format!("vlan del dev {port} vid 1")))?;
        }
        link::address(&access.server, "net1", [10, 9, 0, 1].into(), 24)?;
        Ok(access)
    }

    /// What a guest gets of a broadcast of the server's: an OFFER to one that has no address.
    fn offer(&self, guest: &NetNs, patience: Duration) -> Result<Option<Received>> {
        let ear = PacketSocket::open(guest, "net1")?;
        let server = self.server.run(|| UdpSocket::bind("10.9.0.1:67"))??;
        server.set_broadcast(true)?;
        server.send_to(&[0x42; 300], "10.9.0.255:68")?;
        Ok(ear.receive(patience, |frame| frame.bytes.ends_with(&[0x42; 300]))?)
    }
}

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

#[test]
fn an_offer_between_access_ports_is_mended_and_stays_in_its_vlan() -> Result<()> {
    let access = Access::new()?;
    let [guest, stranger] = &access.guests;
    wait_until_forwarding(&access)?;
    let offer = access.offer(guest, PATIENCE)?.context("no offer came without fixer")?;
    ensure!(offer.partial && !verifies(&offer.bytes), "nothing is wrong there: {offer:?}");
    for (port, hook) in [("veth1", Hook::Egress), ("veth0", Hook::Ingress)] {
        let mut object = load(&[Rule::DHCP])?;
        let attachment = access.host.run(|| object.attach(port, hook, Wish::Auto))??;
        let offer = access.offer(guest, PATIENCE)?.with_context(|| format!("none by {port}"))?;
        ensure!(!offer.partial && verifies(&offer.bytes), "{port}: {offer:?}");
        ensure!(offer.tag.is_none(), "an access port lets no tag out: {offer:?}");
        // It would have come before the guest's.
        let strayed = access.offer(stranger, Duration::from_millis(200))?;
        ensure!(strayed.is_none(), "an offer left its VLAN: {strayed:?}");
        ensure!(counted(&object)?[Verdict::Fixed as usize] == 2, "{:?}", counted(&object)?);
        access.host.run(|| object.detach(attachment))??;
    }
    Ok(())
}

/// A port forwards only when its link is known to be up.
fn wait_until_forwarding(access: &Access) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while access.offer(&access.guests[0], Duration::from_millis(100))?.is_none() {
        ensure!(Instant::now() < deadline, "the bridge forwards nothing");
    }
    Ok(())
}
