//! Sockets that show who made them, to whoever cannot see the process that has them.
//!
//! A send buffer of nearly two gigabytes takes CAP_NET_ADMIN of the whole machine (`SO_SNDBUFFORCE`), and
//! everybody may ask the kernel how large it is (sock_diag(7)). The claims never send, so the buffer is no
//! more than a mark. The user who made a socket is told as well, since Linux 5.3: root needs no mark.

use std::{collections::BTreeSet, io, mem, os::fd::AsRawFd as _, os::unix::net::UnixDatagram};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};

/// `SOCK_DIAG_BY_FAMILY` of linux/sock_diag.h.
const BY_FAMILY: u16 = 20;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const REQUEST: u16 = 1;
const DUMP: u16 = 0x300;

/// `UDIAG_SHOW_MEMINFO` and `UDIAG_SHOW_UID` of linux/unix_diag.h, and what is shown for them.
const SHOW: u32 = 0x20 | 0x40;
const MEMINFO: u16 = 5;
const UID: u16 = 7;

/// Where the size of the send buffer is among the numbers of `MEMINFO`: `SK_MEMINFO_SNDBUF`.
const SNDBUF: usize = 3;

/// The largest buffer that can be asked for. The kernel doubles it.
const LARGEST: i32 = i32::MAX / 2;

const HEADER: usize = 16;

/// Marks a socket as one whose maker may change the network. Who may not goes without.
pub(super) fn seal(socket: &UnixDatagram) {
    let size = LARGEST;
    // SAFETY: the socket is open, and the number is alive and as long as is said.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_SNDBUFFORCE,
            (&raw const size).cast(),
            mem::size_of_val(&size) as libc::socklen_t,
        )
    };
    if outcome < 0 {
        log::info!("cannot mark a claim: {}", io::Error::last_os_error());
    }
}

/// The Unix sockets of the calling thread's namespace that are marked, or root's, by the lower half of
/// their inodes. `None`: the kernel does not tell.
pub(super) fn sealed() -> Option<BTreeSet<u32>> {
    let sockets = ask();
    if let Err(error) = &sockets {
        log::info!("the kernel does not tell about sockets: {error}");
    }
    sockets.ok()
}

fn ask() -> io::Result<BTreeSet<u32>> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.send_to(&request(), &SocketAddr::new(0, 0), 0)?;
    let mut found = BTreeSet::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = &datagram[..];
        while let Some((kind, message, next)) = next_message(rest) {
            match kind {
                DONE => return Ok(found),
                ERROR => return Err(refusal(message)),
                BY_FAMILY => found.extend(trusted(message)),
                _ => {}
            }
            rest = next;
        }
    }
}

/// A header of netlink, and `struct unix_diag_req`: every socket, in whatever state.
fn request() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + 24);
    bytes.extend((HEADER as u32 + 24).to_ne_bytes());
    bytes.extend([BY_FAMILY, REQUEST | DUMP].map(u16::to_ne_bytes).concat());
    bytes.extend([0; 8]);
    bytes.extend([libc::AF_UNIX as u8, 0, 0, 0]);
    bytes.extend([u32::MAX, 0, SHOW, 0, 0].map(u32::to_ne_bytes).concat());
    bytes
}

/// The next message: its kind, what is in it, and what comes behind it.
fn next_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = word(bytes, 0)? as usize;
    let kind = half(bytes, 4)?;
    let message = bytes.get(HEADER..length)?;
    Some((kind, message, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

fn refusal(message: &[u8]) -> io::Error {
    let errno = word(message, 0).unwrap_or_default() as i32;
    io::Error::from_raw_os_error(errno.saturating_neg())
}

/// The inode in a `struct unix_diag_msg`, if the attributes behind it tell that its socket is one that not
/// anybody can make.
fn trusted(message: &[u8]) -> Option<u32> {
    const ATTRIBUTES: usize = 16;
    let inode = word(message, 4)?;
    let mut rest = message.get(ATTRIBUTES..)?;
    while let (Some(length), Some(kind)) = (half(rest, 0), half(rest, 2)) {
        let value = rest.get(4..usize::from(length))?;
        let is_trusted = match kind {
            MEMINFO => word(value, 4 * SNDBUF)? >= 2 * LARGEST as u32,
            UID => word(value, 0)? == 0,
            _ => false,
        };
        if is_trusted {
            return Some(inode);
        }
        rest = rest.get(usize::from(length).next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(inode: u32, attributes: &[(u16, &[u32])]) -> Vec<u8> {
        let mut bytes = [0, inode, 0, 0].map(u32::to_ne_bytes).concat();
        for (kind, words) in attributes {
            bytes.extend([4 + 4 * words.len() as u16, *kind].map(u16::to_ne_bytes).concat());
            bytes.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        }
        bytes
    }

    #[test]
    fn a_socket_is_trusted_for_its_mark_or_its_user() {
        let mark = [0, 0, 0, 2 * LARGEST as u32, 0];
        let usual = [0, u32::MAX, 0, 8 << 20, 0];
        for (attributes, expected) in [
            (&[(MEMINFO, &mark[..])][..], Some(7)),
            (&[(UID, &[1000]), (MEMINFO, &mark[..])], Some(7)),
            (&[(MEMINFO, &usual[..]), (UID, &[0])], Some(7)),
            (&[(MEMINFO, &usual[..]), (UID, &[1000])], None),
            (&[], None),
        ] {
            assert_eq!(trusted(&message(7, attributes)), expected, "{attributes:?}");
        }
        // What is cut short is nobody's.
        let whole = message(7, &[(MEMINFO, &mark)]);
        assert_eq!(trusted(&whole[..whole.len() - 1]), None);
        assert_eq!(trusted(&[]), None);
    }
}
