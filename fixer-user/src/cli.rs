//! What users type.

mod rules;
mod verbs;

use std::{net::SocketAddr, str::FromStr};

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum, error::ErrorKind};
use fixer_common::{
    abi::Hook,
    rule::{self, Rule},
    verdict,
};

use crate::{
    bpf::{attach::Wish, load::Config},
    config,
    net::{
        named::Choice,
        netns::Spec,
        select::{Pattern, Selection},
    },
};

pub use rules::RuleSet;
pub use verbs::{
    Attach, Demo, Detach, Doctor, Output, Run, Selftest, ServeEvents, Status, Top, Watch,
};

/// Finishes partial UDP checksums on DHCP replies in the kernel, and shows what it saw.
///
/// Guests that verify checksums drop the replies of a DHCP server on their host, because no device
/// ever finished the sum. fixer attaches a small program to the bridge that finishes it.
#[derive(Debug, Parser)]
#[command(name = "fixer", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
    /// Say more about what is done (-vv: also what the eBPF programs log)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

impl Cli {
    /// The command line of this process, with the configuration file that it names. If they are no
    /// good, the process ends with status 2.
    pub fn of_this_process() -> Self {
        config::read(std::env::args_os().collect()).unwrap_or_else(|mistake| mistake.exit())
    }

    /// What cannot be seen in one argument alone.
    pub fn check(&self) -> Result<(), clap::Error> {
        let (select, what, all) = match &self.verb {
            Verb::Run(run) => (&run.select, &run.what, run.output.all),
            Verb::Attach(attach) => (&attach.select, &attach.what, false),
            _ => return Ok(()),
        };
        if select.interfaces.is_empty() && !select.auto {
            let message = "no interface is selected: give --interface or --auto, or write \
                           interface = [\"NAME\"] or auto = true into the configuration file";
            return Err(Self::command().error(ErrorKind::MissingRequiredArgument, message));
        }
        let (rules, most) = (what.rules(all).len(), rule::MOST);
        if rules <= most {
            return Ok(());
        }
        let message =
            format!("{rules} rules are more than a program holds: give at most {most} to --match");
        Err(Self::command().error(ErrorKind::TooManyValues, message))
    }
}

const EXAMPLES: &str = "\
Examples:
  fixer selftest                 does the fix work on this kernel?
  fixer run -i virbr0            fix replies that leave through virbr0, show each of them
  fixer run --auto --events none fix replies on every bridge, also on those that appear later
  fixer attach -i virbr0         fix replies from now on, without a process
  fixer watch                    show what is fixed by `attach` or another `run`
  fixer doctor                   why does a guest get no lease?
  fixer demo                     see the fault and the cure, in scratch namespaces

Exit status: 0 done, 1 it failed, 2 wrong usage, 3 the doctor or the self-test
found a problem.";

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Attach, stream events, serve metrics; on Ctrl-C or SIGTERM detach and exit
    Run(Run),
    /// Attach and pin under /sys/fs/bpf/fixer, then exit: the fix stays without any process
    Attach(Attach),
    /// Undo attach, of any version of fixer, and remove what a killed fixer left
    Detach(Detach),
    /// What is attached where, who holds it, and what it has counted
    Status(Status),
    /// Stream events from what `attach` left pinned, or from a running `run`
    Watch(Watch),
    /// Hand out the events of pinned maps to watchers, on the socket that is standard input
    #[command(hide = true)]
    ServeEvents(ServeEvents),
    /// Why does a guest get no lease, or not boot? Looks, and changes nothing
    Doctor(Doctor),
    /// A live view of what is attached: rates by verdict, totals, the last minutes
    Top(Top),
    /// Prove on this kernel, in a scratch network namespace, that the fix works
    Selftest(Selftest),
    /// A bridge, dnsmasq and a strict client in scratch namespaces: no lease, fixer on, lease
    Demo(Demo),
}

/// Which interfaces, in which namespaces.
#[derive(Clone, Debug, Args)]
pub struct Select {
    /// An interface, or a glob that also takes those that appear later
    #[arg(short, long = "interface", value_name = "NAME|GLOB")]
    pub interfaces: Vec<Pattern>,
    /// Every Linux bridge
    #[arg(long)]
    pub auto: bool,
    /// The network namespace to act in; repeatable. A glob (`'qdhcp-*'`) is all that `ip netns` named
    /// so, and for `run` also those that are named later
    #[arg(long, value_name = "NAME|GLOB|PATH|pid:N")]
    pub netns: Vec<Choice>,
}

impl Select {
    /// The interfaces.
    pub fn selection(&self) -> Selection {
        Selection { patterns: self.interfaces.clone(), auto: self.auto }
    }

    /// The globs of namespaces.
    pub fn globs(&self) -> impl Iterator<Item = &Pattern> {
        self.netns.iter().filter_map(Choice::glob)
    }

    /// Whether a namespace is meant, our own if it has no name.
    pub fn means(&self, netns: Option<&Spec>) -> bool {
        netns.map_or(self.netns.is_empty(), |spec| {
            self.netns.iter().any(|choice| choice.means(spec))
        })
    }

    /// Whether just this namespace is meant, and not only a glob that takes it: then it has to be
    /// there, and so has what is named in it.
    pub fn requires(&self, netns: Option<&Spec>) -> bool {
        let is_it = |choice: &Choice| matches!(choice, Choice::One(one) if Some(one) == netns);
        netns.is_none() || self.netns.iter().any(is_it)
    }
}

/// What the programs do with which packets.
#[derive(Clone, Debug, Args)]
pub struct What {
    /// Which packets: dhcp (UDP 67 to 68), dhcpv6 (547 to 546), pxe (dhcp, and 4011 to any), udp,
    /// tcp, or udp:SPORT:DPORT and tcp:SPORT:DPORT with * for any
    #[arg(
        long = "match",
        value_name = "RULE[,RULE…]",
        value_delimiter = ',',
        default_value = "dhcp"
    )]
    pub rules: Vec<RuleSet>,
    /// Which packets: those that leave through the interface, those that come in, or both
    #[arg(long, value_enum, value_name = "HOOK", default_value_t = Hooks::Egress)]
    pub hook: Hooks,
    /// Count and report, change nothing
    #[arg(long)]
    pub observe_only: bool,
    /// How to attach: tcx where the kernel has it and else clsact, or only one of them
    #[arg(long, value_enum, value_name = "MODE", default_value_t = Wish::Auto)]
    pub attach_mode: Wish,
    /// Attach without proving first that the fix works on this kernel
    #[arg(long)]
    pub skip_selftest: bool,
}

/// What the programs were told to do, for verbs to which that makes no difference: so the arguments of
/// `fixer attach` can be given to them as they are.
#[derive(Clone, Debug, Args)]
pub struct AsAttached {
    /// As given to `attach`; makes no difference here
    #[arg(
        long = "match",
        value_name = "RULE[,RULE…]",
        value_delimiter = ',',
        hide_short_help = true
    )]
    pub rules: Vec<RuleSet>,
    /// As given to `attach`; makes no difference here
    #[arg(long, hide_short_help = true)]
    pub observe_only: bool,
}

impl What {
    /// Whether the fix has to be proven first: who only observes does not need it.
    pub fn needs_proof(&self) -> bool {
        !self.skip_selftest && !self.observe_only
    }

    /// The configuration of the programs.
    pub fn config(&self, all: bool, log: bool) -> Config {
        Config {
            rules: self.rules(all),
            observe_only: self.observe_only,
            events: if all { verdict::ALL } else { verdict::NOTABLE },
            log,
            ..Config::default()
        }
    }

    /// The rules, each once. Who wants to see everything, and sees what comes in, sees the requests
    /// with the replies.
    fn rules(&self, all: bool) -> Vec<Rule> {
        let mut rules: Vec<Rule> = Vec::new();
        let given = self.rules.iter().flat_map(|set| &set.0).copied();
        let sees_requests = all && self.hook != Hooks::Egress;
        let with_requests = self.rules.iter().any(|set| set.0.contains(&Rule::DHCP));
        let requests = (sees_requests && with_requests).then_some(REQUESTS);
        for rule in given.chain(requests) {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
        rules
    }
}

/// What DHCP clients ask of servers: UDP over IPv4, 68 to 67.
const REQUESTS: Rule = Rule::new(Rule::DHCP.kinds, Some(68), Some(67));

/// Which hooks to attach to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Hooks {
    /// Packets that leave through the interface
    Egress,
    /// Packets that come in through the interface
    Ingress,
    /// Both
    Both,
}

impl Hooks {
    /// The hooks, one by one.
    pub const fn each(self) -> &'static [Hook] {
        match self {
            Self::Egress => &[Hook::Egress],
            Self::Ingress => &[Hook::Ingress],
            Self::Both => &[Hook::Egress, Hook::Ingress],
        }
    }
}

/// How events are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Events {
    /// Lines to read, as tcpdump writes them
    Text,
    /// One JSON object a line
    Json,
    /// Nothing
    None,
}

/// Where metrics are served, if at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics(pub Option<SocketAddr>);

impl FromStr for Metrics {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, Self::Err> {
        match given {
            "off" => Ok(Self(None)),
            _ => given.parse().map(|address| Self(Some(address))).map_err(|_| {
                "write an address and a port, like 127.0.0.1:9767 or [::1]:9767, or off".to_owned()
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use fixer_common::rule::Kinds;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_rule_of_the_help_is_understood() {
        let rules = |given: &str| given.parse::<RuleSet>().map(|set| set.0);
        assert_eq!(rules("dhcp"), Ok(vec![Rule::DHCP]));
        assert_eq!(rules("dhcpv6"), Ok(vec![Rule::DHCPV6]));
        assert_eq!(rules("udp:67:68"), Ok(vec![Rule::new(Kinds::UDP, Some(67), Some(68))]));
        assert_eq!(rules("tcp:*:80"), Ok(vec![Rule::new(Kinds::TCP, None, Some(80))]));
        assert_eq!(rules("pxe").unwrap().len(), 2);
        assert_eq!(rules("udp:*:*"), rules("udp"));
        for bad in ["", "dchp", "udp:67", "udp:0:68", "udp:67:65536", "udp:a:b", "udp:1:2:3"] {
            assert!(rules(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_same_rule_twice_takes_one_place() {
        let cli = Cli::parse_from(["fixer", "run", "-i", "br0", "--match", "dhcp,pxe,dhcp"]);
        let Verb::Run(run) = cli.verb else { panic!("not run") };
        assert_eq!(run.what.config(false, false).rules.len(), 2);
    }

    #[test]
    fn requests_are_seen_where_they_come_in_if_everything_is_to_be_seen() {
        let parsed = |arguments: &str| {
            let words = ["fixer run -i br0 ", arguments].concat();
            let cli = Cli::parse_from(words.split_whitespace());
            let Verb::Run(run) = cli.verb else { panic!("not run") };
            (run.config(false).rules.contains(&REQUESTS), run.sees_exchanges())
        };
        for (arguments, expected) in [
            ("", (false, false)),
            ("--all", (false, false)),
            ("--hook both", (false, false)),
            ("--all --hook ingress", (true, false)),
            ("--all --hook both", (true, true)),
            ("--all --hook both --match pxe", (true, true)),
            ("--all --hook both --match udp", (false, true)),
            ("--all --hook both --match dhcpv6", (false, false)),
            ("--all --hook both --match udp:68:67", (false, false)),
            ("--all --hook both --match udp:68:67,udp:67:68", (false, true)),
            ("--all --hook both --match tcp,dhcpv6", (false, false)),
        ] {
            assert_eq!(parsed(arguments), expected, "{arguments}");
        }
    }

    #[test]
    fn run_wants_to_know_where() {
        assert!(Cli::try_parse_from(["fixer", "run"]).is_err());
        assert!(Cli::try_parse_from(["fixer", "run", "--auto"]).is_ok());
    }
}
