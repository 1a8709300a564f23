//! Which processes hold programs in a network namespace, so that what a dead one left can be told from
//! what a live one uses.
//!
//! A process that attaches for as long as it lives binds a socket to an abstract name, with the
//! program's id and its own. Such a name is seen in this namespace only, from every container, and the
//! kernel removes it with the process, however that ends.

use std::{
    collections::BTreeMap,
    fs, io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
};

/// What the names begin with. They read `fixer-run-PROGRAM-PID`.
const PREFIX: &str = "fixer-run-";

/// The sockets of a namespace, by their names.
const SOCKETS: &str = "/proc/thread-self/net/unix";

/// A program is in use, until this is dropped or the process ends.
#[derive(Debug)]
pub struct Claim(#[expect(dead_code, reason = "it is held, and never read")] UnixDatagram);

impl Claim {
    /// Claims a program, in the calling thread's namespace.
    pub fn on(program: u32) -> io::Result<Self> {
        let name = format!("{PREFIX}{program}-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name)?;
        UnixDatagram::bind_addr(&address).map(Self)
    }
}

/// The ids of the programs that are claimed in the calling thread's namespace, with that of the process.
pub fn claims() -> io::Result<BTreeMap<u32, u32>> {
    Ok(fs::read_to_string(SOCKETS)?.lines().filter_map(claim).collect())
}

/// Whether a process holds an abstract name in the calling thread's namespace.
pub fn is_held(name: &str) -> io::Result<bool> {
    let sockets = fs::read_to_string(SOCKETS)?;
    Ok(sockets.lines().filter_map(|line| line.split_once(" @")).any(|(_, held)| held == name))
}

fn claim(line: &str) -> Option<(u32, u32)> {
    let (_, name) = line.split_once(" @")?;
    let (program, pid) = name.strip_prefix(PREFIX)?.split_once('-')?;
    Some((program.parse().ok()?, pid.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_seen_while_it_is_held() {
        let program = u32::MAX - std::process::id();
        let held = Claim::on(program).unwrap();
        assert_eq!(claims().unwrap().get(&program), Some(&std::process::id()));
        assert!(Claim::on(program).is_err());
        drop(held);
        assert_eq!(claims().unwrap().get(&program), None);
    }
}
