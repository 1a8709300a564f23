//! The DHCP message in a datagram, as far as it helps to tell who waits for which lease.
//!
//! The fields and options are found by dhcproto; this module chooses, and makes the strings safe to
//! show. Everything is copied: an event outlives its frame. What cannot be decoded is `None`, and a
//! message whose end was not captured tells what comes before.

mod v4;
mod v6;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use serde::{Serialize, Serializer};

use super::{packet::Mac, printable::printable};

/// A DHCP message. What the sender left out is `None`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dhcp {
    /// The type's name in lower case, such as `offer`; one of a fixed list. A BOOTP message without
    /// a type is a `bootp-request` or a `bootp-reply`, a type that is not on the list is `unknown`.
    pub message_type: &'static str,
    /// The transaction that the message belongs to.
    pub xid: Xid,
    /// The client's Ethernet address. Over DHCPv6 the one in its DUID, which may be of another of
    /// its interfaces.
    pub client_mac: Option<Mac>,
    /// The address that the client gets.
    pub your_ip: Option<IpAddr>,
    /// How the server calls itself.
    pub server_id: Option<ServerId>,
    /// What to boot: option 67 or else the field `file`; over DHCPv6 a URL. Safe to show.
    pub boot_file: Option<String>,
    /// The server to boot from: the field `siaddr`.
    pub next_server: Option<Ipv4Addr>,
    /// Of what kind the client says that it is. Safe to show.
    pub vendor_class: Option<String>,
    /// How the client calls itself: option 61, or over DHCPv6 its DUID.
    pub client_id: Option<Id>,
}

/// The number of a transaction, written `0x6ce6e42e`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Xid {
    /// Of DHCPv4: 32 bits.
    V4(u32),
    /// Of DHCPv6: 24 bits.
    V6(u32),
}

impl fmt::Display for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(xid) => write!(f, "{xid:#010x}"),
            Self::V6(xid) => write!(f, "{xid:#08x}"),
        }
    }
}

impl Serialize for Xid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How a server calls itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServerId {
    /// Over DHCPv4 by an address.
    Address(Ipv4Addr),
    /// Over DHCPv6 by a DUID of up to 130 bytes (RFC 8415, section 11).
    Duid(Id),
}

/// A name that is made of bytes, written in hex with colons.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Id(Vec<u8>);

impl Id {
    /// The longest that an option of DHCPv4 holds in one piece, in bytes.
    const LONGEST: usize = 255;

    /// These bytes; `None`: they are no name, or one that is too long for a line.
    fn new(bytes: &[u8]) -> Option<Self> {
        (1..=Self::LONGEST).contains(&bytes.len()).then(|| Self(bytes.to_vec()))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(place, byte)| {
            let colon = if place == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02x}")
        })
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Duid(duid) => duid.fmt(f),
        }
    }
}

impl Serialize for ServerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The port of a PXE boot server that answers beside the DHCP server (PXE 2.1, section 2.2).
const PXE_PORT: u16 = 4011;

impl Dhcp {
    /// Decodes the payload of a datagram between two ports. `None` if neither is a port of DHCP, or
    /// the payload is no DHCP message.
    pub fn decode(ports: [u16; 2], payload: &[u8]) -> Option<Self> {
        use dhcproto::{v4 as four, v6 as six};
        if ports.iter().any(|port| [four::SERVER_PORT, four::CLIENT_PORT, PXE_PORT].contains(port))
        {
            v4::decode(payload)
        } else if ports.iter().any(|port| [six::SERVER_PORT, six::CLIENT_PORT].contains(port)) {
            v6::decode(payload)
        } else {
            None
        }
    }
}

/// A string option: safe to show, or `None` if there is nothing in it.
fn string(bytes: &[u8]) -> Option<String> {
    Some(printable(bytes)).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::fixture;

    #[test]
    fn the_ports_say_which_dhcp_it_is() {
        let offer = fixture::offer();
        assert!(Dhcp::decode([67, 68], &offer).is_some());
        assert!(Dhcp::decode([4011, 1024], &offer).is_some());
        assert_eq!(Dhcp::decode([53, 1024], &offer), None);
        assert_eq!(Dhcp::decode([547, 546], &[7, 1, 2, 3]).unwrap().message_type, "reply");
        assert_eq!(Dhcp::decode([67, 68], &[7, 1, 2, 3]), None);
    }

    #[test]
    fn numbers_are_written_with_all_their_digits() {
        assert_eq!(Xid::V4(0x2e).to_string(), "0x0000002e");
        assert_eq!(Xid::V6(0x2e).to_string(), "0x00002e");
        assert_eq!(ServerId::Duid(Id(vec![0, 3, 0xab])).to_string(), "00:03:ab");
    }

    fn show(dhcp: Option<Dhcp>) -> Result<(), TestCaseError> {
        for text in dhcp.into_iter().flat_map(|dhcp| [dhcp.boot_file, dhcp.vendor_class]).flatten()
        {
            prop_assert!(!text.is_empty());
            prop_assert!(!text.contains(char::is_control), "{:?}", text);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_none(bytes in prop::collection::vec(any::<u8>(), 0..1500)) {
            show(Dhcp::decode([67, 68], &bytes))?;
            show(Dhcp::decode([547, 546], &bytes))?;
        }

        #[test]
        fn any_options_are_a_message(
            head: [u8; 16],
            names in prop::collection::vec(any::<u8>(), 192),
            options in prop::collection::vec(any::<u8>(), 0..400),
        ) {
            let mut message = fixture::offer();
            message[1..17].copy_from_slice(&head);
            message[44..236].copy_from_slice(&names);
            message.truncate(240);
            message.extend_from_slice(&[52, 1, 3, 53, 1, 2]);
            message.extend_from_slice(&options);
            let dhcp = Dhcp::decode([67, 68], &message);
            // Whatever comes behind it, and wherever that is cut.
            prop_assert_eq!(dhcp.as_ref().map(|dhcp| dhcp.message_type), Some("offer"));
            show(dhcp)?;
        }

        #[test]
        fn any_dhcpv6_options_are_a_message(
            options in prop::collection::vec(
                (0u16..70, prop::collection::vec(any::<u8>(), 0..60)), 0..20,
            ),
            cut: prop::sample::Index,
        ) {
            let mut message = vec![2, 1, 2, 3];
            for (code, data) in options {
                message.extend_from_slice(&code.to_be_bytes());
                message.extend_from_slice(&(data.len() as u16).to_be_bytes());
                message.extend_from_slice(&data);
            }
            message.truncate(4 + cut.index(message.len() - 3));
            let dhcp = Dhcp::decode([547, 546], &message);
            prop_assert!(dhcp.is_some());
            show(dhcp)?;
        }
    }
}
