//! What DHCP clients say, one message at a time, where no real one says it when it is wanted.

use std::net::Ipv4Addr;

use anyhow::Result;
use dhcproto::{
    Encodable as _,
    v4::{DhcpOption, Flags, Message, MessageType},
};

/// The transaction of those that have no number of their own.
pub const XID: u32 = 0x6ce6_e42e;

/// The frame that a client without an address broadcasts, with a message of this type and with these
/// options.
pub fn frame(mac: [u8; 6], message_type: MessageType, options: &[DhcpOption]) -> Result<Vec<u8>> {
    frame_of(mac, message_type, XID, Ipv4Addr::UNSPECIFIED, options)
}

/// The same of this transaction and client's address (the field `ciaddr`). It asks for a broadcast in
/// return.
pub fn frame_of(
    mac: [u8; 6],
    message_type: MessageType,
    xid: u32,
    address: Ipv4Addr,
    options: &[DhcpOption],
) -> Result<Vec<u8>> {
    let none = Ipv4Addr::UNSPECIFIED;
    let mut message = Message::new_with_id(xid, address, none, none, none, &mac);
    message.set_flags(Flags::default().set_broadcast());
    message.opts_mut().insert(DhcpOption::MessageType(message_type));
    options.iter().cloned().for_each(|option| drop(message.opts_mut().insert(option)));
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2(mac, [0xff; 6])
        .ipv4(none.octets(), [255; 4], 64)
        .udp(68, 67)
        .write(&mut frame, &message.to_vec()?)?;
    Ok(frame)
}
