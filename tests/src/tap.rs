//! A guest's network card as the hypervisor sees it: a tap with a vnet header.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd as _, AsRawFd as _},
    time::{Duration, Instant},
};

use fixer_user::{lab::packet::Received, net::netns::NetNs};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

/// `struct virtio_net_hdr`, as a tap with `IFF_VNET_HDR` puts it before each frame.
const VNET_HEADER: usize = 10;
/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: the guest is to finish the checksum.
const NEEDS_CSUM: u8 = 1;

nix::ioctl_write_int!(
    /// Says what the guest can finish by itself (linux/if_tun.h).
    tunsetoffload,
    b'T',
    208
);

nix::ioctl_write_int!(
    /// Says what its packets begin with, while it is down (linux/if_tun.h).
    tunsetlink,
    b'T',
    205
);

/// A tap, and what comes out of it on the guest's side.
pub struct Tap {
    _device: SyncDevice,
    file: File,
}

impl Tap {
    /// Makes a tap. With `offload` the guest finishes checksums itself, as virtio guests under
    /// vhost do; without it the kernel has to, as for iPXE and old guests.
    pub fn open(netns: &NetNs, name: &str, offload: bool) -> io::Result<Self> {
        // tun-rs adds the vnet header together with the offload, which is then taken back.
        let device = netns.run(|| {
            DeviceBuilder::new().name(name).layer(Layer::L2).offload(true).build_sync()
        })??;
        if !offload {
            // SAFETY: the descriptor is a tap's, and the argument is a number.
            unsafe { tunsetoffload(device.as_raw_fd(), 0) }?;
        }
        device.set_nonblocking(true)?;
        // SAFETY: the descriptor stays open for as long as the device is borrowed here.
        let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(device.as_raw_fd()) };
        let file = File::from(fd.try_clone_to_owned()?);
        Ok(Self { _device: device, file })
    }

    /// Says what its packets begin with, by a number of `if_arp.h`. It has to be down.
    pub fn set_link_type(&self, number: u16) -> io::Result<()> {
        // SAFETY: the descriptor is a tap's, and the argument is a number.
        unsafe { tunsetlink(self.file.as_raw_fd(), number.into()) }?;
        Ok(())
    }

    /// The next frame that `wanted` accepts, or `None` when `patience` is over.
    pub fn receive(
        &mut self,
        patience: Duration,
        wanted: impl Fn(&Received) -> bool,
    ) -> io::Result<Option<Received>> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut ready = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
            if poll(&mut ready, left)? == 0 {
                return Ok(None);
            }
            let mut bytes = vec![0; 65536];
            let len = self.file.read(&mut bytes)?;
            bytes.truncate(len);
            let partial = bytes[0] & NEEDS_CSUM != 0;
            let received = Received { bytes: bytes.split_off(VNET_HEADER), partial, tag: None };
            if wanted(&received) {
                return Ok(Some(received));
            }
        }
    }
}
