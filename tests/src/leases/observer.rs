//! A strict observer beside a client: it verifies every reply and believes no mark.
//!
//! It hears what an `AF_PACKET` socket on the client's interface hears, and computes the sums with
//! etherparse, whose arithmetic is not ours.

use std::time::Duration;

use anyhow::{Context as _, Result};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use fixer_user::lab::packet::PacketSocket;

/// From which port to which a server's reply goes, in either protocol.
const REPLIES: [(u16, u16); 2] = [(67, 68), (547, 546)];

/// What there was to see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Replies of a server.
    pub replies: usize,
    /// Those whose checksum does not verify.
    pub bad: usize,
    /// Those that the kernel calls partial.
    pub partial: usize,
}

/// Looks at everything that has come in since the socket was opened.
pub fn look(socket: &PacketSocket) -> Result<Seen> {
    let mut seen = Seen::default();
    while let Some(received) = socket.receive(Duration::ZERO, |_| true)? {
        if let Some(verifies) = reply(&received.bytes)? {
            seen.replies += 1;
            seen.bad += usize::from(!verifies);
            seen.partial += usize::from(received.partial);
        }
    }
    Ok(seen)
}

/// Whether a frame's checksum verifies, if the frame is a reply.
fn reply(frame: &[u8]) -> Result<Option<bool>> {
    // Not everything that comes in can be sliced, and nothing else is a reply.
    let Ok(packet) = SlicedPacket::from_ethernet(frame) else { return Ok(None) };
    let Some(TransportSlice::Udp(udp)) = packet.transport else { return Ok(None) };
    if !REPLIES.contains(&(udp.source_port(), udp.destination_port())) {
        return Ok(None);
    }
    let (header, payload) = (udp.to_header(), udp.payload());
    let expected = match &packet.net {
        Some(NetSlice::Ipv4(ip)) => {
            header.calc_checksum_ipv4(&ip.header().to_header(), payload).ok()
        }
        Some(NetSlice::Ipv6(ip)) => {
            header.calc_checksum_ipv6(&ip.header().to_header(), payload).ok()
        }
        _ => None,
    };
    let expected = expected.context("etherparse does not sum a reply")?;
    Ok(Some(header.checksum == expected))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::Packet;

    #[test]
    fn a_partial_sum_does_not_verify_and_a_right_one_does() -> Result<()> {
        for packet in [Packet::reply(300), Packet::reply6(97)] {
            assert_eq!(reply(&packet.right())?, Some(true));
            assert_eq!(reply(&packet.partial())?, Some(false));
        }
        Ok(())
    }

    #[test]
    fn only_replies_count() -> Result<()> {
        let question = Packet { source: 68, destination: 67, ..Packet::reply(300) };
        assert_eq!(reply(&question.partial())?, None);
        assert_eq!(reply(&[0; 60])?, None);
        assert_eq!(reply(&[])?, None);
        Ok(())
    }
}
