//! Who serves DHCP, and which guests' frames skip their hypervisor, as procfs tells it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::{IpAddr, Ipv4Addr},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::Path,
};

use procfs::{
    ProcError,
    process::{FDTarget, Process, all_processes},
};

use super::dnsmasq::Told;
use crate::net::inspect::Interface;

/// The port of DHCP servers.
const DHCP: u16 = 67;

/// A namespace by the inode of its file.
pub type Inode = u64;

/// A socket that listens where DHCP servers do.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its process; `None` if that could not be seen.
    pub process: Option<Program>,
    /// The namespace that it is in.
    pub netns: Inode,
    /// The address that it listens at.
    pub address: Ipv4Addr,
    /// The interfaces that it serves.
    pub bound: Bound,
    /// The interfaces that its packet sockets are on; 0 is any, and -1 one that is gone. There it writes
    /// whole frames, and computes their sums itself.
    pub packets: BTreeSet<i64>,
    /// What it was told, if it is dnsmasq.
    pub told: Option<Told>,
}

/// What somebody who listens where servers do is for the guests of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It gives addresses.
    Server,
    /// It tells what to boot, beside a server.
    Proxy,
    /// It passes requests on to a server.
    Relay,
    /// It answers nobody.
    Idle,
}

/// Programs that pass requests on.
const RELAYS: [&str; 2] = ["dhcrelay", "dhcp-helper"];

/// systemd-networkd, as the kernel cuts its name off.
const NETWORKD: &str = "systemd-network";

/// Programs that write all that they send themselves. Others do so only for clients that have no address.
const FRAMERS: [&str; 2] = ["kea-dhcp4", "dhcrelay"];

/// Which interfaces a server serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// It may be all: nothing tells.
    All,
    /// The one that its socket is bound to.
    Device(String),
    /// Those that its packet sockets are on, by index.
    Packets(BTreeSet<u32>),
    /// What dnsmasq was told.
    Told,
    /// One that is gone.
    Gone,
}

impl Server {
    /// Whether its sockets take requests from an interface. `None`: perhaps.
    pub fn serves(&self, interface: &Interface) -> Option<bool> {
        // A server with a packet socket has the other one for appearances.
        let is_there = self.address.is_unspecified()
            || self.address.is_broadcast()
            || !self.packets.is_empty()
                && interface.addresses.iter().any(|(at, _)| *at == self.address);
        if !is_there || interface.name == "lo" {
            return Some(false);
        }
        match &self.bound {
            Bound::All => None,
            Bound::Device(name) => {
                let is_shunned = self.told.as_ref().is_some_and(|told| told.shuns(&interface.name));
                Some(interface.name == *name && !is_shunned)
            }
            Bound::Packets(indexes) => Some(indexes.contains(&interface.ifindex)),
            Bound::Told => self.told.as_ref()?.serves(interface),
            Bound::Gone => Some(false),
        }
    }

    /// What it is for the guests of an interface.
    pub fn role(&self, interface: &Interface) -> Role {
        match (&self.told, &self.process) {
            (Some(told), _) => told.role(interface),
            (None, Some(process)) if RELAYS.contains(&&*process.name) => Role::Relay,
            _ => Role::Server,
        }
    }

    /// Whether it writes whole frames on an interface: those to clients that have no address yet.
    pub fn writes_frames(&self, interface: &Interface) -> bool {
        [0, i64::from(interface.ifindex)].iter().any(|index| self.packets.contains(index))
    }

    /// Whether it has the kernel send broadcasts, all the same.
    pub fn broadcasts(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.name == NETWORKD)
    }

    /// Whether it then writes all of them.
    pub fn is_framer(&self) -> bool {
        self.process.as_ref().is_some_and(|process| FRAMERS.contains(&&*process.name))
    }
}

/// A program that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its process id.
    pub pid: i32,
    /// Its name.
    pub name: String,
    /// What it was started with, its name first.
    pub arguments: Vec<String>,
    /// When it was started, in ticks since the machine was.
    pub started: u64,
}

impl Program {
    /// Its name and process id.
    pub fn label(&self) -> String {
        format!("{} (pid {})", self.name, self.pid)
    }
}

/// A guest whose frames the kernel's vhost-net takes.
#[derive(Clone, Debug)]
pub struct VhostGuest {
    /// Its hypervisor.
    pub process: Program,
    /// The namespace that the hypervisor is in.
    pub netns: Inode,
    /// What the hypervisor calls the guest.
    pub name: Option<String>,
}

/// What procfs told.
#[derive(Clone, Debug, Default)]
pub struct Census {
    /// Everybody who listens at port 67 in any namespace that a process is in.
    pub servers: Vec<Server>,
    /// Guests that use vhost-net.
    pub vhost: Vec<VhostGuest>,
    /// A process in each namespace.
    pub namespaces: BTreeMap<Inode, i32>,
    /// How many processes kept their files to themselves.
    pub hidden: usize,
}

/// A process, as far as it showed itself.
struct Seen {
    program: Program,
    netns: Inode,
    /// Its sockets, by inode, with a descriptor of each.
    sockets: BTreeMap<u64, i32>,
    has_vhost: bool,
}

/// Looks at every process.
pub fn census() -> io::Result<Census> {
    let mut census = Census::default();
    let mut seen = Vec::new();
    for process in all_processes().map_err(error)?.flatten() {
        match look(&process) {
            Ok(process) => seen.push(process),
            // One that ended meanwhile hides nothing.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => census.hidden += 1,
            Err(_) => {}
        }
    }
    for process in &seen {
        census.namespaces.entry(process.netns).or_insert(process.program.pid);
        if process.has_vhost {
            let name = guest_name(&process.program.arguments);
            let (process, netns) = (process.program.clone(), process.netns);
            census.vhost.push(VhostGuest { process, netns, name });
        }
    }
    if let Ok(own) = fs::metadata("/proc/thread-self/ns/net") {
        census.namespaces.entry(own.ino()).or_insert_with(|| std::process::id() as i32);
    }
    for (netns, pid) in &census.namespaces {
        census.servers.extend(servers(*netns, *pid, &seen).unwrap_or_default());
    }
    Ok(census)
}

fn look(process: &Process) -> io::Result<Seen> {
    let pid = process.pid();
    // Kernel threads have no files, and so do those that have ended but were not waited for.
    let netns = fs::metadata(format!("/proc/{pid}/ns/net"))?.ino();
    let (mut sockets, mut has_vhost) = (BTreeMap::new(), false);
    for file in process.fd().map_err(error)?.flatten() {
        match file.target {
            FDTarget::Socket(inode) => drop(sockets.insert(inode, file.fd)),
            FDTarget::Path(path) => has_vhost |= path == Path::new("/dev/vhost-net"),
            _ => {}
        }
    }
    let stat = process.stat().map_err(error)?;
    let arguments = process.cmdline().unwrap_or_default();
    let program = Program { pid, name: stat.comm, arguments, started: stat.starttime };
    Ok(Seen { program, netns, sockets, has_vhost })
}

/// The servers of a namespace, which a process in it shows.
fn servers(netns: Inode, pid: i32, seen: &[Seen]) -> io::Result<Vec<Server>> {
    let sockets = Process::new(pid).and_then(|process| process.udp()).map_err(error)?;
    let packet_sockets = packet_sockets(pid);
    let mut found: Vec<Server> = Vec::new();
    for socket in sockets.iter().filter(|socket| socket.local_address.port() == DHCP) {
        // A relay or client that is connected to a server is none itself.
        let (IpAddr::V4(address), true) =
            (socket.local_address.ip(), socket.remote_address.port() == 0)
        else {
            continue;
        };
        // After a fork many have the socket; the first was there before the others.
        let holder = seen
            .iter()
            .filter(|process| process.sockets.contains_key(&socket.inode))
            .min_by_key(|process| process.program.started);
        let own = |(inode, _): &&(u64, i64)| {
            holder.is_some_and(|holder| holder.sockets.contains_key(inode))
        };
        let packets: BTreeSet<_> =
            packet_sockets.iter().filter(own).map(|(_, ifindex)| *ifindex).collect();
        let told = holder.and_then(|holder| Told::of(&holder.program));
        let bound = holder.map_or(Bound::All, |holder| {
            let fd = holder.sockets.get(&socket.inode).copied();
            bound(&holder.program, fd, told.as_ref(), &packets)
        });
        let process = holder.map(|holder| holder.program.clone());
        found.push(Server { process, netns, address, bound, packets, told });
    }
    Ok(found)
}

fn error(error: ProcError) -> io::Error {
    match error {
        ProcError::PermissionDenied(_) => io::ErrorKind::PermissionDenied.into(),
        ProcError::NotFound(_) => io::ErrorKind::NotFound.into(),
        ProcError::Io(error, _) => error,
        other => io::Error::other(other),
    }
}

/// A namespace's packet sockets: inode, and the index of the interface that each is on; 0 is any, and
/// -1 one that is gone.
fn packet_sockets(pid: i32) -> Vec<(u64, i64)> {
    let table = fs::read_to_string(format!("/proc/{pid}/net/packet")).unwrap_or_default();
    let row = |line: &str| {
        let columns: Vec<_> = line.split_whitespace().collect();
        Some((columns.last()?.parse().ok()?, columns.get(4)?.parse().ok()?))
    };
    table.lines().filter_map(row).collect()
}

/// Which interfaces a process serves. Its socket knows best, if it is bound; else its other sockets.
fn bound(
    program: &Program,
    fd: Option<i32>,
    told: Option<&Told>,
    packets: &BTreeSet<i64>,
) -> Bound {
    match fd.map(|fd| bound_device(program.pid, fd)) {
        Some(Ok(Some(device))) => return Bound::Device(device),
        Some(Err(error)) if error.raw_os_error() == Some(libc::ENODEV) => return Bound::Gone,
        _ => {}
    }
    if told.is_some() {
        return Bound::Told;
    }
    let there: BTreeSet<_> =
        packets.iter().filter_map(|index| u32::try_from(*index).ok()).collect();
    match there.is_empty() {
        false if there.contains(&0) => Bound::All,
        false => Bound::Packets(there),
        true if packets.is_empty() => Bound::All,
        true => Bound::Gone,
    }
}

/// The interface that another process's socket is bound to (`SO_BINDTODEVICE`).
fn bound_device(pid: i32, fd: i32) -> io::Result<Option<String>> {
    let process = duplicate(libc::SYS_pidfd_open, [pid, 0, 0])?;
    let socket = duplicate(libc::SYS_pidfd_getfd, [process.as_raw_fd(), fd, 0])?;
    let mut name = [0u8; libc::IFNAMSIZ];
    let mut len = name.len() as libc::socklen_t;
    // SAFETY: the buffer is alive and has the length that is given.
    let outcome = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            name.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(Some(String::from_utf8_lossy(name).into_owned()).filter(|name| !name.is_empty()))
}

/// A descriptor from a system call that takes numbers and returns one.
fn duplicate(call: libc::c_long, [one, two, three]: [i32; 3]) -> io::Result<OwnedFd> {
    // SAFETY: both calls that are made so take and return numbers only.
    let fd = unsafe { libc::syscall(call, one, two, three) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// What QEMU was told to call its guest: `-name guest=web,debug-threads=on` or `-name web`.
fn guest_name(arguments: &[String]) -> Option<String> {
    let at = arguments.iter().position(|word| word == "-name")?;
    let first = arguments.get(at + 1)?.split(',').next()?;
    Some(first.strip_prefix("guest=").unwrap_or(first).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_guest_has_the_name_that_its_hypervisor_was_given() {
        let name = |line: &str| guest_name(&words(line));
        assert_eq!(name("qemu -name guest=web,debug-threads=on -m 1").as_deref(), Some("web"));
        assert_eq!(name("qemu -name web").as_deref(), Some("web"));
        assert_eq!(name("qemu -m 1"), None);
        assert_eq!(name("qemu -name"), None);
    }
}
