//! A strict DHCP client: smoltcp over a raw socket. It verifies every checksum and believes no mark.

use std::{
    cell::RefCell,
    io,
    net::Ipv4Addr,
    os::fd::AsRawFd as _,
    rc::Rc,
    time::{Duration, Instant},
};

use fixer_common::{
    decide::{Decision, Field, decide},
    rule::Rule,
};
use smoltcp::{
    iface::{Config, Interface, SocketSet},
    phy::{self, Device, DeviceCapabilities, Medium, RawSocket},
    socket::dhcpv4,
    time::{Duration as Span, Instant as Moment},
    wire::{DhcpOption, EthernetAddress},
};

use crate::net::netns::NetNs;

/// The option in which a client says of what class it is (RFC 2132).
const VENDOR_CLASS: u8 = 60;

/// What a client got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its address.
    pub address: Ipv4Addr,
    /// The server that gave it.
    pub server: Ipv4Addr,
}

/// What came of asking.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The lease, if there was one.
    pub lease: Option<Lease>,
    /// Replies of a DHCP server that reached the client.
    pub replies: usize,
    /// The checksums of those that it had to drop.
    pub bad: Vec<Field>,
}

/// Asks for a lease on an interface, until there is one or `patience` is over.
pub fn ask(
    netns: &NetNs,
    interface: &str,
    mac: [u8; 6],
    patience: Duration,
) -> io::Result<Outcome> {
    netns.run(|| converse(interface, mac, &[], patience))?
}

/// The same for a client that says of what vendor class it is, such as `PXEClient`.
pub fn ask_as(
    class: &str,
    netns: &NetNs,
    interface: &str,
    mac: [u8; 6],
    patience: Duration,
) -> io::Result<Outcome> {
    let class = DhcpOption { kind: VENDOR_CLASS, data: class.as_bytes() };
    netns.run(|| converse(interface, mac, &[class], patience))?
}

fn converse(
    interface: &str,
    mac: [u8; 6],
    options: &[DhcpOption<'_>],
    patience: Duration,
) -> io::Result<Outcome> {
    let seen = Rc::new(RefCell::new(Outcome::default()));
    let socket = RawSocket::new(interface, Medium::Ethernet)?;
    let fd = socket.as_raw_fd();
    let mut device = Watched { socket, seen: Rc::clone(&seen) };
    let mut config = Config::new(EthernetAddress(mac).into());
    // Two runs must not share a transaction id: it is drawn from this.
    config.random_seed = Moment::now().total_micros().unsigned_abs();
    let mut iface = Interface::new(config, &mut device, Moment::now());
    let mut sockets = SocketSet::new(Vec::new());
    let mut dhcp = dhcpv4::Socket::new();
    let mut retry = dhcpv4::RetryConfig::default();
    retry.discover_timeout = Span::from_secs(1);
    dhcp.set_retry_config(retry);
    dhcp.set_outgoing_options(options);
    let dhcp = sockets.add(dhcp);

    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        let now = Moment::now();
        iface.poll(now, &mut device, &mut sockets);
        if let Some(dhcpv4::Event::Configured(config)) =
            sockets.get_mut::<dhcpv4::Socket<'_>>(dhcp).poll()
        {
            seen.borrow_mut().lease =
                Some(Lease { address: config.address.address(), server: config.server.address });
            break;
        }
        let left = Span::from(deadline.saturating_duration_since(Instant::now()));
        let wait = iface.poll_delay(now, &sockets).unwrap_or(left).min(left);
        phy::wait(fd, Some(wait))?;
    }
    Ok(seen.take())
}

/// The raw socket, with a look at every reply that passes.
struct Watched {
    socket: RawSocket,
    seen: Rc<RefCell<Outcome>>,
}

/// A received frame on its way to the client.
struct Look {
    token: <RawSocket as Device>::RxToken<'static>,
    seen: Rc<RefCell<Outcome>>,
}

impl phy::RxToken for Look {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, act: F) -> R {
        self.token.consume(|frame| {
            if let Some(decision) = decide(frame, &[Rule::DHCP][..]) {
                let mut seen = self.seen.borrow_mut();
                seen.replies += 1;
                if let Decision::Fix(_, field) = decision {
                    seen.bad.push(field);
                }
            }
            act(frame)
        })
    }
}

impl Device for Watched {
    type RxToken<'a> = Look;
    type TxToken<'a> = <RawSocket as Device>::TxToken<'a>;

    fn capabilities(&self) -> DeviceCapabilities {
        self.socket.capabilities()
    }

    fn receive(&mut self, now: Moment) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        let (token, reply) = self.socket.receive(now)?;
        Some((Look { token, seen: Rc::clone(&self.seen) }, reply))
    }

    fn transmit(&mut self, now: Moment) -> Option<Self::TxToken<'_>> {
        self.socket.transmit(now)
    }
}
