//! DHCPv6 (RFC 8415): a type, a transaction and options.
//!
//! The options are walked here and not decoded all at once: a message may be cut short, options nest
//! as deep as their sender likes, and dhcproto 0.15 panics at vendor options that are too short.

use std::net::Ipv6Addr;

use dhcproto::{
    Decoder,
    v6::{MessageType, OptionCode},
};

use super::{Dhcp, Id, Mac, ServerId, Xid, string};

/// In a relay's message: hop count, link address and peer address, in bytes.
const RELAY_HEADER: usize = 1 + 16 + 16;
/// In an option IA_NA: the association's id and two times, in bytes.
const IA_NA_HEADER: usize = 12;
/// In an option IA_TA: the association's id, in bytes.
const IA_TA_HEADER: usize = 4;
/// In an option for the vendor class: the enterprise number, in bytes.
const ENTERPRISE_NUMBER: usize = 4;
/// The longest DUID: a type and an identifier, in bytes (RFC 8415, section 11.1).
const LONGEST_DUID: usize = 2 + 128;

/// Decodes a message, or the start of one. Of what relays have wrapped, the message inside.
pub(super) fn decode(mut payload: &[u8]) -> Option<Dhcp> {
    loop {
        let (&number, rest) = payload.split_first()?;
        match MessageType::from(number) {
            MessageType::RelayForw | MessageType::RelayRepl => {
                payload = find(rest.get(RELAY_HEADER..)?, OptionCode::RelayMsg)?;
            }
            message_type => return message(name(message_type)?, rest),
        }
    }
}

fn message(message_type: &'static str, rest: &[u8]) -> Option<Dhcp> {
    let (xid, options) = rest.split_first_chunk::<3>()?;
    let duid = |code| find(options, code).filter(|duid| duid.len() <= LONGEST_DUID);
    Some(Dhcp {
        message_type,
        xid: Xid::V6(u32::from_be_bytes([0, xid[0], xid[1], xid[2]])),
        client_mac: duid(OptionCode::ClientId).and_then(mac),
        your_ip: address(options).map(Into::into),
        server_id: duid(OptionCode::ServerId).and_then(Id::new).map(ServerId::Duid),
        boot_file: find(options, OptionCode::OptBootfileUrl).and_then(string),
        next_server: None,
        vendor_class: find(options, OptionCode::VendorClass).and_then(vendor_class),
        client_id: duid(OptionCode::ClientId).and_then(Id::new),
    })
}

/// Each option's code and data, as far as they are whole.
fn walk(options: &[u8]) -> impl Iterator<Item = (OptionCode, &[u8])> {
    let mut decoder = Decoder::new(options);
    std::iter::from_fn(move || {
        let code = decoder.read_u16().ok()?;
        let len = decoder.read_u16().ok()?;
        Some((code.into(), decoder.read_slice(len.into()).ok()?))
    })
}

fn find(options: &[u8], code: OptionCode) -> Option<&[u8]> {
    walk(options).find(|(found, _)| *found == code).map(|(_, data)| data)
}

/// The first address in an association, temporary or not.
fn address(options: &[u8]) -> Option<Ipv6Addr> {
    walk(options).find_map(|(code, data)| {
        let inner = match code {
            OptionCode::IANA => data.get(IA_NA_HEADER..)?,
            OptionCode::IATA => data.get(IA_TA_HEADER..)?,
            _ => return None,
        };
        let address = find(inner, OptionCode::IAAddr)?;
        address.first_chunk::<16>().map(|&address| address.into())
    })
}

/// The Ethernet address in a DUID (RFC 8415, sections 11.2 and 11.4), if it is made of one.
fn mac(duid: &[u8]) -> Option<Mac> {
    let mac = match duid {
        // Link-layer address plus time: type 1, hardware type 1, four bytes of time.
        [0, 1, 0, 1, _, _, _, _, mac @ ..] => mac,
        // Link-layer address: type 3, hardware type 1.
        [0, 3, 0, 1, mac @ ..] => mac,
        _ => return None,
    };
    mac.try_into().ok().map(Mac)
}

/// The first string of a vendor class (RFC 8415, section 21.16).
fn vendor_class(data: &[u8]) -> Option<String> {
    let mut strings = Decoder::new(data.get(ENTERPRISE_NUMBER..)?);
    let len = strings.read_u16().ok()?;
    string(strings.read_slice(len.into()).ok()?)
}

/// The name of a message type, as IANA writes it in lower case. Nothing else marks a message as one
/// of DHCPv6, so what has no name is none; and a query of DHCPv4 over DHCPv6 has no transaction.
fn name(message_type: MessageType) -> Option<&'static str> {
    Some(match message_type {
        MessageType::Solicit => "solicit",
        MessageType::Advertise => "advertise",
        MessageType::Request => "request",
        MessageType::Confirm => "confirm",
        MessageType::Renew => "renew",
        MessageType::Rebind => "rebind",
        MessageType::Reply => "reply",
        MessageType::Release => "release",
        MessageType::Decline => "decline",
        MessageType::Reconfigure => "reconfigure",
        MessageType::InformationRequest => "information-request",
        MessageType::LeaseQuery => "leasequery",
        MessageType::LeaseQueryReply => "leasequery-reply",
        MessageType::LeaseQueryDone => "leasequery-done",
        MessageType::LeaseQueryData => "leasequery-data",
        MessageType::ReconfigureRequest => "reconfigure-request",
        MessageType::ReconfigureReply => "reconfigure-reply",
        MessageType::RelayForw
        | MessageType::RelayRepl
        | MessageType::DHCPv4Query
        | MessageType::DHCPv4Response
        | MessageType::Unknown(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use dhcproto::{
        Encodable,
        v6::{DhcpOption, IAAddr, IANA, Message, UnknownOption},
    };

    use super::*;

    const MAC: [u8; 6] = [0x0e, 0xeb, 0x4f, 0x74, 0x8d, 0x15];
    const SERVER: [u8; 10] = [0, 3, 0, 1, 2, 0, 0, 0, 0, 1];

    fn advertise() -> Vec<u8> {
        let address = "2001:db8::129".parse().unwrap();
        let address = DhcpOption::IAAddr(IAAddr {
            addr: address,
            preferred_life: 60,
            valid_life: 120,
            opts: Default::default(),
        });
        // Spelt out, because dhcproto 0.15 writes a wrong length for a vendor class of its own.
        let class = b"\0\0\x01\x57\0\x0bHTTP\x1bClient\0\x01x".to_vec();
        let url = b"tftp://[2001:db8::1]/boot.efi".to_vec();
        let mut message = Message::new_with_id(MessageType::Advertise, [0xab, 0, 0x2e]);
        for option in [
            DhcpOption::ClientId([&[0, 1, 0, 1, 9, 9, 9, 9], &MAC[..]].concat()),
            DhcpOption::ServerId(SERVER.to_vec()),
            DhcpOption::IANA(IANA { id: 1, t1: 2, t2: 3, opts: [address].into_iter().collect() }),
            DhcpOption::Unknown(UnknownOption::new(OptionCode::OptBootfileUrl, url)),
            DhcpOption::Unknown(UnknownOption::new(OptionCode::VendorClass, class)),
        ] {
            message.opts_mut().insert(option);
        }
        message.to_vec().unwrap()
    }

    fn expected() -> Dhcp {
        Dhcp {
            message_type: "advertise",
            xid: Xid::V6(0xab002e),
            client_mac: Some(Mac(MAC)),
            your_ip: Some("2001:db8::129".parse().unwrap()),
            server_id: Id::new(&SERVER).map(ServerId::Duid),
            boot_file: Some("tftp://[2001:db8::1]/boot.efi".into()),
            next_server: None,
            vendor_class: Some("HTTP\u{fffd}Client".into()),
            client_id: Id::new(&[&[0, 1, 0, 1, 9, 9, 9, 9], &MAC[..]].concat()),
        }
    }

    /// The message in a relay's reply (RFC 8415, section 9.2), behind an option for the interface.
    fn relayed(message: &[u8]) -> Vec<u8> {
        let len = (message.len() as u16).to_be_bytes();
        [&[13, 1][..], &[0xfd; 16], &[0xfe; 16], &[0, 18, 0, 1, 7, 0, 9], &len, message].concat()
    }

    #[test]
    fn an_advertise() {
        assert_eq!(decode(&advertise()), Some(expected()));
    }

    #[test]
    fn a_temporary_address_counts_as_well() {
        let address = [0x20; 16];
        let association =
            [&[2, 1, 2, 3, 0, 4, 0, 32, 1, 1, 1, 1, 0, 5, 0, 24][..], &address, &[0; 8]].concat();
        assert_eq!(decode(&association).unwrap().your_ip, Some(address.into()));
    }

    #[test]
    fn relays_are_unwrapped() {
        assert_eq!(decode(&relayed(&relayed(&advertise()))), Some(expected()));
        assert_eq!(decode(&relayed(&[])), None);
        assert_eq!(decode(&[12; 30]), None);
    }

    #[test]
    fn a_cut_message_tells_what_it_still_holds() {
        let whole = advertise();
        assert_eq!(decode(&whole[..3]), None);
        let bare = decode(&whole[..4]).unwrap();
        assert_eq!(
            (bare.message_type, bare.xid, bare.client_mac),
            ("advertise", Xid::V6(0xab002e), None)
        );
        let cut = decode(&whole[..whole.len() - 1]).unwrap();
        assert_eq!((cut.client_mac, cut.server_id), (expected().client_mac, expected().server_id));
    }

    #[test]
    fn a_mac_is_taken_only_from_a_duid_of_ethernet() {
        assert_eq!(mac(&[&[0, 3, 0, 1], &MAC[..]].concat()), Some(Mac(MAC)));
        assert_eq!(mac(&[&[0, 3, 0, 32], &MAC[..]].concat()), None);
        assert_eq!(mac(&[&[0, 4, 0, 1], &MAC[..]].concat()), None);
        assert_eq!(mac(&[&[0, 3, 0, 1], &MAC[..5]].concat()), None);
    }

    /// A DUID of an enterprise (systemd-networkd's own) and one of a UUID have no address in them.
    #[test]
    fn a_client_without_an_address_has_an_id() {
        for duid in [&[0, 2, 0, 0, 0xab, 0x11, 7, 8][..], &[&[0, 4][..], &[0x5a; 16]].concat()] {
            let option = [&[1, 1, 2, 3, 0, 1, 0, duid.len() as u8], duid].concat();
            let dhcp = decode(&option).unwrap();
            assert_eq!((dhcp.client_mac, dhcp.client_id), (None, Id::new(duid)));
        }
    }

    #[test]
    fn what_is_no_dhcp_is_none() {
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&[0, 1, 2, 3]), None);
        assert_eq!(decode(&[20, 0, 0, 0]), None);
        assert_eq!(decode(&[99, 1, 2, 3]), None);
    }

    #[test]
    fn what_is_not_wanted_is_not_looked_into() {
        let short_vendor_options = [2, 1, 2, 3, 0, 17, 0, 3, 1, 2, 3, 0, 2, 0, 1, 9];
        let server_id = decode(&short_vendor_options).unwrap().server_id;
        assert_eq!(server_id, Id::new(&[9]).map(ServerId::Duid));
    }

    #[test]
    fn an_overlong_duid_is_none() {
        let option =
            |len: u16| [&[2, 1, 2, 3, 0, 2, 0, len as u8][..], &vec![0; len.into()]].concat();
        assert!(decode(&option(130)).unwrap().server_id.is_some());
        assert!(decode(&option(131)).unwrap().server_id.is_none());
    }
}
