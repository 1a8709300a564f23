//! Everything that an operator can do about partial checksums, and the two ends of the scale: to do
//! nothing, and to run a program that does nothing.

use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result, ensure};
use clap::Parser as _;
use fixer_common::{abi::Hook, verdict};
use fixer_tests::{bpf, command::output};
use fixer_user::{
    bpf::{
        attach::Wish,
        load::{Config, Object},
    },
    cli::{Cli, Verb},
    lab::scene::{BRIDGE, Scene},
};

/// A way to see to it that replies leave with their sum finished.
pub struct Way {
    /// What it is called in tables.
    pub name: &'static str,
    /// Whether it does what it is for.
    pub finishes: bool,
    means: Means,
}

impl Way {
    const fn new(name: &'static str, means: Means) -> Self {
        let finishes = !matches!(means, Means::Nothing | Means::EmptyProgram);
        Self { name, finishes, means }
    }
}

/// What is done to the bridge.
enum Means {
    /// Nothing.
    Nothing,
    /// A program that ends at once.
    EmptyProgram,
    /// fixer with these words to `--match`, with a reader of its events or without.
    Fixer { rules: &'static str, events: bool },
    /// Commands in the bridge's namespace.
    Commands(&'static [&'static str]),
}

/// As many rules as a program holds, of those that somebody may want.
const MANY_RULES: &str = "dhcp,dhcpv6,pxe,udp:67:67,udp:69:*,udp:4011:4011,udp:514:514,tcp:3260:*";

/// Every way, in the order of the tables. The first is what the others are compared with.
pub const WAYS: &[Way] = &[
    Way::new("untouched bridge", Means::Nothing),
    Way::new("empty program", Means::EmptyProgram),
    Way::new("fixer", Means::Fixer { rules: "dhcp", events: false }),
    Way::new("fixer, 8 rules", Means::Fixer { rules: MANY_RULES, events: false }),
    Way::new("fixer, with events", Means::Fixer { rules: "dhcp", events: true }),
    Way::new(
        "htb + u32 + csum",
        Means::Commands(&[
            "tc qdisc add dev br0 root handle 1: htb",
            "tc filter add dev br0 prio 2 protocol ip parent 1: u32 match ip dport 68 ffff \
             action csum ip and udp",
        ]),
    ),
    Way::new(
        "clsact + u32 + csum",
        Means::Commands(&[
            "tc qdisc add dev br0 clsact",
            "tc filter add dev br0 egress prio 2 protocol ip u32 match ip dport 68 ffff \
             action csum ip and udp",
        ]),
    ),
    Way::new(
        "iptables-nft CHECKSUM",
        Means::Commands(&["iptables-nft -t mangle -A POSTROUTING -o br0 -p udp --dport 68 \
             -j CHECKSUM --checksum-fill"]),
    ),
    Way::new(
        "iptables-legacy CHECKSUM",
        Means::Commands(&["iptables-legacy -t mangle -A POSTROUTING -o br0 -p udp --dport 68 \
             -j CHECKSUM --checksum-fill"]),
    ),
    Way::new("tx off", Means::Commands(&["ethtool -K br0 tx off"])),
];

/// A way that is in place, until this is dropped with the scene.
pub enum InPlace {
    /// Nothing to be kept.
    Kept,
    /// The empty program.
    Empty { _link: OwnedFd },
    /// fixer.
    Fixer { _object: Box<Object> },
}

impl Way {
    /// Puts it in place at the scene's bridge.
    pub fn set_up(&self, scene: &Scene) -> Result<InPlace> {
        match self.means {
            Means::Nothing => Ok(InPlace::Kept),
            Means::EmptyProgram => {
                let program = bpf::load_classifier(&bpf::returning(TC_ACT_UNSPEC))?;
                let link = scene.host.run(|| {
                    let ifindex = nix::net::if_::if_nametoindex(BRIDGE)?;
                    bpf::attach_to_egress(&program, ifindex, bpf::Place::First)
                })??;
                Ok(InPlace::Empty { _link: link })
            }
            Means::Fixer { rules, events } => {
                let events = if events { verdict::NOTABLE } else { 0 };
                let mut object = Object::load(&Config { events, ..config(rules)? })?;
                scene.host.run(|| object.attach(BRIDGE, Hook::Egress, Wish::Auto))??;
                Ok(InPlace::Fixer { _object: Box::new(object) })
            }
            Means::Commands(commands) => {
                for command in commands {
                    let words: Vec<_> = command.split_whitespace().collect();
                    let (program, arguments) = words.split_first().context("it is a command")?;
                    output(&scene.host, program, arguments)?;
                }
                Ok(InPlace::Kept)
            }
        }
    }
}

/// `TC_ACT_UNSPEC`: go on.
const TC_ACT_UNSPEC: i32 = -1;

/// What `fixer attach` makes of these words.
fn config(rules: &str) -> Result<Config> {
    let cli = Cli::try_parse_from(["fixer", "attach", "-i", BRIDGE, "--match", rules])?;
    let Verb::Attach(attach) = cli.verb else { anyhow::bail!("`fixer attach` is another verb") };
    let config = attach.what.config(false, false);
    ensure!(!config.rules.is_empty(), "no rules in '{rules}'");
    Ok(config)
}
