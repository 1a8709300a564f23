//! One line for people, as tcpdump users expect it.

use std::{fmt, io::Write};

use anstyle::{AnsiColor, Style};
use fixer_common::verdict::Verdict;
use jiff::Timestamp;

use super::{Finding, Missing, Sink, SinkError, exchange};
use crate::{
    event::{Dhcp, Event, HOST, Lost, Packet, Xid},
    exchange::Ending,
};

/// Writes each event as a line of text. The time is UTC.
#[derive(Debug)]
pub struct Text<W> {
    writer: W,
    colour: bool,
}

impl<W: Write> Text<W> {
    /// Writes to this writer, the verdict in colour if asked to.
    pub fn new(writer: W, colour: bool) -> Self {
        Self { writer, colour }
    }

    fn line(&mut self, line: impl fmt::Display) -> Result<(), SinkError> {
        Ok(self.writer.write_all(format!("{line}\n").as_bytes())?)
    }
}

impl<W: Write> Sink for Text<W> {
    fn event(&mut self, event: &Event) -> Result<(), SinkError> {
        let style = if self.colour { colour(event.verdict).on_default() } else { Style::new() };
        self.line(Line { event, style })
    }

    fn exchange(&mut self, ending: &Ending) -> Result<(), SinkError> {
        let Ending { time, netns, interface, exchange, .. } = ending;
        let line = exchange::Line { exchange, colour: self.colour };
        match &**netns {
            HOST => self.line(format_args!("{} {interface} {line}", TimeOfDay(*time))),
            netns => self.line(format_args!("{} {netns}/{interface} {line}", TimeOfDay(*time))),
        }
    }

    fn lost(&mut self, lost: &Lost) -> Result<(), SinkError> {
        let (missing, Lost { time, netns, .. }) = (Missing::from(lost), lost);
        match &**netns {
            HOST => self.line(format_args!("{} {missing}", TimeOfDay(*time))),
            netns => self.line(format_args!("{} {netns}: {missing}", TimeOfDay(*time))),
        }
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        Ok(self.writer.flush()?)
    }
}

/// Green is good, yellow could not be judged, red is a packet that a strict reader will not accept.
pub(crate) const fn colour(verdict: Verdict) -> AnsiColor {
    match verdict {
        Verdict::Fixed | Verdict::Valid => AnsiColor::Green,
        Verdict::Unchecked | Verdict::Fragment | Verdict::Gso | Verdict::Oversize => {
            AnsiColor::Yellow
        }
        Verdict::Partial
        | Verdict::Corrupt
        | Verdict::Malformed
        | Verdict::Failed
        | Verdict::Dropped => AnsiColor::Red,
    }
}

/// A moment as its time of day: UTC, microseconds.
struct TimeOfDay(Timestamp);

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.strftime("%H:%M:%S.%6f").fmt(f)
    }
}

struct Line<'a> {
    event: &'a Event,
    style: Style,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { event, style } = *self;
        write!(f, "{} ", TimeOfDay(event.time))?;
        if &*event.netns != HOST {
            write!(f, "{}/", event.netns)?;
        }
        write!(f, "{} {} ", event.interface, event.hook.name())?;
        addresses(f, &event.packet, event.capture.frame_len)?;
        write!(f, ": {}", Finding { event, style })?;
        match &event.dhcp {
            Some(message) => dhcp(f, message),
            None => Ok(()),
        }
    }
}

/// Who speaks to whom, by the best names there are.
fn addresses(f: &mut fmt::Formatter<'_>, packet: &Packet, frame_len: u32) -> fmt::Result {
    if let Some(vlan) = packet.vlan {
        write!(f, "vlan {vlan} ")?;
    }
    match (packet.src, packet.dst, packet.src_mac, packet.dst_mac) {
        (Some(src), Some(dst), ..) => {
            f.write_str(if src.is_ipv4() { "IP " } else { "IP6 " })?;
            write!(f, "{src}{} > {dst}{}", Port(packet.sport), Port(packet.dport))
        }
        (_, _, Some(src), Some(dst)) => write!(f, "{src} > {dst}"),
        _ => write!(f, "frame of {frame_len} bytes"),
    }
}

struct Port(Option<u16>);

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |port| write!(f, ".{port}"))
    }
}

/// The DHCP message. Strings are quoted, so that none can pretend to be more than one field.
fn dhcp(f: &mut fmt::Formatter<'_>, message: &Dhcp) -> fmt::Result {
    let protocol = match message.xid {
        Xid::V4(_) => "DHCP",
        Xid::V6(_) => "DHCPv6",
    };
    write!(f, ", {protocol} {} xid {}", message.message_type, message.xid)?;
    match (&message.client_mac, &message.client_id) {
        (Some(client), _) => write!(f, " client {client}")?,
        (None, Some(client)) => write!(f, " client-id {client}")?,
        (None, None) => {}
    }
    if let Some(address) = message.your_ip {
        write!(f, " your-ip {address}")?;
    }
    if let Some(server) = &message.server_id {
        write!(f, " server {server}")?;
    }
    if let Some(server) = message.next_server {
        write!(f, " next-server {server}")?;
    }
    if let Some(file) = &message.boot_file {
        write!(f, " boot-file {file:?}")?;
    }
    if let Some(class) = &message.vendor_class {
        write!(f, " vendor-class {class:?}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use dhcproto::v4::DhcpOption;

    use super::*;
    use crate::event::{Origin, Sample, fixture};

    fn written(colour: bool, write: impl FnOnce(&mut Text<&mut Vec<u8>>)) -> String {
        let mut bytes = Vec::new();
        write(&mut Text::new(&mut bytes, colour));
        String::from_utf8(bytes).unwrap()
    }

    fn line(event: &Event) -> String {
        written(false, |text| text.event(event).unwrap())
    }

    const OFFER: &str = ", DHCP offer xid 0x6ce6e42e client 0e:eb:4f:74:8d:15 \
                         your-ip 10.0.3.129 server 10.0.3.1\n";

    const ADDRESSES: &str = "10:15:53.015772 virbr0 egress IP 10.0.3.1.67 > 10.0.3.129.68: ";

    #[test]
    fn it_reads_as_tcpdump_does() {
        let expect = |verdict, words: &str| {
            let line = line(&fixture::event(verdict, |_| ()));
            assert_eq!(line, [ADDRESSES, words, OFFER].concat());
        };
        expect(Verdict::Fixed, "bad udp cksum 0x1bc7 -> 0x072b! fixed");
        expect(Verdict::Partial, "bad udp cksum 0x1bc7 -> 0x072b! partial");
        expect(Verdict::Corrupt, "bad udp cksum 0x1bc7 -> 0x072b! corrupt");
        expect(Verdict::Valid, "udp cksum ok valid");
        expect(Verdict::Unchecked, "no cksum unchecked");
        expect(
            Verdict::Failed,
            "bad udp cksum 0x1bc7 -> 0x072b! failed: a kernel helper refused; the packet is intact",
        );
    }

    #[test]
    fn what_is_unknown_is_left_out() {
        let event = fixture::event(Verdict::Gso, |header| {
            (header.checksum_at, header.captured, header.vlan_protocol) = (0, 20, 0x8100);
            header.vlan_tci = 0x6005;
        });
        let words = "gso: a segmentation-offload packet cannot be summed here; unchanged\n";
        let macs = "vlan 5 52:54:00:0a:03:01 > 0e:eb:4f:74:8d:15: ";
        assert_eq!(line(&event), ["10:15:53.015772 virbr0 egress ", macs, words].concat());

        let event = fixture::event(Verdict::Dropped, |header| header.captured = 0);
        let line = line(&event);
        assert!(line.contains(" egress frame of 342 bytes: bad udp cksum"), "{line}");
    }

    #[test]
    fn another_network_namespace_is_named() {
        let mut event = fixture::event(Verdict::Valid, |_| ());
        event.netns = "pod".into();
        assert!(line(&event).starts_with("10:15:53.015772 pod/virbr0 egress IP "));
    }

    #[test]
    fn a_client_without_a_mac_is_told_by_its_id() {
        let duid = [0, 2, 0, 0, 0xab, 0x11, 7];
        let mut event = fixture::event(Verdict::Valid, |_| ());
        let solicit = [&[1, 1, 2, 3, 0, 1, 0, duid.len() as u8], &duid[..]].concat();
        event.dhcp = Dhcp::decode([546, 547], &solicit);
        let end = ", DHCPv6 solicit xid 0x010203 client-id 00:02:00:00:ab:11:07\n";
        assert!(line(&event).ends_with(end), "{}", line(&event));
    }

    #[test]
    fn what_to_boot_is_quoted() {
        let payload = fixture::offer_with(|message| {
            message.set_fname(b"a\" server 1.2.3.4").set_siaddr([10, 0, 3, 2]);
            message.opts_mut().insert(DhcpOption::ClassIdentifier(b"PXEClient".to_vec()));
        });
        let line = line(&fixture::event_of(Verdict::Valid, &fixture::frame(&payload), |_| ()));
        let end = r#" server 10.0.3.1 next-server 10.0.3.2 boot-file "a\" server 1.2.3.4" vendor-class "PXEClient""#;
        assert!(line.trim_end().ends_with(end), "{line}");
    }

    #[test]
    fn nothing_in_a_packet_or_a_name_reaches_the_terminal() {
        let evil: String =
            (0..0xa0).filter_map(char::from_u32).filter(|c| c.is_control()).collect();
        let payload = fixture::offer_with(|message| {
            message.set_fname(b"\x1b[2Jboot\x07\r\n");
            message.opts_mut().insert(DhcpOption::ClassIdentifier(evil.clone().into_bytes()));
        });
        let frame = fixture::frame(&payload);
        let sample = fixture::sample(fixture::header(Verdict::Fixed, &frame), &frame);
        let origin = Origin::new("pod", &evil);
        let event = Event::new(Sample::parse(sample).unwrap(), &origin, &fixture::clock());
        let line = line(&event);
        assert!(line.contains("boot-file") && line.contains("vendor-class"), "{line:?}");
        let line = line.strip_suffix('\n').unwrap();
        assert!(!line.contains(char::is_control), "{line:?}");
    }

    #[test]
    fn only_the_verdict_is_coloured_and_only_when_asked() {
        let event = fixture::event(Verdict::Fixed, |_| ());
        let coloured = written(true, |text| text.event(&event).unwrap());
        assert!(coloured.contains("! \x1b[32mfixed\x1b[0m, DHCP"), "{coloured:?}");
        assert_eq!(coloured.replace("\x1b[32m", "").replace("\x1b[0m", ""), line(&event));
    }

    #[test]
    fn a_loss_is_a_line_of_its_own() {
        let lost = |netns: &str, lost, exchanges| {
            let time = "2026-11-21T10:15:54.000001999Z".parse().unwrap();
            let lost = Lost { time, netns: netns.into(), lost, exchanges };
            written(true, |text| text.lost(&lost).unwrap())
        };
        assert_eq!(lost(HOST, 12, 0), "10:15:54.000001 12 events were lost\n");
        assert_eq!(lost("pod", 1, 0), "10:15:54.000001 pod: 1 event was lost\n");
        let words = "10:15:54.000001 1 event and the end of 1 exchange were lost\n";
        assert_eq!(lost(HOST, 1, 1), words);
        let words = "10:15:54.000001 2 events and the ends of 3 exchanges were lost\n";
        assert_eq!(lost(HOST, 2, 3), words);
    }
}
