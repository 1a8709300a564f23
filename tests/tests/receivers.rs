//! Four kinds of guest behind one bridge, and what each of them gets.
//!
//! The trap of the obvious solution shows here: a program that stores the sum and leaves the packet
//! partial helps the first and the third, and breaks the second and the fourth, for whom the kernel
//! finishes the sum a second time.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fixer_common::verdict::Verdict;
use fixer_tests::{
    command::turn_off,
    frames::Packet,
    kernel::{HOOK, counted, load, require_root},
    tap::Tap,
};
use fixer_user::{
    bpf::attach::Wish,
    lab::{
        link,
        packet::{PacketSocket, Partial, Received, wait_until_open},
    },
    net::netns::NetNs,
};

const PATIENCE: Duration = Duration::from_secs(5);

/// What a guest sees of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    right: bool,
    partial: bool,
}

/// Ready for everyone.
const GOOD: Seen = Seen { right: true, partial: false };
/// Left to a guest that may not look at the mark.
const UNFINISHED: Seen = Seen { right: false, partial: true };

/// A bridge with a guest of each kind behind it.
struct Guests {
    host: NetNs,
    sender: PacketSocket,
    on: PacketSocket,
    off: PacketSocket,
    able: Tap,
    unable: Tap,
    _namespaces: [NetNs; 2],
}

impl Guests {
    fn new() -> Result<Self> {
        require_root()?;
        let (host, first, second) =
            (NetNs::scratch("host")?, NetNs::scratch("first")?, NetNs::scratch("second")?);
        link::bridge(&host, "br0")?;
        link::veth(&host, "on", &first, "eth0")?;
        link::veth(&host, "off", &second, "eth0")?;
        turn_off(&host, "off", "tx")?;
        let able = Tap::open(&host, "able", true)?;
        let unable = Tap::open(&host, "unable", false)?;
        for port in ["on", "off", "able", "unable"] {
            link::enslave(&host, port, "br0")?;
            link::up(&host, port)?;
        }
        let sender = PacketSocket::open(&host, "br0")?;
        let on = PacketSocket::open(&first, "eth0")?;
        let off = PacketSocket::open(&second, "eth0")?;
        for receiver in [&on, &off] {
            wait_until_open(&sender, receiver)?;
        }
        Ok(Self { host, sender, on, off, able, unable, _namespaces: [first, second] })
    }

    /// Sends a reply through the bridge, and says what each guest sees of it: behind a port with
    /// checksum offload and without, through a tap that can finish sums and one that cannot.
    fn send(&mut self, packet: &Packet) -> Result<[Seen; 4]> {
        let partial = Partial { csum_start: packet.start() as u16, csum_offset: 6 };
        self.sender.send(&packet.partial(), Some(partial))?;
        let right = packet.right();
        let is_it = |received: &Received| same_but_for_checksum(&received.bytes, &right, packet);
        let received = [
            self.on.receive(PATIENCE, is_it)?.context("not seen behind a port with offload")?,
            self.off.receive(PATIENCE, is_it)?.context("not seen behind a port without offload")?,
            self.able.receive(PATIENCE, is_it)?.context("not seen by a tap with offload")?,
            self.unable.receive(PATIENCE, is_it)?.context("not seen by a tap without offload")?,
        ];
        Ok(received.map(|Received { bytes, partial, .. }| Seen { right: bytes == right, partial }))
    }
}

fn same_but_for_checksum(one: &[u8], other: &[u8], packet: &Packet) -> bool {
    let at = packet.checksum_at();
    one.len() == other.len() && one[..at] == other[..at] && one[at + 2..] == other[at + 2..]
}

/// Without fixer two of the four get a sum that nobody finished. If this does not hold, the suite
/// cannot see what it is about.
#[test]
fn without_fixer_the_fault_shows() -> Result<()> {
    let mut guests = Guests::new()?;
    let seen = guests.send(&Packet::reply(300))?;
    ensure!(seen == [UNFINISHED, GOOD, UNFINISHED, GOOD], "{seen:?}");
    Ok(())
}

#[test]
fn with_fixer_all_four_get_a_right_sum_that_is_not_partial() -> Result<()> {
    let mut guests = Guests::new()?;
    let mut object = load(&[fixer_common::rule::Rule::DHCP])?;
    let attachment = guests.host.run(|| object.attach("br0", HOOK, Wish::Auto))??;
    let replies = [0, 1, 5, 240, 241, 244, 300, 301, 548, 1471, 1472];
    let mut sent = 0;
    for len in replies {
        for options in [0, 4, 40] {
            if options + len > 1472 {
                continue;
            }
            let seen = guests
                .send(&Packet::reply(len).with_options(options))
                .with_context(|| format!("{len} bytes, {options} bytes of options"))?;
            ensure!(seen == [GOOD; 4], "{len} bytes, {options} bytes of options: {seen:?}");
            sent += 1;
        }
    }
    let fixed = counted(&object)?[Verdict::Fixed as usize];
    ensure!(fixed == sent, "{sent} were sent, {fixed} were counted as fixed");
    guests.host.run(|| object.detach(attachment))??;
    Ok(())
}
