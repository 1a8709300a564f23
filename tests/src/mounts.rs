//! A BPF file system of a test's own, so that the host's pins are neither seen nor touched; and names of
//! network namespaces that nobody else sees.

use std::{
    ffi::CStr,
    fs::{self, File},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use anyhow::Result;
use fixer_user::net::netns::NetNs;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

use crate::kernel::require_root;

const NONE: Option<&CStr> = None;

/// Where fixer keeps its pins.
pub const PINS: &str = "/sys/fs/bpf/fixer";

/// Gives this thread, and those that it starts, mounts of their own, with an empty BPF file system or
/// with none. All is gone when the last of them ends.
pub fn private_mounts(with_bpffs: bool) -> Result<()> {
    mount_at_bpffs(if with_bpffs { c"bpf" } else { c"tmpfs" }, MsFlags::empty())
}

/// Gives this thread mounts of its own, with a file system of this kind in place of the host's pins.
pub fn mount_at_bpffs(kind: &CStr, flags: MsFlags) -> Result<()> {
    own_mounts()?;
    mount(Some(kind), c"/sys/fs/bpf", Some(kind), flags, NONE)?;
    Ok(())
}

/// Gives this thread, and those that it starts, mounts of their own with an empty `/run`: what is named
/// there, by [`name`] or by `ip netns`, has a name nowhere else.
pub fn private_names() -> Result<()> {
    own_mounts()?;
    Ok(mount(Some(c"tmpfs"), c"/run", Some(c"tmpfs"), MsFlags::empty(), NONE)?)
}

/// Names a namespace, as `ip netns` does.
pub fn name(netns: &NetNs, name: &str) -> Result<()> {
    fs::create_dir_all("/run/netns")?;
    name_at(netns, &path(name))
}

/// Mounts a namespace at a file that is made for it.
pub fn name_at(netns: &NetNs, path: &Path) -> Result<()> {
    File::create_new(path)?;
    let source = PathBuf::from(format!("/proc/self/fd/{}", netns.file().as_raw_fd()));
    Ok(mount(Some(&source), path, NONE, MsFlags::MS_BIND, NONE)?)
}

/// Takes a name away again.
pub fn unname(name: &str) -> Result<()> {
    umount2(&path(name), MntFlags::MNT_DETACH)?;
    Ok(fs::remove_file(path(name))?)
}

fn path(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

fn own_mounts() -> Result<()> {
    require_root()?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    Ok(mount(NONE, c"/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?)
}
