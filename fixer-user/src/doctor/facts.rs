//! Everything that the checks look at, read once.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use caps::{CapSet, Capability};

use super::{
    finding::{Source, Unseen},
    heard::Heard,
    network::Network,
    processes::{Bound, Census, Inode, Server, census},
    switches::Switches,
};
use crate::{
    bpf::attach::Wish,
    cli::Select,
    cmd::checks::{every_name_will_do, namespaces},
    net::{
        inspect::Interface,
        links,
        named::named,
        netns::{NetNs, Spec},
    },
    proof::{Proof, prove},
};

/// What there is on this host.
pub struct Facts {
    /// The namespaces: those that were selected first, then those from which somebody serves them.
    pub networks: Vec<Network>,
    /// Whether the user named interfaces; otherwise every bridge is looked at.
    pub is_asked: bool,
    /// The processes that matter.
    pub census: Census,
    /// Who serves whom.
    pub serving: Vec<Serving>,
    /// Open vSwitch, if it is here.
    pub switches: Option<Switches>,
    /// Whether the fix holds on this kernel, if it could be tried.
    pub proof: Option<Proof>,
    /// What passed while we listened.
    pub heard: Option<Heard>,
    /// What could not be read.
    pub unseen: Vec<Unseen>,
}

/// A server, and an interface from which it serves guests that are looked at.
#[derive(Clone, Debug)]
pub struct Serving {
    /// The server, by its place in the census.
    pub server: usize,
    /// The namespace that it sends from, by its place in the networks.
    pub network: usize,
    /// The interface there that it sends through.
    pub ifindex: u32,
    /// The interface that is looked at: namespace and index. The same, or a bridge that the other
    /// end of a veth pair is a port of.
    pub serves: (usize, u32),
    /// That port.
    pub port: Option<u32>,
}

impl Facts {
    /// Reads them. Fails where the user named what is not there.
    pub fn gather(select: &Select) -> Result<Self> {
        let selection = select.selection();
        let is_asked = !selection.patterns.is_empty();
        let mut unseen = Vec::new();
        let mut networks = Vec::new();
        for netns in namespaces(select)? {
            let listed = links::list(&netns)
                .with_context(|| format!("cannot list the interfaces of '{netns}'"))?;
            every_name_will_do(select, &netns, &listed)?;
            let mut network = Network::read(netns, &mut unseen);
            let means = |link: &&links::Link| {
                (!is_asked && link.is_bridge) || (link.is_ethernet() && selection.means(link))
            };
            network.selected = listed.iter().filter(means).map(|link| link.ifindex).collect();
            networks.push(network);
        }
        let census = census().unwrap_or_else(|error| {
            let what = format!("the processes of this host: {error}");
            unseen.push(Unseen { source: Source::Processes, what });
            Census::default()
        });
        let switches = NetNs::current().ok().and_then(|netns| Switches::read(&netns)).transpose();
        let switches = switches.unwrap_or_else(|error| {
            let what = format!("Open vSwitch: {error}; run as root");
            unseen.push(Unseen { source: Source::Switches, what });
            None
        });
        let proof = prove(Wish::Auto)
            .map_err(|error| {
                let what = format!("whether fixer works on this kernel: {error}");
                unseen.push(Unseen { source: Source::Kernel, what });
            })
            .ok();
        let serving = Vec::new();
        let mut facts =
            Self { networks, is_asked, census, serving, switches, proof, heard: None, unseen };
        facts.visit_servers();
        facts.tell_hidden();
        Ok(facts)
    }

    /// Says that processes were hidden, if that may have hidden a server or a guest. Who may look into
    /// every process finds a few that are shut to everybody.
    fn tell_hidden(&mut self) {
        let hidden = self.census.hidden;
        let is_privileged = caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_PTRACE);
        let is_orphan =
            |serving: &Serving| self.server(serving).is_some_and(|it| it.process.is_none());
        let matters = !is_privileged.unwrap_or(false) || self.serving.iter().any(is_orphan);
        if hidden > 0 && matters {
            let what = format!(
                "the sockets of {hidden} other users' processes, so who serves DHCP and which guests \
                 use vhost-net: Permission denied; run as root"
            );
            self.unseen.push(Unseen { source: Source::Processes, what });
        }
    }

    /// Whether something could not be read from one of these.
    pub fn misses(&self, sources: &[Source]) -> bool {
        self.unseen.iter().any(|unseen| sources.contains(&unseen.source))
    }

    /// The namespaces that are looked at.
    pub fn selected(&self) -> impl Iterator<Item = (usize, &Network)> {
        self.networks.iter().enumerate().filter(|(_, network)| !network.selected.is_empty())
    }

    /// Whether a namespace is looked at: one that was named, or from which somebody serves it.
    pub fn knows(&self, netns: Inode) -> bool {
        self.networks.iter().any(|network| network.inode == netns)
    }

    /// Who serves an interface that is looked at.
    pub fn servers_of(&self, network: usize, ifindex: u32) -> impl Iterator<Item = &Serving> {
        self.serving.iter().filter(move |serving| serving.serves == (network, ifindex))
    }

    /// The server of a service.
    pub fn server(&self, serving: &Serving) -> Option<&Server> {
        self.census.servers.get(serving.server)
    }

    /// The namespace that a server sends from, and the interface there.
    pub fn origin(&self, serving: &Serving) -> Option<(&Network, &Interface)> {
        let network = self.networks.get(serving.network)?;
        Some((network, network.interface(serving.ifindex)?))
    }

    /// How a server is called in findings.
    pub fn label(&self, serving: &Serving) -> String {
        let process = self.server(serving).and_then(|server| server.process.as_ref());
        let name = process.map_or_else(|| "somebody".to_owned(), |process| process.label());
        match self.origin(serving) {
            Some((network, interface)) => format!("{name} on {}", network.place(&interface.name)),
            None => name,
        }
    }

    /// Finds out who serves what, and looks into the namespaces from which others do.
    fn visit_servers(&mut self) {
        let names = names();
        for at in 0..self.census.servers.len() {
            let netns = self.census.servers[at].netns;
            let known = self.networks.iter().position(|network| network.inode == netns);
            let known = known.or_else(|| {
                let netns = self.open(netns, &names)?;
                // Most namespaces have nothing to do with what is looked at.
                let interfaces = crate::net::inspect::interfaces(&netns).ok()?;
                let is_joined = |interface: &Interface| self.joint(interface).is_some();
                interfaces.iter().any(is_joined).then(|| {
                    let network = Network::read(netns, &mut self.unseen);
                    self.networks.push(network);
                    self.networks.len() - 1
                })
            });
            if let Some(network) = known {
                self.find_services(at, network);
            }
        }
    }

    fn open(&self, inode: Inode, names: &BTreeMap<Inode, Spec>) -> Option<NetNs> {
        let pid = self.census.namespaces.get(&inode)?;
        let process = || format!("pid:{pid}").parse().ok();
        NetNs::open(&names.get(&inode).cloned().or_else(process)?).ok()
    }

    fn find_services(&mut self, server: usize, network: usize) {
        let (mut found, origin) = (Vec::new(), &self.networks[network]);
        for interface in &origin.interfaces {
            if !serves(&self.census.servers[server], interface) {
                continue;
            }
            let ifindex = interface.ifindex;
            if origin.selected.contains(&ifindex) {
                let serves = (network, ifindex);
                found.push(Serving { server, network, ifindex, serves, port: None });
            } else if let Some((serves, port)) = self.joint(interface) {
                found.push(Serving { server, network, ifindex, serves, port: Some(port) });
            }
        }
        for serving in found {
            // One process may have several sockets there.
            let process = |serving: &Serving| {
                let server = &self.census.servers[serving.server];
                server.process.as_ref().map(|process| process.pid)
            };
            let is_known = self.serving.iter().any(|other| {
                (other.serves, other.ifindex) == (serving.serves, serving.ifindex)
                    && process(other) == process(&serving)
            });
            if !is_known {
                self.serving.push(serving);
            }
        }
    }

    /// The bridge that is looked at and the port of it that an interface is the other end of.
    fn joint(&self, interface: &Interface) -> Option<((usize, u32), u32)> {
        if interface.kind.as_deref() != Some("veth") {
            return None;
        }
        self.networks.iter().enumerate().find_map(|(at, network)| {
            let port = network.interface(interface.joined?)?;
            let is_end =
                port.kind.as_deref() == Some("veth") && port.joined == Some(interface.ifindex);
            let bridge = port.controller.filter(|bridge| network.selected.contains(bridge))?;
            is_end.then_some(((at, bridge), port.ifindex))
        })
    }
}

/// Whether a server's socket takes requests from an interface.
fn serves(server: &Server, interface: &Interface) -> bool {
    let is_named = match &server.bound {
        Bound::All => interface.name != "lo",
        Bound::Named(names) => names.iter().any(|name| match name.strip_suffix('*') {
            Some(start) => interface.name.starts_with(start),
            None => interface.name == *name,
        }),
        Bound::Gone => false,
    };
    let address = server.address;
    let hears_broadcasts = address.is_unspecified() || address.is_broadcast();
    // A server with a packet socket has the other one for appearances.
    let is_there = hears_broadcasts
        || server.has_packet_socket && interface.addresses.iter().any(|(at, _)| *at == address);
    is_named && is_there
}

/// The namespaces that `ip netns` named.
fn names() -> BTreeMap<Inode, Spec> {
    let named = named().unwrap_or_default().into_iter();
    named.filter_map(|spec| Some((spec.present()?.1, spec))).collect()
}
