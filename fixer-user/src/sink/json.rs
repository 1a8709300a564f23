//! One JSON object a line.

use std::io::Write;

use serde::Serialize;

use super::{Sink, SinkError};
use crate::{
    event::{Event, Lost},
    exchange::Ending,
};

/// Writes each event as a line of JSON: the serialised [`Event`], for exchanges [`Ending`], and for
/// lost events [`Lost`].
#[derive(Debug)]
pub struct Json<W> {
    writer: W,
}

impl<W: Write> Json<W> {
    /// Writes to this writer.
    pub fn new(writer: W) -> Self {
        Self { writer }
    }

    fn line(&mut self, value: &impl Serialize) -> Result<(), SinkError> {
        let mut line = serde_json::to_vec(value).map_err(std::io::Error::from)?;
        line.push(b'\n');
        Ok(self.writer.write_all(&line)?)
    }
}

impl<W: Write> Sink for Json<W> {
    fn event(&mut self, event: &Event) -> Result<(), SinkError> {
        self.line(event)
    }

    fn exchange(&mut self, ending: &Ending) -> Result<(), SinkError> {
        self.line(ending)
    }

    fn lost(&mut self, lost: &Lost) -> Result<(), SinkError> {
        self.line(lost)
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        Ok(self.writer.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use fixer_common::verdict::Verdict;

    use super::*;
    use crate::event::{HOST, fixture};

    fn line(event: &Event) -> String {
        let mut bytes = Vec::new();
        Json::new(&mut bytes).event(event).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// The example of the interface's description, key by key in its order.
    #[test]
    fn the_shape_is_a_contract() {
        let expected = concat!(
            r#"{"time":"2026-11-21T10:15:53.015772001Z","netns":"host","interface":"virbr0","#,
            r#""ifindex":4,"hook":"egress","verdict":"fixed","src_mac":"52:54:00:0a:03:01","#,
            r#""dst_mac":"0e:eb:4f:74:8d:15","vlan":null,"src":"10.0.3.1","sport":67,"#,
            r#""dst":"10.0.3.129","dport":68,"udp_len":308,"checksum":"0x1bc7","#,
            r#""expected":"0x072b","dhcp":{"message_type":"offer","xid":"0x6ce6e42e","#,
            r#""client_mac":"0e:eb:4f:74:8d:15","your_ip":"10.0.3.129","server_id":"10.0.3.1","#,
            r#""boot_file":null,"next_server":null,"vendor_class":null,"client_id":null}}"#,
            "\n",
        );
        assert_eq!(line(&fixture::event(Verdict::Fixed, |_| ())), expected);
    }

    #[test]
    fn what_is_unknown_is_null() {
        let event = fixture::event(Verdict::Malformed, |header| {
            (header.captured, header.checksum_at, header.time) = (0, 0, 5_000_000_000);
        });
        let expected = concat!(
            r#"{"time":"2026-11-21T10:15:53.000000000Z","netns":"host","interface":"virbr0","#,
            r#""ifindex":4,"hook":"egress","verdict":"malformed","src_mac":null,"dst_mac":null,"#,
            r#""vlan":null,"src":null,"sport":null,"dst":null,"dport":null,"udp_len":null,"#,
            r#""checksum":null,"expected":null,"dhcp":null}"#,
            "\n",
        );
        assert_eq!(line(&event), expected);
    }

    #[test]
    fn an_absent_checksum_is_zero_and_expects_nothing() {
        let event = fixture::event(Verdict::Unchecked, |header| {
            (header.stored, header.expected) = (0, 0);
            (header.vlan_protocol, header.vlan_tci) = (0x8100, 0x6005);
        });
        let line = line(&event);
        assert!(line.contains(r#""checksum":"0x0000","expected":null"#), "{line}");
        assert!(line.contains(r#""vlan":5,"#), "{line}");
    }

    #[test]
    fn a_loss_is_a_line_of_its_own() {
        let time = "2026-11-21T10:15:54Z".parse().unwrap();
        let line = |exchanges| {
            let mut bytes = Vec::new();
            let lost = Lost { time, netns: HOST.into(), lost: 12, exchanges };
            Json::new(&mut bytes).lost(&lost).unwrap();
            String::from_utf8(bytes).unwrap()
        };
        let start = r#"{"time":"2026-11-21T10:15:54.000000000Z","netns":"host","lost":12"#;
        assert_eq!(line(0), format!("{start}}}\n"));
        assert_eq!(line(3), format!("{start},\"exchanges\":3}}\n"));
    }
}
