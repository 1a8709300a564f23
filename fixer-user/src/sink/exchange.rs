//! How an exchange ended, as a line for people.

use std::{fmt, net::Ipv4Addr};

use anstyle::{AnsiColor, Style};

use crate::exchange::{Exchange, Outcome};

/// `DHCP exchange xid 0x6ce6e42e client 0e:eb:4f:74:8d:15 (PXE): no_offer: no server offered an
/// address in 58.013 s, 3 retries`.
pub(super) struct Line<'a> {
    pub(super) exchange: &'a Exchange,
    pub(super) colour: bool,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { exchange, colour } = *self;
        write!(f, "DHCP exchange xid {}", exchange.xid)?;
        if let Some(client) = exchange.client_mac {
            write!(f, " client {client}")?;
        }
        if exchange.pxe {
            f.write_str(" (PXE)")?;
        }
        let style = if colour { self::colour(exchange.outcome).on_default() } else { Style::new() };
        let row = exchange.outcome.row();
        write!(f, ": {style}{}{style:#}: {}", row.name, row.help)?;
        if let Some(address) = exchange.your_ip {
            write!(f, ", {address}")?;
        }
        if let Some(server) = exchange.server {
            write!(f, ", server {server}")?;
        }
        write!(f, ", in {:.3} s", exchange.seconds)?;
        match exchange.retries {
            0 => (),
            1 => f.write_str(", 1 retry")?,
            retries => write!(f, ", {retries} retries")?,
        }
        list(f, "offered by", &exchange.servers)?;
        list(f, "boot offered by", &exchange.boot_servers)
    }
}

fn list(f: &mut fmt::Formatter<'_>, what: &str, servers: &[Ipv4Addr]) -> fmt::Result {
    servers.iter().enumerate().try_for_each(|(place, server)| match place {
        0 => write!(f, ", {what} {server}"),
        _ => write!(f, " and {server}"),
    })
}

/// Green is what the client wished for, red is not.
pub(crate) fn colour(outcome: Outcome) -> AnsiColor {
    if outcome.is_good() { AnsiColor::Green } else { AnsiColor::Red }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{Json, Sink, Text};
    use crate::{
        event::{HOST, Xid, fixture},
        exchange::{Ending, Exchange, Messages, Outcome},
    };

    fn ending(netns: &str, change: impl FnOnce(&mut Exchange)) -> Ending {
        let mut exchange = Exchange {
            outcome: Outcome::NoOffer,
            xid: Xid::V4(0x6ce6_e42e),
            client_mac: Some(fixture::CLIENT),
            pxe: true,
            began_with: "discover",
            seconds: 58.013,
            retries: 3,
            servers: Vec::new(),
            boot_servers: Vec::new(),
            server: None,
            your_ip: None,
            messages: Messages::default(),
            offered: None,
        };
        change(&mut exchange);
        let time = "2026-11-21T10:15:53.015772001Z".parse().unwrap();
        Ending { time, netns: netns.into(), interface: Arc::from("virbr0"), ifindex: 4, exchange }
    }

    fn lease(exchange: &mut Exchange) {
        let servers = [[10, 0, 3, 1].into(), [10, 0, 3, 2].into()];
        exchange.outcome = Outcome::Lease;
        (exchange.pxe, exchange.seconds, exchange.retries) = (false, 1.25, 0);
        (exchange.server, exchange.your_ip) = (Some(servers[0]), Some([10, 0, 3, 129].into()));
        (exchange.servers, exchange.boot_servers) = (servers.to_vec(), vec![[10, 0, 3, 9].into()]);
    }

    fn text(colour: bool, ending: &Ending) -> String {
        let mut bytes = Vec::new();
        Text::new(&mut bytes, colour).exchange(ending).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_line_says_who_was_left_without_and_why() {
        let line = "10:15:53.015772 virbr0 DHCP exchange xid 0x6ce6e42e client 0e:eb:4f:74:8d:15 \
                    (PXE): no_offer: no server offered an address, in 58.013 s, 3 retries\n";
        assert_eq!(text(false, &ending(HOST, |_| ())), line);
        let line = "10:15:53.015772 pod/virbr0 DHCP exchange xid 0x6ce6e42e client \
                    0e:eb:4f:74:8d:15: lease: the client has an address, 10.0.3.129, server \
                    10.0.3.1, in 1.250 s, offered by 10.0.3.1 and 10.0.3.2, boot offered by \
                    10.0.3.9\n";
        assert_eq!(text(false, &ending("pod", lease)), line);
    }

    #[test]
    fn only_the_outcome_is_coloured() {
        let bad = text(true, &ending(HOST, |_| ()));
        assert!(bad.contains(": \x1b[31mno_offer\x1b[0m: no server"), "{bad:?}");
        let good = text(true, &ending(HOST, lease));
        assert!(good.contains(": \x1b[32mlease\x1b[0m: the client"), "{good:?}");
        assert_eq!((bad.matches('\x1b').count(), good.matches('\x1b').count()), (2, 2));
    }

    #[test]
    fn in_json_it_is_an_object_of_its_own_kind() {
        let mut bytes = Vec::new();
        Json::new(&mut bytes).exchange(&ending(HOST, lease)).unwrap();
        let expected = concat!(
            r#"{"time":"2026-11-21T10:15:53.015772001Z","netns":"host","interface":"virbr0","#,
            r#""ifindex":4,"exchange":{"outcome":"lease","xid":"0x6ce6e42e","#,
            r#""client_mac":"0e:eb:4f:74:8d:15","pxe":false,"began_with":"discover","#,
            r#""seconds":1.25,"retries":0,"servers":["10.0.3.1","10.0.3.2"],"#,
            r#""boot_servers":["10.0.3.9"],"server":"10.0.3.1","your_ip":"10.0.3.129"}}"#,
            "\n",
        );
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }
}
