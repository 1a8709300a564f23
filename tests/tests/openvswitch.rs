//! Behind Open vSwitch's datapath in the kernel: replies to a guest on another port, fixed where they
//! leave the namespace of dnsmasq, and at the port where they come into the switch.
//!
//! Run on the kernels of `cargo xtask vm`, for not every machine's kernel has the datapath. The switch
//! has no daemon: its flows are put there by hand.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fixer_common::{abi::Hook, rule::Rule};
use fixer_tests::{
    command::{Running, output, program},
    kernel::{load, require_root},
};
use fixer_user::{
    bpf::attach::Wish,
    lab::{
        link,
        packet::{PacketSocket, Received},
        reply::{self, PARTIAL},
    },
    net::netns::NetNs,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// The guest's interface.
const GUEST: &str = "eth0";

/// A network node, a network's namespace, and a guest on it.
struct Node {
    host: NetNs,
    network: NetNs,
    guest: PacketSocket,
}

impl Node {
    /// With a switch that has the guest at port 1, and sends there what comes in at port 2.
    fn new() -> Result<Self> {
        require_root()?;
        let [host, network, guest] = ["host", "network", "guest"].map(NetNs::scratch);
        let (host, network, guest) = (host?, network?, guest?);
        link::veth(&host, "tap-vm0", &guest, GUEST)?;
        dpctl(&host, "add-dp dp0")?;
        dpctl(&host, "add-if dp0 tap-vm0")?;
        dpctl(&host, "add-flow dp0 in_port(2),eth(),eth_type(0x0800),ipv4() 1")?;
        let guest = PacketSocket::open(&guest, GUEST)?;
        Ok(Self { host, network, guest })
    }

    /// What becomes of a partial reply that leaves the namespace through this interface.
    fn reply(&self, interface: &str) -> Result<Received> {
        let mut frame = reply::frame(&[7; 300]);
        reply::make_partial(&mut frame);
        PacketSocket::open(&self.network, interface)?.send(&frame, Some(PARTIAL))?;
        let is_it = |received: &Received| received.bytes.len() == frame.len();
        self.guest.receive(PATIENCE, is_it)?.context("the reply did not arrive")
    }

    /// Whether such a reply is mended on its way by fixer at this hook, and is not without it.
    fn is_mended(&self, interface: &str, at: (&NetNs, &str, Hook)) -> Result<()> {
        let (netns, place, hook) = at;
        for wish in [Wish::Auto, Wish::Clsact] {
            let arrived = self.reply(interface)?;
            ensure!(arrived.partial && !reply::verifies(&arrived.bytes), "no fault: {arrived:?}");
            let mut object = load(&[Rule::DHCP])?;
            let attachment = netns.run(|| object.attach(place, hook, wish))??;
            let arrived = self.reply(interface)?;
            ensure!(!arrived.partial, "{place}, {wish:?}: still partial: {arrived:?}");
            ensure!(arrived.bytes == reply::frame(&[7; 300]), "{place}, {wish:?}: {arrived:?}");
            netns.run(|| object.detach(attachment))??;
        }
        Ok(())
    }
}

fn dpctl(netns: &NetNs, arguments: &str) -> Result<()> {
    output(netns, "ovs-dpctl", &arguments.split(' ').collect::<Vec<_>>()).map(drop)
}

/// As neutron makes it with `ovs_use_veth`.
#[test]
fn a_pair_is_fixed_at_either_end() -> Result<()> {
    const OUTSIDE: &str = "tap3fa85f64-57";
    const INSIDE: &str = "ns-3fa85f64-57";
    let node = Node::new()?;
    link::veth(&node.host, OUTSIDE, &node.network, INSIDE)?;
    dpctl(&node.host, &format!("add-if dp0 {OUTSIDE}"))?;
    node.is_mended(INSIDE, (&node.network, INSIDE, Hook::Egress))?;
    node.is_mended(INSIDE, (&node.host, OUTSIDE, Hook::Ingress))
}

/// As neutron makes it by default: a port of the switch is moved into the namespace.
#[test]
fn an_internal_port_is_fixed_in_its_namespace() -> Result<()> {
    const INSIDE: &str = "tap3fa85f64-57";
    let node = Node::new()?;
    dpctl(&node.host, &format!("add-if dp0 {INSIDE},type=internal"))?;
    let resident = Running::start(&node.network, program("sleep", &["1000"]))?;
    let pid = resident.pid().to_string();
    output(&node.host, "ip", &["link", "set", INSIDE, "netns", &pid])?;
    link::up(&node.network, INSIDE)?;
    node.is_mended(INSIDE, (&node.network, INSIDE, Hook::Egress))
}
