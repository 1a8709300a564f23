//! Everything that the checks look at, read once.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use caps::{CapSet, Capability};

use super::{
    finding::{Likelihood, Source, Unseen},
    heard::Heard,
    network::Network,
    processes::{Census, Inode, Role, Server, census},
    switches::Switches,
};
use crate::{
    bpf::attach::Wish,
    cli::Select,
    cmd::checks::{every_name_will_do, namespaces, quoted},
    net::{
        inspect::{Interface, number_of},
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
    /// The VLAN there that it serves, with tags: that of a VLAN device.
    pub vlan: Option<u16>,
    /// Whether the server is there for this interface; otherwise nothing tells which it is there for.
    pub is_sure: bool,
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
        if is_asked && networks.iter().all(|network| network.selected.is_empty()) {
            let globs = quoted(selection.patterns.iter());
            let places: Vec<_> = networks.iter().map(|it| format!("'{}'", it.netns)).collect();
            bail!("no interface matches {globs} in the network namespace {}", places.join(", "));
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

    /// How likely a fault of a service can be said to be. Where nothing tells that a server is there
    /// for an interface, there may be nothing to be at fault: that is no alarm unless somebody asked.
    pub fn at_most(&self, serving: &Serving, likelihood: Likelihood) -> Likelihood {
        match (serving.is_sure, self.is_asked) {
            (true, _) => likelihood,
            (false, true) => likelihood.max(Likelihood::Possible),
            (false, false) => Likelihood::Note,
        }
    }

    /// The namespace that a server sends from, and the interface there.
    pub fn origin(&self, serving: &Serving) -> Option<(&Network, &Interface)> {
        let network = self.networks.get(serving.network)?;
        Some((network, network.interface(serving.ifindex)?))
    }

    /// What a server is for those whom it serves.
    pub fn role(&self, serving: &Serving) -> Role {
        let role = self.origin(serving).and_then(|(_, interface)| {
            let server = self.server(serving)?;
            Some(server.role(interface))
        });
        role.unwrap_or(Role::Server)
    }

    /// The interface of a bridge that a server is behind: the bridge itself, or a port of it.
    pub fn end(&self, serving: &Serving) -> Option<&Interface> {
        self.networks.get(serving.serves.0)?.interface(serving.port.unwrap_or(serving.serves.1))
    }

    /// How a server is called in findings.
    pub fn label(&self, serving: &Serving) -> String {
        let server = self.server(serving);
        let process = server.and_then(|server| server.process.as_ref());
        let name = process.map_or_else(|| "somebody".to_owned(), |process| process.label());
        let Some((network, interface)) = self.origin(serving) else { return name };
        let told = server.and_then(|server| server.told.as_ref());
        let to = told.and_then(|told| told.relay_of(interface)?.server);
        let role = match (self.role(serving), to) {
            (Role::Relay, Some(to)) => format!(", a relay to {to},"),
            (Role::Relay, None) => ", a relay,".to_owned(),
            (Role::Proxy, _) => ", a proxy,".to_owned(),
            (Role::Server | Role::Idle, _) => String::new(),
        };
        format!("{name}{role} on {}", network.place(&interface.name))
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
                let is_joined = |it: &Interface| !self.joints(it, (&netns, &interfaces)).is_empty();
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
            let serves = self.census.servers[server].serves(interface);
            if serves == Some(false) {
                continue;
            }
            let (ifindex, is_sure) = (interface.ifindex, serves.is_some());
            let serving = |serves, port, vlan| Serving {
                server,
                network,
                ifindex,
                serves,
                port,
                vlan,
                is_sure,
            };
            if origin.selected.contains(&ifindex) {
                found.push(serving((network, ifindex), None, None));
            }
            let vlan = interface.tagged.map(|tagged| tagged.vlan);
            let below = interface.tagged.filter(|tagged| tagged.is_on_bridge);
            let below = below.and_then(|tagged| tagged.lower);
            if let Some(bridge) = below.filter(|bridge| origin.selected.contains(bridge)) {
                found.push(serving((network, bridge), None, vlan));
            }
            let joints = self.joints(interface, (&origin.netns, &origin.interfaces)).into_iter();
            found.extend(joints.map(|(bridge, port)| serving(bridge, Some(port), vlan)));
        }
        for serving in found {
            // One process may have several sockets there.
            let process = |serving: &Serving| {
                let server = &self.census.servers[serving.server];
                server.process.as_ref().map(|process| process.pid)
            };
            let is_same = |other: &&mut Serving| {
                (other.serves, other.ifindex) == (serving.serves, serving.ifindex)
                    && process(other) == process(&serving)
            };
            match self.serving.iter_mut().find(is_same) {
                // The socket that tells which interface it is there for knows better.
                Some(known) if !known.is_sure => *known = serving,
                Some(_) => {}
                None => self.serving.push(serving),
            }
        }
    }

    /// The bridges that are looked at and that frames get to from an interface, through a veth pair of
    /// which it is the other end, or of which the other end is a port of it. With the port there.
    fn joints(
        &self,
        interface: &Interface,
        (netns, beside): (&NetNs, &[Interface]),
    ) -> Vec<((usize, u32), u32)> {
        let own = [Some(interface.ifindex), interface.tagged.and_then(|tagged| tagged.lower)];
        let is_end = |end: &&Interface| {
            let is_own = |index: Option<u32>| index.is_some() && own.contains(&index);
            end.kind.as_deref() == Some("veth")
                && (is_own(Some(end.ifindex)) || is_own(end.controller))
        };
        let joint = |end: &Interface| {
            self.networks.iter().enumerate().find_map(|(at, network)| {
                let port = network.interface(end.joined?)?;
                let bridge = port.controller.filter(|bridge| network.selected.contains(bridge))?;
                let is_back = end.controller == Some(bridge) && is_same(&network.netns, netns);
                (is_pair((netns, end), (&network.netns, port)) && !is_back)
                    .then_some(((at, bridge), port.ifindex))
            })
        };
        beside.iter().filter(is_end).filter_map(joint).collect()
    }
}

fn is_same(one: &NetNs, other: &NetNs) -> bool {
    one.identity().is_ok_and(|one| other.identity().is_ok_and(|other| one == other))
}

/// Whether two interfaces are the ends of one veth pair. Every namespace counts its interfaces from 1,
/// so an index that fits is no proof.
fn is_pair((here, end): (&NetNs, &Interface), (there, port): (&NetNs, &Interface)) -> bool {
    let is_there = || number_of(there, here).map_or(true, |number| number == port.joined_in);
    port.kind.as_deref() == Some("veth")
        && port.joined == Some(end.ifindex)
        && match is_same(here, there) {
            true => end.joined_in.is_none() && port.joined_in.is_none(),
            false => end.joined_in.is_some() && port.joined_in.is_some() && is_there(),
        }
}

/// The namespaces that `ip netns` named.
fn names() -> BTreeMap<Inode, Spec> {
    let named = named().unwrap_or_default().into_iter();
    named.filter_map(|spec| Some((spec.present()?.1, spec))).collect()
}
