//! One pair, played on every wire, without fixer and with it.

use std::time::Duration;

use anyhow::{Result, bail};
use fixer_user::lab::{scene::GUEST, strict};

use super::{
    Pair,
    clients::Kind,
    observer::{self, Seen},
    program::Programs,
    servers::Sums,
    stage::Stage,
    wire::Wire,
};
use crate::command::on_bridge;

/// How long a server may take to listen, and a client to get a lease.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long a client is watched that should get no lease. With fixer one takes a second or two.
const ENOUGH: Duration = Duration::from_secs(4);

/// The strict client's hardware address.
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x77];

/// What came of a pair.
#[derive(Debug)]
pub struct Trial {
    /// Who played.
    pub pair: Pair,
    /// What came of it on each wire.
    pub wires: Vec<(Wire, Halves)>,
}

/// What came of a pair on one wire.
#[derive(Clone, Debug)]
pub struct Halves {
    /// Without fixer.
    pub without: Half,
    /// With fixer.
    pub with: Half,
}

/// What came of one half.
#[derive(Clone, Debug, Default)]
pub struct Half {
    /// Whether the client says that it has a lease.
    pub lease: bool,
    /// What the observer saw beside it.
    pub seen: Seen,
    /// What was said, by the client and then by the server.
    pub said: Vec<String>,
}

/// Whether the fault keeps a pair from a lease on this wire.
pub fn needs_fixer(pair: Pair, wire: Wire) -> bool {
    let drops = match wire {
        Wire::Veth => pair.client.is_strict(),
        Wire::Finished => false,
        Wire::Copied => true,
    };
    drops && pair.server.sums == Sums::Kernel
}

/// Plays on every wire. `fixer` is what fixer is started with.
pub fn play(programs: &Programs, pair: Pair, fixer: &[&str]) -> Result<Trial> {
    let on = |wire| -> Result<(Wire, Halves)> {
        let without = half(programs, pair, wire, None)?;
        let with = half(programs, pair, wire, Some(fixer))?;
        Ok((wire, Halves { without, with }))
    };
    Ok(Trial { pair, wires: Wire::ALL.into_iter().map(on).collect::<Result<_>>()? })
}

fn half(programs: &Programs, pair: Pair, wire: Wire, fixer: Option<&[&str]>) -> Result<Half> {
    let stage = Stage::set(wire)?;
    let _fixer = fixer.map(|arguments| on_bridge(&stage.host, arguments)).transpose()?;
    let recipe = &pair.server.recipe;
    let mut server = programs.start(&stage.host, recipe)?;
    if !server.says(recipe.says, PATIENCE) {
        bail!("{} does not listen; it said {:#?}", pair.server.name, server.said());
    }
    let patience = if fixer.is_none() && needs_fixer(pair, wire) { ENOUGH } else { PATIENCE };
    let (lease, mut said) = match &pair.client.kind {
        Kind::Strict => {
            let asked = strict::ask(&stage.guest, GUEST, MAC, patience)?;
            (asked.lease.is_some(), Vec::new())
        }
        Kind::Program(recipe) => {
            let mut client = programs.start(&stage.guest, recipe)?;
            (client.says(recipe.says, patience), client.said())
        }
    };
    said.extend(server.said());
    Ok(Half { lease, seen: observer::look(&stage.observer)?, said })
}
