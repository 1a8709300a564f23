//! DHCPv4 (RFC 2131): a BOOTP message with a magic cookie and options behind it.

use std::{net::Ipv4Addr, ops::Range};

use dhcproto::v4::{
    MAGIC, MessageType, Opcode, OptionCode,
    borrowed::{DhcpOptionIterator, Message},
};

use super::{Dhcp, Id, Mac, ServerId, Xid, string};

/// The field `sname`: the server's name, or more options.
const SNAME: Range<usize> = 44..108;
/// The field `file`: the boot file's name, or more options.
const FILE: Range<usize> = 108..236;
/// The magic cookie (RFC 2131, section 3), without which there are no options.
const COOKIE: Range<usize> = 236..240;

/// Decodes a message, or the start of one that reaches at least to the options.
pub(super) fn decode(payload: &[u8]) -> Option<Dhcp> {
    let message = Message::new(payload).ok()?;
    if payload.get(COOKIE)? != MAGIC {
        return None;
    }
    let bootp = match message.opcode() {
        Opcode::BootRequest => "bootp-request",
        Opcode::BootReply => "bootp-reply",
        Opcode::Unknown(_) => return None,
    };
    let options = Options::of(payload);
    // dhcproto trusts the length of the hardware address, so it is only asked for when that is right.
    let client = (message.hlen() == 6).then(|| message.chaddr());
    Some(Dhcp {
        message_type: options.message_type.first().map_or(bootp, |&number| name(number)),
        xid: Xid::V4(message.xid()),
        client_mac: client.and_then(|mac| mac.try_into().ok()).map(Mac),
        your_ip: specified(message.yiaddr()).map(Into::into),
        server_id: options.server_id.first_chunk::<4>().map(|&id| ServerId::Address(id.into())),
        boot_file: string(&options.boot_file)
            .or_else(|| string(message.fname()).filter(|_| !options.overload.file())),
        next_server: specified(message.siaddr()),
        vendor_class: string(&options.vendor_class),
        client_id: Id::new(&options.client_id),
    })
}

/// The options that an event tells, as bytes.
#[derive(Default)]
struct Options {
    overload: Overload,
    message_type: Vec<u8>,
    server_id: Vec<u8>,
    boot_file: Vec<u8>,
    vendor_class: Vec<u8>,
    client_id: Vec<u8>,
}

impl Options {
    /// Reads the options, then those in `file`, then those in `sname` (RFC 2131, section 4.1).
    fn of(payload: &[u8]) -> Self {
        let mut options = Self::default();
        options.read(payload.get(COOKIE.end..).unwrap_or_default());
        let overload = options.overload;
        let fields = [(overload.file(), FILE), (overload.sname(), SNAME)];
        for (_, field) in fields.into_iter().filter(|(overloaded, _)| *overloaded) {
            options.read(payload.get(field).unwrap_or_default());
        }
        // What the fields themselves say about overloading means nothing.
        Self { overload, ..options }
    }

    /// An option that comes more than once is one long option (RFC 3396, section 7).
    fn read(&mut self, options: &[u8]) {
        for option in DhcpOptionIterator::new(whole(options)) {
            let place = match option.code() {
                OptionCode::MessageType => &mut self.message_type,
                OptionCode::ServerIdentifier => &mut self.server_id,
                OptionCode::BootfileName => &mut self.boot_file,
                OptionCode::ClassIdentifier => &mut self.vendor_class,
                OptionCode::ClientIdentifier => &mut self.client_id,
                OptionCode::OptionOverload => {
                    self.overload = Overload(option.data().first().copied().unwrap_or_default());
                    continue;
                }
                _ => continue,
            };
            place.extend_from_slice(option.data());
        }
    }
}

/// Option 52 (RFC 2132, section 9.3): which fields hold options instead.
#[derive(Clone, Copy, Default)]
struct Overload(u8);

impl Overload {
    fn file(self) -> bool {
        matches!(self.0, 1 | 3)
    }

    fn sname(self) -> bool {
        matches!(self.0, 2 | 3)
    }
}

/// Options up to the first that is cut short. dhcproto joins an option that comes again at once with the one
/// before, and drops both if the second is cut.
fn whole(options: &[u8]) -> &[u8] {
    const PAD: u8 = 0;
    const END: u8 = 255;
    let mut at = 0;
    let is_whole = loop {
        match options.get(at..) {
            Some([PAD, ..]) => at += 1,
            None | Some([] | [END, ..]) => break true,
            Some([_, len, data @ ..]) if data.len() >= usize::from(*len) => {
                at += 2 + usize::from(*len);
            }
            Some(_) => break false,
        }
    };
    if is_whole { options } else { &options[..at] }
}

fn specified(address: Ipv4Addr) -> Option<Ipv4Addr> {
    Some(address).filter(|address| !address.is_unspecified())
}

/// The name of a message type, as IANA writes it without `DHCP` and in lower case.
fn name(number: u8) -> &'static str {
    match MessageType::from(number) {
        MessageType::Discover => "discover",
        MessageType::Offer => "offer",
        MessageType::Request => "request",
        MessageType::Decline => "decline",
        MessageType::Ack => "ack",
        MessageType::Nak => "nak",
        MessageType::Release => "release",
        MessageType::Inform => "inform",
        MessageType::ForceRenew => "forcerenew",
        MessageType::LeaseQuery => "leasequery",
        MessageType::LeaseUnassigned => "leaseunassigned",
        MessageType::LeaseUnknown => "leaseunknown",
        MessageType::LeaseActive => "leaseactive",
        MessageType::BulkLeaseQuery => "bulkleasequery",
        MessageType::LeaseQueryDone => "leasequerydone",
        MessageType::ActiveLeaseQuery => "activeleasequery",
        MessageType::LeaseQueryStatus => "leasequerystatus",
        MessageType::Tls => "tls",
        MessageType::Unknown(_) => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use dhcproto::v4::DhcpOption;

    use super::*;
    use crate::event::fixture::{self, CLIENT, offer_with};

    fn decoded(payload: &[u8]) -> Dhcp {
        decode(payload).unwrap()
    }

    #[test]
    fn an_offer() {
        assert_eq!(
            decoded(&fixture::offer()),
            Dhcp {
                message_type: "offer",
                xid: Xid::V4(0x6ce6e42e),
                client_mac: Some(CLIENT),
                your_ip: Some([10, 0, 3, 129].into()),
                server_id: Some(ServerId::Address([10, 0, 3, 1].into())),
                boot_file: None,
                next_server: None,
                vendor_class: None,
                client_id: None,
            }
        );
    }

    #[test]
    fn a_boot_file_comes_from_the_option_or_the_field() {
        let both = offer_with(|message| {
            message.set_fname(b"field.0").set_siaddr([10, 0, 3, 2]);
            message.opts_mut().insert(DhcpOption::BootfileName(b"option.0\0".to_vec()));
        });
        assert_eq!(decoded(&both).boot_file.as_deref(), Some("option.0"));
        assert_eq!(decoded(&both).next_server, Some([10, 0, 3, 2].into()));
        let field = offer_with(|message| {
            message.set_fname(b"field.0");
            message.opts_mut().insert(DhcpOption::BootfileName(b"\0".to_vec()));
        });
        assert_eq!(decoded(&field).boot_file.as_deref(), Some("field.0"));
    }

    #[test]
    fn a_field_that_is_full_has_no_nul() {
        let full = offer_with(|message| {
            message.set_fname(&[b'x'; 128]);
        });
        assert_eq!(decoded(&full).boot_file, Some("x".repeat(128)));
    }

    /// A message that keeps its type in `file` and its vendor class in `sname`.
    fn overloaded(overload: u8) -> Vec<u8> {
        offer_with(|message| {
            message.opts_mut().clear();
            message.opts_mut().insert(DhcpOption::OptionOverload(overload));
            message.set_fname(&[53, 1, 5, 0, 60, 3, b'P', b'X', b'E', 52, 1, 0, 255]);
            message.set_sname(&[60, 2, b'C', 0, 67, 1, b'k', 255, 67, 1, b'!']);
        })
    }

    #[test]
    fn overloaded_fields_hold_options() {
        let both = decoded(&overloaded(3));
        assert_eq!(both.message_type, "ack");
        assert_eq!(both.vendor_class.as_deref(), Some("PXEC"));
        assert_eq!(both.boot_file.as_deref(), Some("k"));

        let file = decoded(&overloaded(1));
        assert_eq!((file.message_type, file.vendor_class.as_deref()), ("ack", Some("PXE")));
        assert_eq!(file.boot_file, None, "a field of options is no name");

        let sname = decoded(&overloaded(2));
        assert_eq!((sname.message_type, sname.boot_file.as_deref()), ("bootp-reply", Some("k")));

        let none = decoded(&overloaded(0));
        assert_eq!((none.message_type, none.vendor_class), ("bootp-reply", None));
    }

    #[test]
    fn an_option_in_pieces_is_one() {
        let mut message = fixture::offer();
        message.truncate(240);
        message.extend_from_slice(b"\x3c\x02PX\x3c\x01E\x35\x01\x02\x3c\x03Cli\xff");
        assert_eq!(decoded(&message).vendor_class.as_deref(), Some("PXECli"));
        assert_eq!(decoded(&message).message_type, "offer");
    }

    #[test]
    fn what_comes_before_a_cut_is_told() {
        let cut = |options: &[u8]| {
            let mut message = fixture::offer();
            message.truncate(240);
            message.extend_from_slice(options);
            decoded(&message)
        };
        for end in [&b""[..], b"\x35", b"\x35\x01", b"\x3c", b"\x3c\x03Cl", b"\x3d\xc8\x01"] {
            let dhcp = cut(&[b"\x3c\x03PXE\0\x35\x01\x01", end].concat());
            assert_eq!(dhcp.message_type, "discover", "{end:?}");
            assert_eq!(dhcp.vendor_class.as_deref(), Some("PXE"), "{end:?}");
        }
        assert_eq!(cut(b"\x3c\x03PXE\x3c\xc8Cl").vendor_class.as_deref(), Some("PXE"));
        // What comes behind the end is none of them.
        assert_eq!(cut(b"\x35\x01\x01\xff\x35\x01").message_type, "discover");
        // A field that holds options may be cut as well.
        let field = offer_with(|message| {
            message.opts_mut().clear();
            message.opts_mut().insert(DhcpOption::OptionOverload(1));
            message.set_fname(&[&[53, 1, 5][..], &[0; 123], &[53, 1]].concat());
        });
        assert_eq!(decoded(&field).message_type, "ack");
    }

    #[test]
    fn a_client_may_have_an_id() {
        let with = |id: &[u8]| {
            let id = DhcpOption::ClientIdentifier(id.to_vec());
            let dhcp = decoded(&offer_with(|message| drop(message.opts_mut().insert(id))));
            dhcp.client_id.map(|id| id.to_string())
        };
        assert_eq!(with(&[255, 0, 2, 0xab]).as_deref(), Some("ff:00:02:ab"));
        assert_eq!(with(&[]), None);
    }

    #[test]
    fn a_cut_message_tells_what_it_still_holds() {
        let whole = fixture::offer();
        assert_eq!(decode(&whole[..239]), None);
        let bare = decoded(&whole[..240]);
        assert_eq!((bare.message_type, bare.xid), ("bootp-reply", Xid::V4(0x6ce6e42e)));
        let cut = decoded(&whole[..243]);
        assert_eq!((cut.message_type, cut.server_id), ("offer", None));
    }

    #[test]
    fn what_is_no_dhcp_is_none() {
        let mut cookie = fixture::offer();
        cookie[COOKIE.start] ^= 1;
        assert_eq!(decode(&cookie), None);
        let mut opcode = fixture::offer();
        opcode[0] = 3;
        assert_eq!(decode(&opcode), None);
    }

    #[test]
    fn only_an_ethernet_address_is_a_mac() {
        for hlen in [0, 5, 7, 16, 17, 255] {
            let mut message = fixture::offer();
            message[2] = hlen;
            assert_eq!(decoded(&message).client_mac, None, "hlen {hlen}");
        }
    }

    #[test]
    fn a_stranger_cannot_speak_to_the_terminal() {
        let dhcp = decoded(&offer_with(|message| {
            message.set_fname(b"\x1b]0;owned\x07");
            message.opts_mut().insert(DhcpOption::ClassIdentifier(b"a\x1b[31mb\r\n".to_vec()));
        }));
        assert_eq!(dhcp.boot_file.as_deref(), Some("\u{fffd}]0;owned\u{fffd}"));
        assert_eq!(dhcp.vendor_class.as_deref(), Some("a\u{fffd}[31mb\u{fffd}\u{fffd}"));
    }

    #[test]
    fn every_type_has_a_name() {
        let names: std::collections::HashSet<_> = (1..=18).map(name).collect();
        assert_eq!(names.len(), 18);
        assert!(!names.contains("unknown"));
        assert_eq!((name(0), name(19)), ("unknown", "unknown"));
    }
}
