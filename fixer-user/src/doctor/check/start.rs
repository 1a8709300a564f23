//! How the server of a bridge is started.

use std::{net::Ipv4Addr, path::Path};

use crate::{
    doctor::{network::Network, remedy::Remedy},
    net::inspect::Interface,
};

/// Who makes bridges that are called so, and their servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Libvirt,
    Lxc,
    Lxd,
    Incus,
    Neutron,
}

/// The names: their starts, and whether a number is to follow.
const OWNERS: [(&str, bool, Owner); 8] = [
    ("virbr", true, Owner::Libvirt),
    ("lxcbr", true, Owner::Lxc),
    ("lxdbr", true, Owner::Lxd),
    ("incusbr", true, Owner::Incus),
    ("qbr", false, Owner::Neutron),
    ("brq", false, Owner::Neutron),
    ("br-int", false, Owner::Neutron),
    ("ns-", false, Owner::Neutron),
];

fn owner(name: &str) -> Option<Owner> {
    let is_it = |(start, is_numbered, _): &&(&str, bool, Owner)| {
        let is_number = |rest: &str| rest.bytes().all(|digit| digit.is_ascii_digit());
        name.strip_prefix(start)
            .is_some_and(|rest| !is_numbered || (!rest.is_empty() && is_number(rest)))
    };
    OWNERS.iter().find(is_it).map(|(_, _, owner)| *owner)
}

/// Whether the server of an interface, as it is called, is one that this host has.
pub fn is_served_here(name: &str) -> bool {
    owner(name).is_some_and(|owner| owner != Owner::Neutron)
}

/// How it is started. Where the bridge is there and the server is not, its owner believes that both are.
pub fn start(network: &Network, interface: &Interface) -> Remedy {
    let is_there = |path: &str| Path::new(path).exists();
    match owner(&interface.name) {
        Some(Owner::Libvirt) if is_there("/run/libvirt/virtnetworkd-sock") => {
            Remedy::from("systemctl restart virtnetworkd").remark("guests go on")
        }
        Some(Owner::Libvirt) => Remedy::from("systemctl restart libvirtd").remark("guests go on"),
        Some(Owner::Lxc) => "systemctl restart lxc-net".into(),
        Some(Owner::Lxd) if is_there("/var/snap/lxd") => "systemctl reload snap.lxd.daemon".into(),
        Some(Owner::Lxd) => "systemctl restart lxd".into(),
        Some(Owner::Incus) => "systemctl restart incus".into(),
        Some(Owner::Neutron) => Remedy::from("systemctl restart neutron-dhcp-agent")
            .remark("on the node that has this network's DHCP agent"),
        None => some(network, interface),
    }
}

/// Some server, for a bridge that is nobody's.
fn some(network: &Network, interface: &Interface) -> Remedy {
    let name = &*interface.name;
    let Some([first, last]) = range(interface) else {
        return network
            .command("ip addr add ADDRESS/24 dev {}", &[name])
            .remark("an address of its network, and then look again");
    };
    network
        .command(
            "dnsmasq --port=0 --interface={} --bind-interfaces --dhcp-range={},{}",
            &[name, &first.to_string(), &last.to_string()],
        )
        .remark("or the server that belongs to it")
}

/// Addresses that may be given to guests of an interface: of the halves of its network the one that it is
/// not in itself. `None`: it has none to spare.
pub fn range(interface: &Interface) -> Option<[Ipv4Addr; 2]> {
    interface.addresses.iter().find_map(|(own, len)| {
        let size = 1u32.checked_shl(32 - u32::from(*len)).filter(|size| *size >= 4)?;
        let first = own.to_bits() & !(size - 1);
        let middle = first + size / 2;
        let range = match own.to_bits() < middle {
            true => [middle, first + (size - 2)],
            false => [first + 1, middle - 1],
        };
        Some(range.map(Ipv4Addr::from_bits))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_away_is_in_the_network_and_not_the_servers() {
        let range = |address: [u8; 4], len| {
            let addresses = vec![(address.into(), len)];
            let range = range(&Interface { addresses, ..Interface::default() });
            range.map(|range| range.map(|at| at.to_string()).join("-"))
        };
        assert_eq!(range([10, 0, 3, 1], 24).as_deref(), Some("10.0.3.128-10.0.3.254"));
        assert_eq!(range([10, 0, 3, 254], 24).as_deref(), Some("10.0.3.1-10.0.3.127"));
        assert_eq!(range([10, 0, 3, 1], 30).as_deref(), Some("10.0.3.2-10.0.3.2"));
        assert_eq!(range([10, 0, 3, 1], 8).as_deref(), Some("10.128.0.0-10.255.255.254"));
        assert_eq!(range([10, 0, 3, 1], 31), None);
        assert_eq!(range([10, 0, 3, 1], 32), None);
        assert_eq!(range([10, 0, 3, 1], 0), None);
    }

    #[test]
    fn a_name_tells_whose_a_bridge_is() {
        assert_eq!(owner("virbr0"), Some(Owner::Libvirt));
        assert_eq!(owner("virbr12"), Some(Owner::Libvirt));
        assert_eq!(owner("incusbr0"), Some(Owner::Incus));
        assert_eq!(owner("qbr3fa85f64-57"), Some(Owner::Neutron));
        assert_eq!(owner("virbr"), None);
        assert_eq!(owner("virbr0-nic"), None);
        assert_eq!(owner("br0"), None);
        assert!(is_served_here("lxcbr0") && !is_served_here("qbr0") && !is_served_here("br0"));
    }
}
