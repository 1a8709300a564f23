//! A guest behind a port of a bridge, with a client that verifies every checksum.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Error, Result};
use fixer_user::{
    lab::{
        link,
        strict::{self, Outcome},
    },
    net::netns::{NetNs, Spec},
};

/// The guest's interface.
const INTERFACE: &str = "eth0";

/// How long a client asks that gets nothing: three replies come in the meantime.
const SHORT: Duration = Duration::from_secs(4);

/// How long one may take that gets its lease.
const LONG: Duration = Duration::from_secs(20);

/// A namespace with one interface.
#[derive(Debug)]
pub struct Guest {
    netns: NetNs,
    mac: [u8; 6],
}

impl Guest {
    /// A guest whose interface's other end has this name in `host`, and is nobody's port yet. The last
    /// byte of its address is `number`.
    pub fn new(host: &NetNs, port: &str, number: u8) -> Result<Self> {
        let netns = NetNs::scratch("guest")?;
        link::veth(host, port, &netns, INTERFACE)
            .with_context(|| format!("the port {port} cannot be made"))?;
        Ok(Self { netns, mac: [2, 0, 0, 0, 0, number] })
    }

    /// The same as a port of a bridge.
    pub fn behind(host: &NetNs, bridge: &str, port: &str, number: u8) -> Result<Self> {
        let guest = Self::new(host, port, number)?;
        link::enslave(host, port, bridge)
            .with_context(|| format!("{port} cannot be a port of {bridge}"))?;
        Ok(guest)
    }

    /// A guest that is there already, such as a container, by the file of its namespace.
    pub fn inside(netns: &Path, number: u8) -> Result<Self> {
        let spec = netns.to_string_lossy().parse::<Spec>().map_err(Error::msg)?;
        Ok(Self { netns: NetNs::open(&spec)?, mac: [2, 0, 0, 0, 0, number] })
    }

    /// Asks for a lease for as long as it takes to see that there is none.
    pub fn ask_in_vain(&self) -> Result<Outcome> {
        self.ask_for(SHORT)
    }

    /// Asks for a lease, and waits until it comes.
    pub fn ask(&self) -> Result<Outcome> {
        self.ask_for(LONG)
    }

    /// Asks for a lease for so long, if it does not come before.
    pub fn ask_for(&self, patience: Duration) -> Result<Outcome> {
        Ok(strict::ask(&self.netns, INTERFACE, self.mac, patience)?)
    }
}
