//! The arguments of each verb, and the examples in its help.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use fixer_common::{
    rule::{Kind, Ports, Rules as _},
    verdict,
};

use super::{AsAttached, Events, Hooks, Metrics, Select, What};
use crate::{
    bpf::{attach::Wish, load::Config},
    metrics::Endpoint,
    privileges::{self, Act},
};

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
    /// How they are shown.
    #[command(flatten)]
    pub output: Output,
    /// After how long a silence a DHCP exchange has ended, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub exchange_timeout: u64,
    /// Where to serve OpenMetrics, or `off`
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9767")]
    pub metrics: Metrics,
    /// Also push the metrics to this receiver of OTLP (HTTP, protobuf), to /v1/metrics if no path is
    /// given. Only in a fixer that was built with `--features otlp`
    #[arg(long, value_name = "URL")]
    pub otlp: Option<Endpoint>,
    /// After how long it is pushed again, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub otlp_interval: u64,
    /// Become this user once everything is attached and open
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Take options from a TOML file, by their names here; those given here win. SIGHUP reads it again
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl Run {
    /// The configuration of the programs.
    pub fn config(&self, log: bool) -> Config {
        self.what.config(self.output.all, log)
    }

    /// Whether it sees both sides of every exchange between DHCP clients and servers.
    pub fn sees_exchanges(&self) -> bool {
        let rules = self.config(false).rules;
        let seen = |ports| rules[..].match_any(Kind::Udp4, Some(Ports::from_wire(ports)));
        self.output.all
            && self.what.hook == Hooks::Both
            && seen([0, 67, 0, 68])
            && seen([0, 68, 0, 67])
    }
}

/// How events are shown.
#[derive(Clone, Debug, Args)]
pub struct Output {
    /// How events are shown on standard output
    #[arg(long, value_enum, value_name = "FORM", default_value_t = Events::Text)]
    pub events: Events,
    /// Show every matched packet, not only those that are bad
    #[arg(long)]
    pub all: bool,
    /// Also write every shown packet, as it was seen, to a capture file
    #[arg(long, value_name = "FILE")]
    pub pcapng: Option<PathBuf>,
}

impl Output {
    /// The verdicts that are shown, as a set of [`Verdict::bit`](verdict::Verdict::bit)s.
    pub const fn verdicts(&self) -> u32 {
        if self.all { verdict::ALL } else { verdict::NOTABLE }
    }
}

fn run_help() -> String {
    let [before, after, load, become_user] =
        [privileges::TO_PROVE, privileges::TO_STAY, &[Act::Load], &[Act::Become]]
            .map(privileges::help);
    let elsewhere = elsewhere();
    format!(
        "{RUN_EXAMPLES}\n\nCapabilities that it starts with:\n{before}\nwith --user also:\n{become_user}\n\
         and keeps once it is attached:\n{after}\nwith --config, or a glob in --netns, also:\n{load}\n{elsewhere}"
    )
}

/// What other namespaces take besides.
fn elsewhere() -> String {
    let [enter, process] = [&[Act::Enter], &[Act::EnterProcess]].map(|acts| privileges::help(acts));
    format!(
        "with --netns also:\n{enter}\nwith --netns pid:N, of another user's process, also:\n{process}"
    )
}

/// What a verb's help ends with.
fn ending(about: &str, acts: &[Act]) -> String {
    format!("{about}\n\nCapabilities:\n{}\n{}", privileges::help(acts), elsewhere())
}

const RUN_EXAMPLES: &str = "\
Names decide, for as long as it runs. An interface that is made again, or renamed into a
pattern, is attached; one that is renamed out of it is detached. A network namespace whose
name is deleted is let go, so that it can end, and entered again when the name comes back;
one given as pid:N is let go when the process ends. When none is left that could come back,
the run ends. A glob in --netns takes every namespace below /run/netns whose name matches, as
they are named and deleted, and need not find any; what is named in it with -i need not be
there either. A namespace with several names is taken once.

With --all at ingress, the rules dhcp and pxe also take what clients ask of servers (UDP 68
to 67); a sum that is partial is finished there too, unless --observe-only is given. With
--all and --hook both, a line is shown when an exchange ends: who asked, which servers
offered, how long it took, and whether it was a lease, a nak, no_offer, unanswered_offer or
no_ack. What passes from one port of a bridge to another is not seen at the bridge: if the
server is another host, select the guests' ports.

A receiver of --otlp is told the same as whoever asks --metrics; what is fixer_packets_total
here is fixer.packets there. Who tells it is in the resource: service.name, service.version,
service.instance.id and host.name, and OTEL_RESOURCE_ATTRIBUTES has the last word. While a
receiver does not answer, all else goes on; at the end the last numbers are pushed.

While many interfaces are attached or detached at once, /sys/kernel/rcu_expedited is turned
on if it can be, and put back.

Examples:
  fixer run -i virbr0
  fixer run -i 'br-*' --events json --metrics off
  fixer run -i tap0 --netns blue --netns pid:4711
  fixer run -i 'ns-*' --netns 'qdhcp-*'
  fixer run -i br0 --observe-only --all --pcapng dhcp.pcapng
  fixer run -i br0 --all --hook both
  fixer run --auto --otlp http://127.0.0.1:4318
  fixer run --config /etc/fixer/fixer.toml";

/// One of these arguments at least says which interfaces are meant.
fn which(names: &'static [&'static str]) -> ArgGroup {
    ArgGroup::new("which").args(names).required(true).multiple(true)
}

/// Arguments of `fixer attach`.
#[derive(Debug, Args)]
#[command(after_help = attach_help(), group = which(&["interfaces", "auto", "config"]))]
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

fn attach_help() -> String {
    let prove = privileges::help(&[Act::SelfTest]);
    format!(
        "{}\nwithout --skip-selftest also:\n{prove}",
        ending(ATTACH_EXAMPLES, privileges::TO_PIN)
    )
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
#[command(after_help = ending(DETACH_EXAMPLES, privileges::TO_INSPECT), group = which(&["interfaces", "auto", "all"]))]
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
    /// What else `attach` was told.
    #[command(flatten)]
    pub as_attached: AsAttached,
}

const DETACH_EXAMPLES: &str = "\
Examples:
  fixer detach -i virbr0
  fixer detach --all
  fixer detach --all --netns blue";

/// Arguments of `fixer status`.
#[derive(Debug, Args)]
#[command(after_help = ending(STATUS_EXAMPLES, privileges::TO_LOOK))]
pub struct Status {
    /// Which interfaces; without any, all.
    #[command(flatten)]
    pub select: Select,
    /// Only this hook
    #[arg(long, value_enum, value_name = "HOOK", default_value_t = Hooks::Both)]
    pub hook: Hooks,
    /// What else `attach` was told.
    #[command(flatten)]
    pub as_attached: AsAttached,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

const STATUS_EXAMPLES: &str = "\
Examples:
  fixer status
  fixer status -i virbr0 --json
  fixer status --netns 'qdhcp-*'";

/// Arguments of `fixer top`.
#[derive(Debug, Args)]
#[command(after_help = ending(TOP_KEYS, privileges::TO_LOOK))]
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

const TOP_KEYS: &str = "\
It shows what `fixer attach` and every running `fixer run` attached, and changes nothing. What is
attached later appears within seconds. Rates are the mean of the last ten seconds.

Of a `fixer run --all --hook both` it also shows the last exchanges between DHCP clients and servers:
the client, what was said (D discover, O offer, R request, A ack, N nak, I inform, d decline, r release;
D3 is three of them), the outcome, the address that was offered, the server, and how long it took.
An exchange is over after 30 seconds of silence. Events of bad packets are listed below; `fixer watch`
tells more of each.

Keys:
  up, down, k, j    select an interface; PgUp, PgDn, Home, End go further
  /                 type a part of an interface's name; Enter keeps the filter, Esc drops it
  p, space          hold the picture, and let it go on
  s                 sort by name, by rate, by total
  q, Ctrl-C         quit

Without colour: set NO_COLOR. Terminals that have none, as vt220 and xterm-mono, get none.";

/// Arguments of `fixer watch`.
#[derive(Debug, Args)]
#[command(after_help = ending(WATCH_EXAMPLES, privileges::TO_WATCH))]
pub struct Watch {
    /// Which interfaces; without any, all.
    #[command(flatten)]
    pub select: Select,
    /// Only this hook
    #[arg(long, value_enum, value_name = "HOOK", default_value_t = Hooks::Both)]
    pub hook: Hooks,
    /// What else `attach` was told.
    #[command(flatten)]
    pub as_attached: AsAttached,
    /// How they are shown.
    #[command(flatten)]
    pub output: Output,
}

const WATCH_EXAMPLES: &str = "\
It changes nothing of what is attached, and any number may watch at once, each with its own options.
A watcher that does not keep up is told how many events it has lost; the others and the counters lose
nothing by it. While it watches a `run` whose own output nobody empties, that output loses events
instead of letting them wait. It ends with Ctrl-C, or when that `run` ends or nothing that
`fixer attach` left in the namespace is attached any more, and then says what was counted since it began.

What `fixer attach` left is read by a process beside the watchers, `fixer serve-events`, that the first
of them starts and that ends with the last.

Examples:
  fixer watch
  fixer watch -i virbr0 --events json
  fixer watch --netns blue --all --pcapng dhcp.pcapng";

/// Arguments of `fixer serve-events`.
#[derive(Debug, Args)]
pub struct ServeEvents {
    /// The id of the ring buffer
    pub events: u32,
    /// The id of the map that chooses events
    pub wanted: u32,
    /// The id of the map that counts lost events
    pub lost: u32,
}

/// Arguments of `fixer doctor`.
#[derive(Debug, Args)]
#[command(after_help = DOCTOR_EXAMPLES)]
pub struct Doctor {
    /// Which interfaces; without any, every bridge.
    #[command(flatten)]
    pub select: Select,
    /// As given to `attach`; both hooks are looked at
    #[arg(long, value_enum, value_name = "HOOK", default_value_t = Hooks::Both, hide_short_help = true)]
    pub hook: Hooks,
    /// What else `attach` was told.
    #[command(flatten)]
    pub as_attached: AsAttached,
    /// Also watch what passes for so long
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86400))]
    pub listen: Option<u64>,
    /// Print the findings as JSON
    #[arg(long)]
    pub json: bool,
}

const DOCTOR_EXAMPLES: &str = "\
It reads what the kernel and the processes tell, asks nft, iptables and ovs-vsctl where they are
installed, and tries the fix in a scratch network namespace. Without root it says what it could not
see; what it takes to see everything is root.

Examples:
  fixer doctor
  fixer doctor -i virbr0 --listen 30   start the guest meanwhile

Exit status: 0 nothing found, 1 it could not look, 2 wrong usage, 3 it found a problem.";

/// Arguments of `fixer selftest`.
#[derive(Debug, Args)]
#[command(after_help = format!("Capabilities:\n{}", privileges::help(privileges::TO_PROVE)))]
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
#[command(after_help = format!("Capabilities:\n{}", privileges::help(privileges::TO_PLAY)))]
pub struct Demo {
    /// How long the client tries without fixer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 4, value_parser = clap::value_parser!(u64).range(2..=120))]
    pub patience: u64,
}
