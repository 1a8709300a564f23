//! What a client says, where no real one says it when it is wanted.

use std::net::Ipv4Addr;

use anyhow::Result;
use dhcproto::{
    Encodable as _,
    v4::{DhcpOption, Flags, Message, MessageType},
};

/// A message that a client broadcasts, of this type, transaction and client's address (the field
/// `ciaddr`), and with these options. It asks for a broadcast in return.
pub fn frame(
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
