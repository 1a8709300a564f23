//! Raw frames in and out of an interface, with the state of their checksum.
//!
//! An `AF_PACKET` socket is how strict clients see the world: packet(7) tells in
//! `PACKET_AUXDATA` whether a frame's checksum is still partial, and takes with `PACKET_VNET_HDR`
//! frames that are sent so.

use std::{
    ffi::CString,
    io,
    mem::{self, MaybeUninit},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use crate::net::netns::NetNs;

/// `struct virtio_net_hdr` in the form that `PACKET_VNET_HDR` takes (linux/virtio_net.h).
const VNET_HEADER: usize = 10;
/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: the checksum is partial.
const NEEDS_CSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_TCPV4`: TCP over IPv4 that is to be cut into segments.
const GSO_TCPV4: u8 = 1;
/// `PACKET_VNET_HDR` (linux/if_packet.h).
const PACKET_VNET_HDR: libc::c_int = 15;
/// The longest frame that is received whole, in bytes.
const LONGEST: usize = 65536;

/// Where the kernel is to put the checksum that it finishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partial {
    /// Where summing starts, in bytes from the start of the frame.
    pub csum_start: u16,
    /// Where the field lies, in bytes from `csum_start`.
    pub csum_offset: u16,
}

/// A frame as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its bytes, from the destination address on. A VLAN tag that the kernel keeps beside the
    /// frame is not among them.
    pub bytes: Vec<u8>,
    /// Whether the kernel says that its checksum is still partial (`TP_STATUS_CSUMNOTREADY`).
    pub partial: bool,
    /// The VLAN tag beside the frame: EtherType and `vlan_tci`.
    pub tag: Option<(u16, u16)>,
}

/// Which way a frame passes an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It comes in.
    In,
    /// It leaves.
    Out,
}

impl Received {
    /// The frame as it is on a wire, with its tag inside.
    pub fn on_wire(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        if let Some((ether_type, tci)) = self.tag {
            let tag = [ether_type.to_be_bytes(), tci.to_be_bytes()].concat();
            bytes.splice(12..12, tag);
        }
        bytes
    }
}

/// A frame that is ready to be sent: behind the header that `PACKET_VNET_HDR` asks for.
#[derive(Clone, Debug)]
pub struct Message(Vec<u8>);

impl Message {
    /// A frame; with `partial`, one whose checksum somebody still has to finish.
    pub fn new(frame: &[u8], partial: Option<Partial>) -> Self {
        let mut message = vec![0; VNET_HEADER];
        if let Some(Partial { csum_start, csum_offset }) = partial {
            message[0] = NEEDS_CSUM;
            message[6..8].copy_from_slice(&csum_start.to_ne_bytes());
            message[8..10].copy_from_slice(&csum_offset.to_ne_bytes());
        }
        message.extend_from_slice(frame);
        Self(message)
    }

    /// TCP over IPv4 that somebody still has to finish, and to cut into segments of this many bytes.
    pub fn uncut(frame: &[u8], partial: Partial, segment: u16) -> Self {
        let Self(mut message) = Self::new(frame, Some(partial));
        message[1] = GSO_TCPV4;
        message[4..6].copy_from_slice(&segment.to_ne_bytes());
        Self(message)
    }
}

/// A raw socket on one interface.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    ifindex: u32,
}

impl PacketSocket {
    /// Opens a socket that hears every frame of the interface.
    pub fn open(netns: &NetNs, interface: &str) -> io::Result<Self> {
        Self::open_for(netns, interface, &[])
    }

    /// Opens a socket that hears the frames that a classic BPF program takes: it returns how many
    /// bytes of a frame are wanted. Without instructions it hears all.
    pub fn open_for(
        netns: &NetNs,
        interface: &str,
        filter: &[libc::sock_filter],
    ) -> io::Result<Self> {
        netns.run(|| open(interface, filter))?
    }

    /// How many frames found the socket's buffer full since it was asked last.
    pub fn lost(&self) -> io::Result<u32> {
        let mut told = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut len = size_of_val(&told) as libc::socklen_t;
        // SAFETY: the value is alive and has the length that is given.
        check(unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut told).cast(),
                &raw mut len,
            )
        } as isize)?;
        Ok(told.tp_drops)
    }

    /// Sends a frame; with `partial`, as one whose checksum somebody still has to finish.
    pub fn send(&self, frame: &[u8], partial: Option<Partial>) -> io::Result<()> {
        self.send_as(frame, partial, libc::ETH_P_ALL as u16)
    }

    /// The same under another EtherType than the frame holds: the kernel believes the sender.
    pub fn send_as(
        &self,
        frame: &[u8],
        partial: Option<Partial>,
        ether_type: u16,
    ) -> io::Result<()> {
        self.transmit(&Message::new(frame, partial), ether_type)
    }

    /// Sends what was made ready before.
    pub fn send_ready(&self, message: &Message) -> io::Result<()> {
        self.transmit(message, libc::ETH_P_ALL as u16)
    }

    fn transmit(&self, Message(message): &Message, ether_type: u16) -> io::Result<()> {
        let address = address(self.ifindex, ether_type);
        // SAFETY: the pointers and lengths are those of live values.
        let sent = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                message.as_ptr().cast(),
                message.len(),
                0,
                (&raw const address).cast(),
                size_of_val(&address) as u32,
            )
        };
        check(sent).map(drop)
    }

    /// The next frame that comes in from outside and that `wanted` accepts, or `None` when `patience`
    /// is over.
    pub fn receive(
        &self,
        patience: Duration,
        wanted: impl Fn(&Received) -> bool,
    ) -> io::Result<Option<Received>> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if !self.readable(left)? {
                return Ok(None);
            }
            if let Some((received, Direction::In)) = self.take()?
                && wanted(&received)
            {
                return Ok(Some(received));
            }
        }
    }

    /// The next frame in either direction, or `None` when `patience` is over.
    pub fn overhear(&self, patience: Duration) -> io::Result<Option<(Received, Direction)>> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if !self.readable(left)? {
                return Ok(None);
            }
            if let Some(heard) = self.take()? {
                return Ok(Some(heard));
            }
        }
    }

    fn readable(&self, patience: Duration) -> io::Result<bool> {
        let mut poll = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let millis = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one pollfd, as the count says.
        match check(unsafe { libc::poll(&raw mut poll, 1, millis) } as isize) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            outcome => Ok(outcome? > 0),
        }
    }

    /// Takes one frame; `None` if there is none after all.
    fn take(&self) -> io::Result<Option<(Received, Direction)>> {
        let mut bytes = vec![0; VNET_HEADER + LONGEST];
        let mut control = [0u64; 16];
        let mut from = MaybeUninit::<libc::sockaddr_ll>::zeroed();
        let mut vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        // SAFETY: all-zero is a valid message header.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_name = from.as_mut_ptr().cast();
        message.msg_namelen = size_of::<libc::sockaddr_ll>() as u32;
        message.msg_iov = &raw mut vector;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        // SAFETY: the header points to live buffers of the lengths that it names.
        let taken =
            unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
        let taken = match check(taken) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            outcome => outcome?,
        };
        // SAFETY: it was zeroed, which is a valid address, and the kernel wrote one into it.
        let from = unsafe { from.assume_init() };
        if taken < VNET_HEADER {
            return Ok(None);
        }
        let direction = match from.sll_pkttype {
            libc::PACKET_OUTGOING => Direction::Out,
            _ => Direction::In,
        };
        // The buffer is for the longest frame there can be, and not every caller forgets frames soon.
        let bytes = bytes[VNET_HEADER..taken].to_vec();
        let (mut partial, mut tag) = (false, None);
        // SAFETY: the header is as the kernel left it, and its buffers are still alive.
        for auxdata in unsafe { auxdata(&message) } {
            partial = auxdata.tp_status & libc::TP_STATUS_CSUMNOTREADY != 0;
            tag = (auxdata.tp_status & libc::TP_STATUS_VLAN_VALID != 0)
                .then_some((auxdata.tp_vlan_tpid, auxdata.tp_vlan_tci));
        }
        Ok(Some((Received { bytes, partial, tag }, direction)))
    }
}

/// Waits until frames get from one socket to the other: the ports of a new bridge take a moment
/// until they forward.
pub fn wait_until_open(sender: &PacketSocket, receiver: &PacketSocket) -> io::Result<()> {
    /// IEEE's EtherType for local experiments.
    const PROBE: [u8; 60] = {
        let mut frame = [0xff; 60];
        (frame[6], frame[12], frame[13]) = (2, 0x88, 0xb5);
        frame
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        sender.send(&PROBE, None)?;
        let is_it = |received: &Received| received.bytes == PROBE;
        if receiver.receive(Duration::from_millis(20), is_it)?.is_some() {
            return Ok(());
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "the scratch links do not forward"))
}

fn open(interface: &str, filter: &[libc::sock_filter]) -> io::Result<PacketSocket> {
    // Until it is bound, a socket without a protocol hears nothing.
    // SAFETY: takes and returns numbers only.
    let fd =
        check(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) }
            as isize)?;
    // SAFETY: the descriptor is new and nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    for option in [libc::PACKET_AUXDATA, PACKET_VNET_HDR] {
        let on: libc::c_int = 1;
        // SAFETY: the value is a live number of the length that is given.
        check(unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_PACKET,
                option,
                (&raw const on).cast(),
                size_of_val(&on) as u32,
            )
        } as isize)?;
    }
    if !filter.is_empty() {
        let len = u16::try_from(filter.len()).map_err(io::Error::other)?;
        let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
        // SAFETY: the program points to as many live instructions as it says, which the kernel copies.
        check(unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const program).cast(),
                size_of_val(&program) as u32,
            )
        } as isize)?;
    }
    let name = CString::new(interface)?;
    // SAFETY: the name ends in NUL.
    let ifindex = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if ifindex == 0 {
        return Err(io::Error::last_os_error());
    }
    let address = address(ifindex, libc::ETH_P_ALL as u16);
    // SAFETY: the address is alive and has the length that is given.
    check(unsafe {
        libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32)
    } as isize)?;
    Ok(PacketSocket { fd, ifindex })
}

/// An interface and an EtherType as packet(7) wants them.
fn address(ifindex: u32, ether_type: u16) -> libc::sockaddr_ll {
    // SAFETY: all-zero is a valid address.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = ether_type.to_be();
    address.sll_ifindex = ifindex as i32;
    address
}

/// The auxiliary data in a received message.
///
/// # Safety
///
/// `message` was filled by recvmsg(2), and its control buffer is alive.
unsafe fn auxdata(message: &libc::msghdr) -> Vec<libc::tpacket_auxdata> {
    let mut found = Vec::new();
    // SAFETY: the control buffer is alive; CMSG_FIRSTHDR and CMSG_NXTHDR stay inside it.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: a header that the macros return is readable.
    while let Some(header) = unsafe { next.as_ref() } {
        if header.cmsg_level == libc::SOL_PACKET && header.cmsg_type == libc::PACKET_AUXDATA {
            // SAFETY: a control message of this type holds this structure.
            found.push(unsafe {
                libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned()
            });
        }
        // SAFETY: as above.
        next = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    found
}

fn check(outcome: isize) -> io::Result<usize> {
    usize::try_from(outcome).map_err(|_| io::Error::last_os_error())
}
