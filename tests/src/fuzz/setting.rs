//! The configurations that frames are tried under.

use fixer_common::rule::{Kind, Kinds, Rule};

use super::reference::{TCP, UDP, Wanted};

/// A configuration.
#[derive(Debug)]
pub struct Setting {
    /// Its name in fixtures and reports.
    pub name: &'static str,
    /// Its rules, as the reference takes them.
    pub rules: &'static [Wanted],
    /// Whether it only observes.
    pub observe_only: bool,
    /// Whether it shrinks a frame twice, as older kernels need it. The outcome is the same.
    pub shrink_twice: bool,
}

/// `udp:SPORT:DPORT`.
const fn udp(source: Option<u16>, destination: Option<u16>) -> Wanted {
    Wanted { protocol: UDP, ipv4: true, ipv6: true, source, destination }
}

/// `tcp:SPORT:DPORT`.
const fn tcp(source: Option<u16>, destination: Option<u16>) -> Wanted {
    Wanted { protocol: TCP, ..udp(source, destination) }
}

const DHCP: Wanted = Wanted { ipv6: false, ..udp(Some(67), Some(68)) };
const DHCPV6: Wanted = Wanted { ipv4: false, ..udp(Some(547), Some(546)) };
const FROM_4011: Wanted = Wanted { ipv6: false, ..udp(Some(4011), None) };
const ANY_UDP: Wanted = udp(None, None);
const ANY_TCP: Wanted = tcp(None, None);

const fn setting(name: &'static str, rules: &'static [Wanted]) -> Setting {
    Setting { name, rules, observe_only: false, shrink_twice: false }
}

/// All of them.
pub static SETTINGS: [Setting; 11] = [
    setting("dhcp", &[DHCP]),
    setting("dhcp,dhcpv6", &[DHCP, DHCPV6]),
    setting("dhcpv6", &[DHCPV6]),
    setting("pxe", &[DHCP, FROM_4011]),
    setting("udp", &[ANY_UDP]),
    setting("tcp", &[ANY_TCP]),
    setting(
        "ports",
        &[
            udp(Some(53), None),
            udp(None, Some(69)),
            udp(Some(0), Some(0xffff)),
            tcp(Some(80), Some(8080)),
            tcp(None, Some(443)),
        ],
    ),
    setting(
        "everything",
        &[
            DHCP,
            DHCPV6,
            FROM_4011,
            udp(Some(53), None),
            tcp(None, Some(443)),
            udp(None, Some(69)),
            ANY_TCP,
            ANY_UDP,
        ],
    ),
    Setting {
        name: "observed",
        rules: &[DHCP, DHCPV6, tcp(Some(80), None), udp(None, None)],
        observe_only: true,
        shrink_twice: false,
    },
    Setting { name: "twice", rules: &[ANY_UDP, ANY_TCP], observe_only: false, shrink_twice: true },
    setting("nothing", &[]),
];

impl Setting {
    /// The setting with this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }

    /// Its rules, as the program takes them.
    pub fn program_rules(&self) -> Vec<Rule> {
        self.rules.iter().map(program_rule).collect()
    }
}

fn program_rule(wanted: &Wanted) -> Rule {
    let (over_ipv4, over_ipv6) = match wanted.protocol {
        UDP => (Kind::Udp4, Kind::Udp6),
        _ => (Kind::Tcp4, Kind::Tcp6),
    };
    let kinds = match (wanted.ipv4, wanted.ipv6) {
        (true, false) => Kinds::of(&[over_ipv4]),
        (false, true) => Kinds::of(&[over_ipv6]),
        _ => Kinds::of(&[over_ipv4, over_ipv6]),
    };
    Rule::new(kinds, wanted.source, wanted.destination)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_are_those_that_have_names() {
        assert_eq!(program_rule(&DHCP), Rule::DHCP);
        assert_eq!(program_rule(&DHCPV6), Rule::DHCPV6);
    }

    #[test]
    fn every_setting_is_found_by_its_name() {
        for setting in &SETTINGS {
            assert_eq!(Setting::named(setting.name).map(|found| found.name), Some(setting.name));
        }
        assert!(Setting::named("none such").is_none());
    }
}
