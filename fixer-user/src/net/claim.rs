//! Which processes hold programs in a network namespace, so that what a dead one left can be told from
//! what a live one uses.
//!
//! A process that attaches for as long as it lives binds a socket to an abstract name, with the
//! program's id. Such a name is seen in this namespace only, from every container, and the kernel
//! removes it with the process, however that ends. Anybody can bind a name: a claim is believed if the
//! process that has the socket may change the network. Where that process is not seen (procfs hides it,
//! or it is in another pid namespace), the socket itself shows who made it.

use std::{
    cell::LazyCell,
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _},
        linux::net::SocketAddrExt as _,
        unix::{
            fs::MetadataExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

use super::{netns::OWN, sealed};

/// What the names begin with. They read `fixer-run-PROGRAM-PID-NUMBER-SPACE`; the number makes room
/// beside a name that somebody else has bound, and `SPACE` is the pid namespace in which `PID` counts.
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
        let (pid, space) = (std::process::id(), pid_namespace()?);
        let mut number = 0;
        loop {
            let name = format!("{PREFIX}{program}-{pid}-{number}-{space}");
            match UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && number < TRIES => {
                    number += 1;
                }
                socket => {
                    let socket = socket?;
                    sealed::seal(&socket);
                    return Ok(Self { program, _socket: socket });
                }
            }
        }
    }
}

/// The ids of the programs that are claimed in the calling thread's namespace, with that of the process;
/// `None` if it is in another pid namespace, and not seen from here.
pub fn claims() -> io::Result<BTreeMap<u32, Option<u32>>> {
    let sockets = fs::read(SOCKETS)?;
    let lines = sockets.split(|byte| *byte == b'\n');
    let said = lines.filter_map(|line| said(str::from_utf8(line).ok()?));
    // Only asked for where a process is not seen.
    let sealed = LazyCell::new(sealed::sealed);
    let sealed = || (*sealed).as_ref();
    let holder = |said: Said<'_>| Some((said.holder(&sealed)?, said.program));
    let mut claims: Vec<_> = said.filter_map(holder).collect();
    // Of several, the last counts: one that was looked at.
    claims.sort_by_key(|(holder, _)| holder.is_seen);
    Ok(claims.into_iter().map(|(holder, program)| (program, holder.pid)).collect())
}

/// What tells the pid namespace of this process from others.
fn pid_namespace() -> io::Result<u64> {
    Ok(fs::metadata("/proc/self/ns/pid")?.ino())
}

/// Who has a claim's socket.
struct Holder {
    pid: Option<u32>,
    /// Whether it was looked at.
    is_seen: bool,
}

/// What a name says.
struct Said<'a> {
    program: u32,
    pid: u32,
    /// The pid namespace; older fixers did not say it.
    space: Option<u64>,
    inode: &'a str,
}

fn said(line: &str) -> Option<Said<'_>> {
    let (fields, name) = line.split_once(" @")?;
    let mut numbers = name.strip_prefix(PREFIX)?.split('-');
    let program = numbers.next()?.parse().ok()?;
    let pid = numbers.next()?.parse().ok()?;
    let space = numbers.nth(1).and_then(|space| space.parse().ok());
    Some(Said { program, pid, space, inode: fields.split_whitespace().next_back()? })
}

impl Said<'_> {
    /// The process that has the socket, as it is called from here. `None`: it may change nothing. `sealed`
    /// tells the sockets that bear the mark, if the kernel does.
    fn holder<'a>(&self, sealed: &impl Fn() -> Option<&'a BTreeSet<u32>>) -> Option<Holder> {
        let seen = |pid| may_change(pid).then_some(Holder { pid: Some(pid), is_seen: true });
        let is_seen = self.has_socket(self.pid);
        if is_seen == Some(true) {
            return seen(self.pid);
        }
        // It calls itself otherwise, for it is in a container; or it lies.
        let everyone = fs::read_dir("/proc").ok()?.flatten();
        let mut pids = everyone.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        match pids.find(|pid| self.has_socket(*pid) == Some(true)) {
            Some(pid) => seen(pid),
            None => {
                // Where the kernel does not tell, who cannot be looked at has to be believed.
                let is_believed = sealed().map_or(is_seen.is_none(), |sealed| {
                    self.inode.parse().is_ok_and(|inode: u64| sealed.contains(&(inode as u32)))
                });
                is_believed.then(|| Holder { pid: self.pid_here(), is_seen: false })
            }
        }
    }

    /// What the process is called from here, if that is known.
    fn pid_here(&self) -> Option<u32> {
        let is_ours = self.space.is_none_or(|space| pid_namespace().is_ok_and(|own| own == space));
        is_ours.then_some(self.pid)
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

/// Whether a process may change the network of the calling thread, by the capabilities that it has, and
/// the user namespace that it has them in: in one of its own anybody has them all.
fn may_change(pid: u32) -> bool {
    has_capability(pid) && rules_here(pid).unwrap_or(true)
}

/// Whether the user namespace of a process owns the network namespace of the calling thread, or is above
/// the one that does.
fn rules_here(pid: u32) -> io::Result<bool> {
    /// `NS_GET_USERNS` and `NS_GET_PARENT` of ioctl_ns(2).
    const OWNER: libc::Ioctl = 0xb701;
    const PARENT: libc::Ioctl = 0xb702;
    let its_own = fs::metadata(format!("/proc/{pid}/ns/user"))?.ino();
    let mut above = related(&File::open(OWN)?, OWNER)?;
    loop {
        if above.metadata()?.ino() == its_own {
            return Ok(true);
        }
        // The uppermost has none above, and nor have those that cannot be seen from here.
        match related(&above, PARENT) {
            Ok(parent) => above = parent,
            Err(_) => return Ok(false),
        }
    }
}

/// The namespace that is related to another one in this way.
fn related(namespace: &File, how: libc::Ioctl) -> io::Result<File> {
    // SAFETY: it takes a descriptor and a number, and gives a new descriptor or none.
    let fd = unsafe { libc::ioctl(namespace.as_raw_fd(), how) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { File::from_raw_fd(fd) })
}

fn has_capability(pid: u32) -> bool {
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
        assert_eq!((said.program, said.pid, said.space, said.inode), (12, 345, None, "4711"));
        let line =
            "0000000000000000: 00000002 00000000 00000000 0002 01 4711 @fixer-run-12-345-0-9";
        assert_eq!(super::said(line).unwrap().space, Some(9));
        assert!(super::said("0: 2 0 0 2 1 4711 @fixer-run-12").is_none());
        assert!(super::said("0: 2 0 0 2 1 4711 /run/fixer-run-12-345-0").is_none());
    }
}
