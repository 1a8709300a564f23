//! The rules that a user writes after `--match`.

use std::str::FromStr;

use fixer_common::rule::{Kinds, Rule};

/// The rules that one word of `--match` stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSet(pub(super) Vec<Rule>);

impl FromStr for RuleSet {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, Self::Err> {
        let rules = match given.split(':').collect::<Vec<_>>()[..] {
            ["dhcp"] => vec![Rule::DHCP],
            ["dhcpv6"] => vec![Rule::DHCPV6],
            ["pxe"] => vec![Rule::DHCP, Rule::new(Rule::DHCP.kinds, Some(4011), None)],
            ["udp"] => vec![Rule::new(Kinds::UDP, None, None)],
            ["tcp"] => vec![Rule::new(Kinds::TCP, None, None)],
            ["udp", source, destination] => {
                vec![Rule::new(Kinds::UDP, port(source)?, port(destination)?)]
            }
            ["tcp", source, destination] => {
                vec![Rule::new(Kinds::TCP, port(source)?, port(destination)?)]
            }
            _ => {
                let rules = "the rules are dhcp, dhcpv6, pxe, udp, tcp, and udp:SPORT:DPORT or \
                             tcp:SPORT:DPORT with * for any port";
                return Err(rules.to_owned());
            }
        };
        Ok(Self(rules))
    }
}

fn port(given: &str) -> Result<Option<u16>, String> {
    match given {
        "*" => Ok(None),
        _ => match given.parse() {
            Ok(port @ 1..) => Ok(Some(port)),
            _ => Err(format!("'{given}' is no port: write a number from 1 to 65535, or *")),
        },
    }
}
