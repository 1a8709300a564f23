//! How an exchange ended, as it is told.

use std::{net::Ipv4Addr, sync::Arc};

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::messages::Messages;
use crate::event::{Mac, Xid, nanoseconds};

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A server gave the client an address, or let it keep the one that it has.
    Lease,
    /// A server refused what the client asked for.
    Nak,
    /// The client looked for a server, and none offered an address.
    NoOffer,
    /// There were offers, and the client asked for none of them.
    UnansweredOffer,
    /// The client asked for an address or for settings, and no server answered.
    NoAck,
    /// A server told its settings to a client that has an address.
    Informed,
    /// The client says that somebody else has the address that it was given.
    Declined,
    /// The client gave its address back.
    Released,
}

/// What there is to know about an outcome.
#[derive(Debug)]
pub struct Row {
    /// The outcome.
    pub outcome: Outcome,
    /// Its name in events and metrics.
    pub name: &'static str,
    /// What it means.
    pub help: &'static str,
}

/// The outcomes, in the order of their numbers.
pub const TABLE: [Row; 8] = [
    row(Outcome::Lease, "lease", "the client has an address"),
    row(Outcome::Nak, "nak", "a server refused what the client asked for"),
    row(Outcome::NoOffer, "no_offer", "no server offered an address"),
    row(Outcome::UnansweredOffer, "unanswered_offer", "the client did not take what was offered"),
    row(Outcome::NoAck, "no_ack", "no server answered the request"),
    row(Outcome::Informed, "informed", "the client was told the settings"),
    row(Outcome::Declined, "declined", "the client says that somebody else has the address"),
    row(Outcome::Released, "released", "the client gave its address back"),
];

const fn row(outcome: Outcome, name: &'static str, help: &'static str) -> Row {
    Row { outcome, name, help }
}

impl Outcome {
    /// Its row of the table.
    pub fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// Whether all went as the client wished.
    pub fn is_good(self) -> bool {
        matches!(self, Self::Lease | Self::Informed | Self::Released)
    }
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.row().name)
    }
}

/// An exchange that is over. Serialised it is an object of its own kind in the stream.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ending {
    /// When it ended. RFC 3339, UTC, nanoseconds.
    #[serde(serialize_with = "nanoseconds")]
    pub time: Timestamp,
    /// The network namespace's label.
    pub netns: Arc<str>,
    /// The interface where it was seen first, safe to show.
    pub interface: Arc<str>,
    /// That interface's index.
    pub ifindex: u32,
    /// What happened.
    pub exchange: Exchange,
}

/// What happened between a client and its servers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Exchange {
    /// How it ended.
    pub outcome: Outcome,
    /// The transaction, the last one if the client used several.
    pub xid: Xid,
    /// The client's Ethernet address.
    pub client_mac: Option<Mac>,
    /// Whether the client is one that boots over the network (its vendor class is `PXEClient`).
    pub pxe: bool,
    /// The type of the client's first message: one that began with `discover` had no address.
    pub began_with: &'static str,
    /// From the client's first message to the end.
    pub seconds: f64,
    /// How often the client had to repeat a message.
    pub retries: u32,
    /// The servers that offered an address, in their order.
    pub servers: Vec<Ipv4Addr>,
    /// The servers that offered a boot file and no address (PXE's proxyDHCP), in their order.
    pub boot_servers: Vec<Ipv4Addr>,
    /// The server that had the last word, or that the client asked and that kept silent.
    pub server: Option<Ipv4Addr>,
    /// The address that the client got.
    pub your_ip: Option<Ipv4Addr>,
    /// What was said, for those who show it as letters; the stream has the messages themselves.
    #[serde(skip)]
    pub messages: Messages,
    /// The address that was offered first, taken or not.
    #[serde(skip)]
    pub offered: Option<Ipv4Addr>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_its_row() {
        for (number, row) in TABLE.iter().enumerate() {
            assert_eq!((row.outcome as usize, row.outcome.row().name), (number, row.name));
        }
    }
}
