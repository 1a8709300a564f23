//! Every system that serves DHCP to guests over a bridge, built from its real software.
//!
//! Each [`Scenario`] makes a [`host::Host`] as its operator would, shows the fault with a client that
//! verifies every checksum, runs fixer as the page `docs/systems/NAME.md` says, and shows the cure. What
//! was seen is a [`story::Story`] of one screen.

pub mod cgroup;
pub mod cni;
pub mod cni_vlan;
pub mod failover;
pub mod guest;
pub mod host;
pub mod libvirt;
pub mod lxc;
pub mod qdhcp;
pub mod story;
pub mod vhost_net;

use std::path::Path;

use anyhow::Result;

use story::{Act, Story};

/// A system, and how it is played.
#[derive(Debug)]
pub struct Scenario {
    /// How it is asked for, and how its place in a page is called.
    pub name: &'static str,
    /// The system in a few words.
    pub title: &'static str,
    /// Debian's packages that it takes, each with a file of it.
    pub packages: &'static [(&'static str, &'static str)],
    /// Plays it. What is to be told goes into the list as soon as it is seen.
    play: fn(&mut Vec<Act>) -> Result<()>,
}

/// How a dnsmasq is started that serves DHCP and nothing else, on a host of its own.
const DNSMASQ: [&str; 9] = [
    "--keep-in-foreground",
    "--log-facility=-",
    "--conf-file=/dev/null",
    "--user=root",
    "--port=0",
    "--no-ping",
    "--dhcp-authoritative",
    "--dhcp-leasefile=/run/leases",
    "--pid-file=/run/dnsmasq.pid",
];

/// Every scenario, in the order of the systems in README.md.
pub const SCENARIOS: &[Scenario] =
    &[libvirt::SCENARIO, lxc::SCENARIO, qdhcp::SCENARIO, failover::SCENARIO, cni::SCENARIO];

/// Those that need another kernel than this machine's: `cargo xtask scenario` boots one for them.
pub const EMULATED: &[Scenario] = &[vhost_net::SCENARIO, cni_vlan::SCENARIO];

impl Scenario {
    /// Plays it, and tells what came of it.
    pub fn tell(&self) -> Story {
        let mut acts = Vec::new();
        let outcome = (self.play)(&mut acts).and_then(|()| cgroup::none_is_left());
        let failure = outcome.err().map(|error| format!("{error:#}"));
        Story { name: self.name, title: self.title, acts, failure }
    }

    /// The packages that neither this machine nor the unpacked ones have.
    pub fn lacking(&self) -> impl Iterator<Item = &'static str> {
        let unpacked = host::unpacked().ok();
        let is_here = move |file: &str| {
            let unpacked = unpacked.as_ref().map(|root| root.join(file.trim_start_matches('/')));
            Path::new(file).exists() || unpacked.is_some_and(|file| file.exists())
        };
        let packages = self.packages.iter();
        packages.filter(move |(_, file)| !is_here(file)).map(|(package, _)| *package)
    }
}
