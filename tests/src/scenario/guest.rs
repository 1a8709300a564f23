//! A guest behind a port of a bridge, with a client that verifies every checksum.

use std::{
    net::{IpAddr, UdpSocket},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Error, Result};
use dhcproto::{
    Decodable as _, Encodable as _,
    v4::{DhcpOption, Message, MessageType},
};
use fixer_common::{
    decide::{Decision, decide},
    rule::Rule,
};
use fixer_user::{
    lab::{
        link,
        packet::PacketSocket,
        strict::{self, Lease, Outcome},
    },
    net::netns::{NetNs, Spec},
};

/// The interface of a guest that is made here.
const INTERFACE: &str = "eth0";

/// How long a client asks that gets nothing: three replies come in the meantime.
const SHORT: Duration = Duration::from_secs(4);

/// How long one may take that gets its lease.
const LONG: Duration = Duration::from_secs(20);

/// The length of the headers before a DHCP message.
const HEADERS: usize = 14 + 20 + 8;

/// A namespace with an interface on the bridge.
#[derive(Debug)]
pub struct Guest {
    netns: NetNs,
    interface: &'static str,
    mac: [u8; 6],
}

impl Guest {
    /// A guest whose interface's other end has this name in `host`, and is nobody's port yet. The last
    /// byte of its address is `number`.
    pub fn new(host: &NetNs, port: &str, number: u8) -> Result<Self> {
        let netns = NetNs::scratch("guest")?;
        link::veth(host, port, &netns, INTERFACE)
            .with_context(|| format!("the port {port} cannot be made"))?;
        Ok(Self::at(netns, INTERFACE, number))
    }

    /// A guest at an interface that is there already.
    pub fn at(netns: NetNs, interface: &'static str, number: u8) -> Self {
        Self { netns, interface, mac: [2, 0, 0, 0, 0, number] }
    }

    /// The same as a port of a bridge.
    pub fn behind(host: &NetNs, bridge: &str, port: &str, number: u8) -> Result<Self> {
        let guest = Self::new(host, port, number)?;
        link::enslave(host, port, bridge)
            .with_context(|| format!("{port} cannot be a port of {bridge}"))?;
        Ok(guest)
    }

    /// A guest that is there already, such as a container, by the file of its namespace.
    pub fn inside(netns: &Path, number: u8) -> Result<Self> {
        let spec = netns.to_string_lossy().parse::<Spec>().map_err(Error::msg)?;
        Ok(Self::at(NetNs::open(&spec)?, INTERFACE, number))
    }

    /// Asks for a lease for as long as it takes to see that there is none.
    pub fn ask_in_vain(&self) -> Result<Outcome> {
        self.ask_for(SHORT)
    }

    /// Asks for a lease, and waits until it comes.
    pub fn ask(&self) -> Result<Outcome> {
        self.ask_for(LONG)
    }

    /// Asks for a lease for so long, if it does not come before.
    pub fn ask_for(&self, patience: Duration) -> Result<Outcome> {
        Ok(strict::ask(&self.netns, self.interface, self.mac, patience)?)
    }

    /// Asks in vain as a client of this vendor class.
    pub fn ask_in_vain_as(&self, class: &str) -> Result<Outcome> {
        Ok(strict::ask_as(class, &self.netns, self.interface, self.mac, SHORT)?)
    }

    /// Asks for a lease as a client of this vendor class, and waits until it comes.
    pub fn ask_as(&self, class: &str) -> Result<Outcome> {
        Ok(strict::ask_as(class, &self.netns, self.interface, self.mac, LONG)?)
    }

    /// Takes the address that it was given, as a client's kernel does.
    pub fn settle(&self, lease: Lease, prefix: u8) -> Result<()> {
        Ok(link::address(&self.netns, self.interface, IpAddr::V4(lease.address), prefix)?)
    }

    /// Asks the server itself for more time, as a settled client does when half of its lease is over. The
    /// client is strict: it has its lease only if it can believe the answer.
    pub fn renew(&self, lease: Lease) -> Result<Outcome> {
        let wire = PacketSocket::open(&self.netns, self.interface)?;
        let socket = self.netns.run(|| UdpSocket::bind((lease.address, 68)))??;
        let zero = [0, 0, 0, 0].into();
        let mut request = Message::new(lease.address, zero, zero, zero, &self.mac);
        // An Ethernet address by which the server knows it, as the strict client told it.
        let identifier = [&[1], &self.mac[..]].concat();
        request.opts_mut().insert(DhcpOption::MessageType(MessageType::Request));
        request.opts_mut().insert(DhcpOption::ClientIdentifier(identifier));
        socket.send_to(&request.to_vec()?, (lease.server, 67))?;
        let is_ack = |bytes: &[u8]| {
            let message = bytes.get(HEADERS..).map(Message::from_bytes);
            decide(bytes, &[Rule::DHCP][..]).is_some()
                && message
                    .is_some_and(|it| it.is_ok_and(|it| it.opts().has_msg_type(MessageType::Ack)))
        };
        let reply = wire
            .receive(LONG, |frame| is_ack(&frame.bytes))?
            .with_context(|| format!("{} does not answer who renews its lease", lease.server))?;
        let (lease, bad) = match decide(&reply.bytes[..], &[Rule::DHCP][..]) {
            Some(Decision::Fix(_, field)) => (None, vec![field]),
            _ => (Some(lease), Vec::new()),
        };
        Ok(Outcome { lease, replies: 1, bad })
    }
}
