//! The scene of the fault for both protocols: a bridge with an address of each, and a guest.
//!
//! Nobody else is on it, so nobody waits to see whether an address is used already (RFC 4862,
//! section 5.4), which takes a second or two and keeps servers from answering.

use std::{
    fs,
    net::{IpAddr, Ipv6Addr},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use fixer_user::{
    lab::{
        link,
        packet::{PacketSocket, wait_until_open},
        scene::{BRIDGE, GUEST, PORT, Scene},
    },
    net::netns::NetNs,
};

use super::wire::{Copier, Wire};
use crate::command::turn_off;

/// The server's address in DHCPv6.
const SERVER: Ipv6Addr = Ipv6Addr::new(0xfd00, 3, 0, 0, 0, 0, 0, 1);

/// How long addresses may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// `IFA_F_TENTATIVE` (linux/if_addr.h): nobody may use the address yet.
const TENTATIVE: u32 = 0x40;

/// A bridge that forwards, and a guest behind it.
#[derive(Debug)]
pub struct Stage {
    /// Where the bridge and the server are.
    pub host: NetNs,
    /// Where the client is.
    pub guest: NetNs,
    /// Hears everything at the guest's interface.
    pub observer: PacketSocket,
    _copier: Option<Copier>,
}

impl Stage {
    /// Makes everything, and waits until it can be used.
    pub fn set(wire: Wire) -> Result<Self> {
        let Scene { host, guest } = Scene::new().context("the scene cannot be made")?;
        let (guest, _copier) = match wire {
            Wire::Veth => (guest, None),
            Wire::Finished => {
                turn_off(&host, PORT, "tx")?;
                (guest, None)
            }
            Wire::Copied => beyond(&guest).map(|(guest, copier)| (guest, Some(copier)))?,
        };
        use_addresses_at_once(&host, BRIDGE)?;
        link::address(&host, BRIDGE, IpAddr::V6(SERVER), 64)?;
        let observer = ready(&host, &guest)?;
        wait_for_addresses(&host, BRIDGE, 2)?;
        Ok(Self { host, guest, observer, _copier })
    }

    /// Adds another guest behind a port of this name, and waits until it can be used.
    pub fn another_guest(&self, port: &str) -> Result<NetNs> {
        let guest = NetNs::scratch("guest")?;
        link::veth(&self.host, port, &guest, GUEST)?;
        link::enslave(&self.host, port, BRIDGE)?;
        ready(&self.host, &guest)?;
        Ok(guest)
    }
}

/// Waits until a guest is reached from the bridge and has its address. Hands over who heard of it.
fn ready(host: &NetNs, guest: &NetNs) -> Result<PacketSocket> {
    use_addresses_at_once(guest, GUEST)?;
    let observer = PacketSocket::open(guest, GUEST)?;
    wait_until_open(&PacketSocket::open(host, BRIDGE)?, &observer)?;
    wait_for_addresses(guest, GUEST, 1)?;
    Ok(observer)
}

/// Puts a copier where the guest was, and a guest behind it.
fn beyond(between: &NetNs) -> Result<(NetNs, Copier)> {
    const FAR: &str = "far0";
    let guest = NetNs::scratch("guest")?;
    link::veth(&guest, GUEST, between, FAR)?;
    // The guest's own packets must not be left partial: nobody would finish them either.
    turn_off(&guest, GUEST, "tx")?;
    let copier = Copier::start(between, GUEST, FAR)?;
    Ok((guest, copier))
}

/// Makes the interface take IPv6 addresses without asking around, also the one that it has taken.
fn use_addresses_at_once(netns: &NetNs, interface: &str) -> Result<()> {
    netns.run(|| {
        for (setting, value) in [("disable_ipv6", "1"), ("accept_dad", "0"), ("disable_ipv6", "0")]
        {
            let path = format!("/proc/sys/net/ipv6/conf/{interface}/{setting}");
            fs::write(&path, value)
                .with_context(|| format!("{path} cannot be set: is IPv6 switched off?"))?;
        }
        Ok(())
    })?
}

/// Waits until the interface has this many IPv6 addresses that can be used.
fn wait_for_addresses(netns: &NetNs, interface: &str, count: usize) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let table = netns.run(|| fs::read_to_string("/proc/thread-self/net/if_inet6"))??;
        if usable(&table, interface) == count {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{interface} does not get its addresses: {table}");
        thread::sleep(Duration::from_millis(5)); // poll: procfs tells nobody when it changes
    }
}

/// How many addresses an interface can use. A row has address, index, prefix length, scope, flags
/// and name, numbers in hexadecimal.
fn usable(table: &str, interface: &str) -> usize {
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let usable = |row: &Vec<&str>| match row[..] {
        [_, _, _, _, flags, name] => {
            let flags = u32::from_str_radix(flags, 16).unwrap_or(TENTATIVE);
            name == interface && flags & TENTATIVE == 0
        }
        _ => false,
    };
    rows.filter(usable).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tentative_address_cannot_be_used() {
        let table = "fe800000000000008c38cdfffe148967 02 40 20 c0     eth0\n\
                     fd000003000000000000000000000001 03 40 00 80      br0\n\
                     fe8000000000000080ed59fffec255ae 03 40 20 80      br0\n";
        assert_eq!(usable(table, "eth0"), 0);
        assert_eq!(usable(table, "br0"), 2);
        assert_eq!(usable("", "br0"), 0);
    }
}
