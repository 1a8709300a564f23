//! Open vSwitch, as its database tells it.

use std::{fs, io};

use serde_json::Value;

use super::program;
use crate::net::netns::NetNs;

/// Where neutron's agent is told which bridge leads to which network.
const AGENT: &str = "/etc/neutron/plugins/ml2/openvswitch_agent.ini";

/// The VLAN of ports that neutron's agent has shut, or not come to yet.
pub const DEAD: u16 = 4095;

/// What there is of Open vSwitch.
#[derive(Clone, Debug, Default)]
pub struct Switches {
    /// Its bridges.
    pub bridges: Vec<String>,
    /// Which bridge leads to which network, and who says so.
    pub mappings: Vec<Mapping>,
    /// Interfaces that it could not have, and why.
    pub errors: Vec<(String, String)>,
    /// Ports in the VLAN of those that are shut.
    pub dead: Vec<String>,
    /// Whether what was asked for was done.
    pub is_served: bool,
}

/// A network and the bridge that leads to it.
#[derive(Clone, Debug)]
pub struct Mapping {
    /// The network.
    pub network: String,
    /// The bridge.
    pub bridge: String,
    /// Who says so.
    pub source: &'static str,
}

impl Switches {
    /// Asks the database. `None`: Open vSwitch is not here, or has never been started.
    pub fn read(netns: &NetNs) -> Option<io::Result<Self>> {
        let is_there = ["/run/openvswitch/db.sock", "/var/run/openvswitch/db.sock"]
            .iter()
            .any(|socket| fs::exists(socket).unwrap_or(false));
        if is_there { read(netns).transpose() } else { None }
    }
}

fn read(netns: &NetNs) -> io::Result<Option<Switches>> {
    let Some(root) = table(netns, "Open_vSwitch", "external_ids,next_cfg,cur_cfg") else {
        return Ok(None);
    };
    let mut switches = Switches { is_served: true, ..Switches::default() };
    for row in root? {
        if let [ids, wanted, done] = &row[..] {
            let mappings = ids[1].as_array().into_iter().flatten();
            let mappings = mappings.filter(|pair| pair[0] == "ovn-bridge-mappings");
            for pair in mappings {
                let source = "external_ids:ovn-bridge-mappings";
                switches.mappings.extend(mapped(pair[1].as_str().unwrap_or_default(), source));
            }
            switches.is_served &= wanted == done;
        }
    }
    let names = |row: &Vec<Value>| row.first()?.as_str().map(str::to_owned);
    if let Some(rows) = table(netns, "Bridge", "name") {
        switches.bridges = rows?.iter().filter_map(names).collect();
    }
    if let Some(rows) = table(netns, "Interface", "name,error") {
        switches.errors = rows?
            .iter()
            .filter_map(|row| Some((names(row)?, row.get(1)?.as_str()?.to_owned())))
            .collect();
    }
    if let Some(rows) = table(netns, "Port", "name,tag") {
        let is_dead = |row: &&Vec<Value>| row.get(1) == Some(&DEAD.into());
        switches.dead = rows?.iter().filter(is_dead).filter_map(names).collect();
    }
    for line in fs::read_to_string(AGENT).unwrap_or_default().lines() {
        if let Some((key, value)) = line.split_once('=')
            && key.trim() == "bridge_mappings"
        {
            switches.mappings.extend(mapped(value.trim(), AGENT));
        }
    }
    Ok(Some(switches))
}

/// `physnet1:br-ex, physnet2 : br-data`.
fn mapped(given: &str, source: &'static str) -> Vec<Mapping> {
    let pairs = given.split(',').filter_map(|pair| pair.split_once(':'));
    pairs
        .map(|(network, bridge)| Mapping {
            network: network.trim().to_owned(),
            bridge: bridge.trim().to_owned(),
            source,
        })
        .collect()
}

/// The rows of a table. `None`: there is no program to ask.
fn table(netns: &NetNs, name: &str, columns: &str) -> Option<io::Result<Vec<Vec<Value>>>> {
    let columns = format!("--columns={columns}");
    let arguments = ["--timeout=3", "--format=json", &columns, "list", name];
    let rows = |listing: String| {
        let listing: Value = serde_json::from_str(&listing).map_err(io::Error::other)?;
        let rows = listing["data"].as_array().into_iter().flatten();
        Ok(rows.filter_map(|row| row.as_array().cloned()).collect())
    };
    Some(program::ask(netns, "ovs-vsctl", &arguments)?.and_then(rows))
}
