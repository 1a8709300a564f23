//! DHCP and TFTP requests, made by hand.

use etherparse::PacketBuilder;

/// A client that says that it boots over the network (PXE 2.1, section 2.2.1).
pub(super) const PXE: (u8, &[u8]) = (60, b"PXEClient:Arch:00000:UNDI:002001");

/// What a client asks, in a frame.
pub(super) fn request(kind: u8, xid: u32, mac: [u8; 6], options: &[(u8, &[u8])]) -> Vec<u8> {
    let mut message = vec![0; 240];
    (message[0], message[1], message[2]) = (1, 1, 6);
    message[4..8].copy_from_slice(&xid.to_be_bytes());
    // The client has no address yet: the answer is to be a broadcast.
    message[10] = 0x80;
    message[28..34].copy_from_slice(&mac);
    message[236..].copy_from_slice(&[99, 130, 83, 99]);
    for (code, value) in [&[(53, &[kind][..])], options].concat() {
        message.extend_from_slice(&[code, value.len() as u8]);
        message.extend_from_slice(value);
    }
    message.push(255);
    message.resize(message.len().max(300), 0);
    frame(mac, [0; 4], [255; 4], [68, 67], &message)
}

/// What a server answers to everybody, from an address of the bridge's network.
pub(super) fn offer(xid: u32, mac: [u8; 6], client: [u8; 6]) -> Vec<u8> {
    let mut message = vec![0; 240];
    (message[0], message[1], message[2]) = (2, 1, 6);
    message[4..8].copy_from_slice(&xid.to_be_bytes());
    message[28..34].copy_from_slice(&client);
    message[236..].copy_from_slice(&[99, 130, 83, 99]);
    message.extend_from_slice(&[53, 1, 2, 54, 4, 10, 0, 3, 2, 255]);
    message.resize(message.len().max(300), 0);
    frame(mac, [10, 0, 3, 2], [255; 4], [67, 68], &message)
}

/// A request for a file from the server on the bridge.
pub(super) fn read_request(mac: [u8; 6]) -> Vec<u8> {
    let payload = b"\0\x01pxelinux.0\0octet\0";
    frame(mac, [10, 0, 3, 150], [10, 0, 3, 1], [2070, 69], payload)
}

fn frame(
    mac: [u8; 6],
    from: [u8; 4],
    to: [u8; 4],
    [source, target]: [u16; 2],
    payload: &[u8],
) -> Vec<u8> {
    let mut frame = Vec::new();
    let packet = PacketBuilder::ethernet2(mac, [0xff; 6]).ipv4(from, to, 64).udp(source, target);
    // Writing to a vector does not fail.
    let _ = packet.write(&mut frame, payload);
    frame
}
