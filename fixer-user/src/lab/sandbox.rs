//! Runs a program in a scratch namespace, where it can change nothing of the host.
//!
//! DHCP servers and clients write to `/etc`, `/run` and `/var` of the machine that they run on. Here
//! each gets mounts of its own: the whole tree read-only, and empty file systems in memory where it
//! may write. They vanish with it, and it dies with the thread that started it.

use std::{
    ffi::CStr,
    io,
    os::unix::process::CommandExt as _,
    process::{Child, Command},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    sys::{prctl, signal::Signal},
};

use crate::net::netns::NetNs;

/// Where a program in the sandbox may write.
const WRITABLE: [&CStr; 3] = [c"/run", c"/tmp", c"/var"];

/// A running program, killed when this is dropped.
#[derive(Debug)]
pub struct Sandboxed(Child);

impl Sandboxed {
    /// Starts `command` inside `netns`, with mounts of its own.
    pub fn spawn(netns: &NetNs, mut command: Command) -> io::Result<Self> {
        let netns = netns.clone();
        let prepare = move || {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            enter(&netns)
        };
        // SAFETY: between fork and exec `prepare` makes system calls only; it allocates nothing and
        // takes no lock.
        unsafe { command.pre_exec(prepare) };
        command.spawn().map(Self)
    }

    /// The process, for its pipes and its exit status.
    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Sandboxed {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn enter(netns: &NetNs) -> io::Result<()> {
    const NONE: Option<&CStr> = None;
    setns(netns.file(), CloneFlags::CLONE_NEWNET)?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(NONE, c"/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    make_read_only()?;
    for place in WRITABLE {
        mount(Some(c"tmpfs"), place, Some(c"tmpfs"), MsFlags::empty(), NONE)?;
    }
    Ok(())
}

/// Every mount of the tree, in one call where the kernel has it (Linux 5.12), else the root alone.
fn make_read_only() -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the path ends in NUL and the attributes are alive and of the size that is given.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            c"/".as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    if outcome == 0 {
        return Ok(());
    }
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(None::<&CStr>, c"/", None::<&CStr>, flags, None::<&CStr>)?;
    Ok(())
}
