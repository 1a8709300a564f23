//! The sockets: packets in order, and an end that is heard.

use std::{
    io::{self, IoSlice, Read as _},
    os::fd::OwnedFd,
};

use nix::{
    sys::socket::{getsockopt, setsockopt, sockopt},
    unistd::geteuid,
};
use socket2::{Domain, SockAddr, Socket as Raw, Type};
use tokio::io::unix::AsyncFd;

/// What a watcher may be behind, in bytes with the kernel's own accounts: more than a ring buffer holds.
const ROOM: usize = 2 << 20;

/// What the names of runs begin with.
pub(super) const RUN: &str = "fixer-events-run-";

/// How many watchers may wait to be let in.
const WAITING: i32 = 128;

/// An end of a connection.
#[derive(Debug)]
pub(super) struct Socket(AsyncFd<Raw>);

fn address(name: &str) -> io::Result<SockAddr> {
    SockAddr::unix(format!("\0{name}"))
}

fn raw() -> io::Result<Raw> {
    Raw::new(Domain::UNIX, Type::SEQPACKET.nonblocking().cloexec(), None)
}

fn register(socket: Raw) -> io::Result<AsyncFd<Raw>> {
    // SAFETY: the socket keeps its descriptor open, and the same, for as long as it lives.
    unsafe { AsyncFd::register(socket) }.map_err(Into::into)
}

/// Who is at the other end: the ids of the user and the process.
fn peer(socket: &Raw) -> io::Result<(u32, i32)> {
    let peer = getsockopt(socket, sockopt::PeerCredentials)?;
    Ok((peer.uid(), peer.pid()))
}

/// Events are for root, and for the user that fixer runs as.
fn is_trusted(user: u32) -> bool {
    user == 0 || user == geteuid().as_raw()
}

/// Who is expected to answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Server {
    /// Whoever runs as root or as the same user.
    Trusted,
    /// This process, whichever user it has become.
    Process(u32),
}

/// Connects to a name in the calling thread's namespace. [`Socket::new`] makes the rest of it.
pub(super) fn connect(name: &str, server: Server) -> io::Result<Raw> {
    let socket = raw()?;
    socket.connect(&address(name)?)?;
    let (user, pid) = peer(&socket)?;
    let is_expected = match server {
        Server::Trusted => is_trusted(user),
        Server::Process(expected) => u32::try_from(pid) == Ok(expected),
    };
    if is_expected {
        return Ok(socket);
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("the process {pid} that answers is of the user with the id {user}"),
    ))
}

impl Socket {
    /// Must be called on a tokio runtime.
    pub(super) fn new(socket: Raw) -> io::Result<Self> {
        register(socket).map(Self)
    }

    /// Sends a message whole or not at all, and never waits.
    pub(super) fn send(&self, parts: &[&[u8]]) -> io::Result<()> {
        let parts: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
        self.0.get_ref().send_vectored_with_flags(&parts, libc::MSG_NOSIGNAL).map(drop)
    }

    /// Waits for a message; one of no bytes is the end.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            if let Ok(outcome) = ready.try_io(|socket| socket.get_ref().read(buffer)) {
                return outcome;
            }
        }
    }

    /// A message that is there already.
    pub(super) fn receive_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.get_ref().read(buffer)
    }
}

/// Where watchers come to. The name is held until this is dropped.
#[derive(Debug)]
pub struct Listener(Raw);

impl Listener {
    /// Takes a name for the process itself, in the calling thread's namespace. One of the same number in
    /// another container may have the first of them.
    pub fn bind_for_run() -> io::Result<Self> {
        const TRIES: u32 = 64;
        let pid = std::process::id();
        let mut number = 0;
        loop {
            match Self::bind(&format!("{RUN}{pid}-{number}")) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && number < TRIES => {
                    number += 1;
                }
                listener => return listener,
            }
        }
    }

    /// Takes a name in the calling thread's namespace. That somebody has it is `AddrInUse`.
    pub(super) fn bind(name: &str) -> io::Result<Self> {
        let socket = raw()?;
        socket.bind(&address(name)?)?;
        socket.listen(WAITING)?;
        Ok(Self(socket))
    }
}

impl From<OwnedFd> for Listener {
    fn from(fd: OwnedFd) -> Self {
        Self(fd.into())
    }
}

impl From<Listener> for OwnedFd {
    fn from(listener: Listener) -> Self {
        listener.0.into()
    }
}

/// A listener on a tokio runtime.
pub(super) struct Accepting(AsyncFd<Raw>);

impl Accepting {
    pub(super) fn new(Listener(socket): Listener) -> io::Result<Self> {
        register(socket).map(Self)
    }

    /// Waits for a watcher that may watch; others are turned away.
    pub(super) async fn accept(&self) -> io::Result<Socket> {
        loop {
            let mut ready = self.0.readable().await?;
            let Ok(outcome) = ready.try_io(|socket| socket.get_ref().accept()) else { continue };
            let (socket, _) = outcome?;
            if !peer(&socket).is_ok_and(|(user, _)| is_trusted(user)) {
                continue;
            }
            socket.set_nonblocking(true)?;
            // Without CAP_NET_ADMIN it is less.
            if setsockopt(&socket, sockopt::SndBufForce, &ROOM).is_err() {
                let _ = socket.set_send_buffer_size(ROOM);
            }
            return Socket::new(socket);
        }
    }
}
