//! What users type.

use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use clap::{ArgGroup, Args, CommandFactory as _, Parser, Subcommand, ValueEnum, error::ErrorKind};
use fixer_common::{
    abi::Hook,
    rule::{self, Kinds, Rule},
    verdict,
};

use crate::{
    bpf::{attach::Wish, load::Config},
    config,
    net::{
        netns::Spec,
        select::{Pattern, Selection},
    },
    privileges,
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
        let (select, what) = match &self.verb {
            Verb::Run(run) => (&run.select, &run.what),
            Verb::Attach(attach) => (&attach.select, &attach.what),
            _ => return Ok(()),
        };
        if select.interfaces.is_empty() && !select.auto {
            let message = "no interface is selected: give --interface or --auto, or write \
                           interface = [\"NAME\"] or auto = true into the configuration file";
            return Err(Self::command().error(ErrorKind::MissingRequiredArgument, message));
        }
        let (rules, most) = (what.rules().len(), rule::MOST);
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
  fixer demo                     see the fault and the cure, in scratch namespaces

Exit status: 0 done, 1 it failed, 2 wrong usage, 3 the self-test found a problem.";

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
    /// A live view of what is attached: rates by verdict, totals, the last minutes
    Top(Top),
    /// Prove on this kernel, in a scratch network namespace, that the fix works
    Selftest(Selftest),
    /// A bridge, dnsmasq and a strict client in scratch namespaces: no lease, fixer on, lease
    Demo(Demo),
}

/// Arguments of `fixer run`.
#[derive(Debug, Args)]
#[command(after_help = run_help(), group = which(&["interfaces", "auto", "config"]))]
pub struct Run {
    /// Which interfaces.
    #[command(flatten)]
    pub select: Select,
    /// What the programs do.
    #[command(flatten)]
    pub what: What,
    /// How events are shown on standard output
    #[arg(long, value_enum, value_name = "FORM", default_value_t = Events::Text)]
    pub events: Events,
    /// Show every matched packet, not only those that are bad
    #[arg(long)]
    pub all: bool,
    /// Also write every shown packet, as it was seen, to a capture file
    #[arg(long, value_name = "FILE")]
    pub pcapng: Option<PathBuf>,
    /// Where to serve OpenMetrics, or `off`
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9767")]
    pub metrics: Metrics,
    /// Become this user once everything is attached and open
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Take options from a TOML file, by their names here; those given here win. SIGHUP reads it again
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

fn run_help() -> String {
    let (before, after) =
        (privileges::help(privileges::TO_PROVE), privileges::help(privileges::TO_ATTACH));
    format!(
        "{RUN_EXAMPLES}\n\nCapabilities that it starts with:\n{before}\nand keeps once it is attached:\n{after}"
    )
}

const RUN_EXAMPLES: &str = "\
Names decide, for as long as it runs. An interface that is made again, or renamed into a
pattern, is attached; one that is renamed out of it is detached. A network namespace whose
name is deleted is let go, so that it can end, and entered again when the name comes back;
one given as pid:N is let go when the process ends. When none is left that could come back,
the run ends.

While many interfaces are attached or detached at once, /sys/kernel/rcu_expedited is turned
on if it can be, and put back.

Examples:
  fixer run -i virbr0
  fixer run -i 'br-*' --events json --metrics off
  fixer run -i tap0 --netns blue --netns pid:4711
  fixer run -i br0 --observe-only --all --pcapng dhcp.pcapng
  fixer run --config /etc/fixer/fixer.toml";

/// One of these arguments at least says which interfaces are meant.
fn which(names: &'static [&'static str]) -> ArgGroup {
    ArgGroup::new("which").args(names).required(true).multiple(true)
}

/// Arguments of `fixer attach`.
#[derive(Debug, Args)]
#[command(after_help = ATTACH_EXAMPLES, group = which(&["interfaces", "auto", "config"]))]
pub struct Attach {
    /// Which interfaces.
    #[command(flatten)]
    pub select: Select,
    /// What the programs do.
    #[command(flatten)]
    pub what: What,
    /// Take options from the TOML file of `fixer run`; those given here win
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

const ATTACH_EXAMPLES: &str = "\
Where `fixer attach` was before, its program is replaced in one step and the counters go on. If one
interface refuses, none is attached.

Examples:
  fixer attach -i virbr0
  fixer attach --auto --netns blue
  fixer attach -i br0 --match dhcp,udp:69:*";

/// Arguments of `fixer detach`.
#[derive(Debug, Args)]
#[command(group = which(&["interfaces", "auto", "all"]))]
pub struct Detach {
    /// Which interfaces.
    #[command(flatten)]
    pub select: Select,
    /// Everything that is attached in the namespace
    #[arg(long, conflicts_with_all = ["interfaces", "auto"])]
    pub all: bool,
    /// Only from this hook
    #[arg(long, value_enum, value_name = "HOOK", default_value_t = Hooks::Both)]
    pub hook: Hooks,
}

/// Arguments of `fixer status`.
#[derive(Debug, Args)]
pub struct Status {
    /// Which interfaces; without any, all.
    #[command(flatten)]
    pub select: Select,
    /// Only this hook
    #[arg(long, value_enum, value_name = "HOOK", default_value_t = Hooks::Both)]
    pub hook: Hooks,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `fixer top`.
#[derive(Debug, Args)]
#[command(after_help = top_help())]
pub struct Top {
    /// Which interfaces; without any, all.
    #[command(flatten)]
    pub select: Select,
    /// Only this hook
    #[arg(long, value_enum, value_name = "HOOK", default_value_t = Hooks::Both)]
    pub hook: Hooks,
    /// Look for a second, print one frame as text, and exit
    #[arg(long)]
    pub once: bool,
}

fn top_help() -> String {
    format!("{TOP_KEYS}\n\nCapabilities:\n{}", privileges::help(privileges::TO_LOOK))
}

const TOP_KEYS: &str = "\
It shows what `fixer attach` and every running `fixer run` attached, and changes nothing. What is
attached later appears within seconds. Rates are the mean of the last ten seconds.

Keys:
  up, down, k, j    select an interface; PgUp, PgDn, Home, End go further
  /                 type a part of an interface's name; Enter keeps the filter, Esc drops it
  p, space          hold the picture, and let it go on
  s                 sort by name, by rate, by total
  q, Ctrl-C         quit

Without colour: set NO_COLOR.";

/// Arguments of `fixer selftest`.
#[derive(Debug, Args)]
pub struct Selftest {
    /// Print the findings as JSON
    #[arg(long)]
    pub json: bool,
    /// How to attach
    #[arg(long, value_enum, value_name = "MODE", default_value_t = Wish::Auto)]
    pub attach_mode: Wish,
}

/// Arguments of `fixer demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// How long the client tries without fixer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 4, value_parser = clap::value_parser!(u64).range(2..=120))]
    pub patience: u64,
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
    /// The network namespace to act in; repeatable
    #[arg(long, value_name = "NAME|PATH|pid:N")]
    pub netns: Vec<Spec>,
}

impl Select {
    /// The interfaces.
    pub fn selection(&self) -> Selection {
        Selection { patterns: self.interfaces.clone(), auto: self.auto }
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

impl What {
    /// Whether the fix has to be proven first: who only observes does not need it.
    pub fn needs_proof(&self) -> bool {
        !self.skip_selftest && !self.observe_only
    }

    /// The configuration of the programs.
    pub fn config(&self, all: bool, log: bool) -> Config {
        Config {
            rules: self.rules(),
            observe_only: self.observe_only,
            events: if all { verdict::ALL } else { verdict::NOTABLE },
            log,
            ..Config::default()
        }
    }

    /// The rules, each once.
    fn rules(&self) -> Vec<Rule> {
        let mut rules: Vec<Rule> = Vec::new();
        for rule in self.rules.iter().flat_map(|set| &set.0) {
            if !rules.contains(rule) {
                rules.push(*rule);
            }
        }
        rules
    }
}

/// The rules that one word of `--match` stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSet(Vec<Rule>);

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
    fn run_wants_to_know_where() {
        assert!(Cli::try_parse_from(["fixer", "run"]).is_err());
        assert!(Cli::try_parse_from(["fixer", "run", "--auto"]).is_ok());
    }
}
