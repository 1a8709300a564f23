//! Which processes hold programs in a network namespace, so that what a dead one left can be told from
//! what a live one uses.
//!
//! A process that attaches for as long as it lives binds a socket to an abstract name, with the
//! program's id. Such a name is seen in this namespace only, from every container, and the kernel
//! removes it with the process, however that ends. Anybody can bind a name: a claim is believed if the
//! process that has the socket may change the network, or if it cannot be looked at.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
};

/// What the names begin with. They read `fixer-run-PROGRAM-PID-NUMBER`; the number makes room beside a
/// name that somebody else has bound.
const PREFIX: &str = "fixer-run-";

/// How many names are tried.
const TRIES: u32 = 64;

/// The sockets of a namespace, by their names.
const SOCKETS: &str = "/proc/thread-self/net/unix";

/// A program is in use, until this is dropped or the process ends.
#[derive(Debug)]
pub struct Claim {
    /// The program's id.
    pub program: u32,
    _socket: UnixDatagram,
}

impl Claim {
    /// Claims a program, in the calling thread's namespace.
    pub fn on(program: u32) -> io::Result<Self> {
        let pid = std::process::id();
        let mut number = 0;
        loop {
            let name = format!("{PREFIX}{program}-{pid}-{number}");
            match UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && number < TRIES => {
                    number += 1;
                }
                socket => return Ok(Self { program, _socket: socket? }),
            }
        }
    }
}

/// The ids of the programs that are claimed in the calling thread's namespace, with that of the process.
pub fn claims() -> io::Result<BTreeMap<u32, u32>> {
    let sockets = fs::read(SOCKETS)?;
    let lines = sockets.split(|byte| *byte == b'\n');
    let said = lines.filter_map(|line| said(str::from_utf8(line).ok()?));
    Ok(said.filter_map(|said| Some((said.program, said.holder()?))).collect())
}

/// What a name says.
struct Said<'a> {
    program: u32,
    pid: u32,
    inode: &'a str,
}

fn said(line: &str) -> Option<Said<'_>> {
    let (fields, name) = line.split_once(" @")?;
    let mut numbers = name.strip_prefix(PREFIX)?.split('-');
    let program = numbers.next()?.parse().ok()?;
    let pid = numbers.next()?.parse().ok()?;
    Some(Said { program, pid, inode: fields.split_whitespace().next_back()? })
}

impl Said<'_> {
    /// The process that has the socket, as it is called from here. `None`: it may change nothing.
    fn holder(&self) -> Option<u32> {
        let is_seen = self.has_socket(self.pid);
        if is_seen == Some(true) {
            return may_change(self.pid).then_some(self.pid);
        }
        // It calls itself otherwise, for it is in a container; or it lies.
        let everyone = fs::read_dir("/proc").ok()?.flatten();
        let mut pids = everyone.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        match pids.find(|pid| self.has_socket(*pid) == Some(true)) {
            Some(pid) => may_change(pid).then_some(pid),
            // Who it says it is cannot be looked at, and nobody else has it.
            None => is_seen.is_none().then_some(self.pid),
        }
    }

    /// Whether a process has the socket; `None` if that cannot be seen.
    fn has_socket(&self, pid: u32) -> Option<bool> {
        let socket = format!("socket:[{}]", self.inode);
        let is_hidden = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
        let descriptors = match fs::read_dir(format!("/proc/{pid}/fd")) {
            Ok(descriptors) => descriptors,
            Err(error) => return if is_hidden(&error) { None } else { Some(false) },
        };
        let mut is_seen = true;
        for descriptor in descriptors.flatten() {
            match fs::read_link(descriptor.path()) {
                Ok(target) if *target == *socket => return Some(true),
                Err(error) if is_hidden(&error) => is_seen = false,
                _ => {}
            }
        }
        is_seen.then_some(false)
    }
}

/// Whether a process may change the network, by the capabilities that it has.
fn may_change(pid: u32) -> bool {
    const CAP_NET_ADMIN: u32 = 12;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .is_some_and(|capabilities| capabilities & 1 << CAP_NET_ADMIN != 0)
}

/// The abstract names that are bound in the calling thread's namespace, and can be read.
pub fn names() -> io::Result<BTreeSet<String>> {
    let sockets = fs::read(SOCKETS)?;
    let lines = sockets.split(|byte| *byte == b'\n');
    let names = lines.filter_map(|line| Some(str::from_utf8(line).ok()?.split_once(" @")?.1));
    Ok(names.map(str::to_owned).collect())
}

/// Whether somebody has bound an abstract name in the calling thread's namespace.
pub fn is_held(name: &str) -> io::Result<bool> {
    Ok(names()?.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_program_and_process() {
        let line = "0000000000000000: 00000002 00000000 00000000 0002 01 4711 @fixer-run-12-345-0";
        let said = said(line).unwrap();
        assert_eq!((said.program, said.pid, said.inode), (12, 345, "4711"));
        assert!(super::said("0: 2 0 0 2 1 4711 @fixer-run-12").is_none());
        assert!(super::said("0: 2 0 0 2 1 4711 /run/fixer-run-12-345-0").is_none());
    }
}
