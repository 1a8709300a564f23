//! A BPF file system of a test's own, so that the host's pins are neither seen nor touched.

use std::ffi::CStr;

use anyhow::Result;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use crate::kernel::require_root;

/// Where fixer keeps its pins.
pub const PINS: &str = "/sys/fs/bpf/fixer";

/// Gives this thread, and those that it starts, mounts of their own, with an empty BPF file system or
/// with none. All is gone when the last of them ends.
pub fn private_mounts(with_bpffs: bool) -> Result<()> {
    mount_at_bpffs(if with_bpffs { c"bpf" } else { c"tmpfs" }, MsFlags::empty())
}

/// Gives this thread mounts of its own, with a file system of this kind in place of the host's pins.
pub fn mount_at_bpffs(kind: &CStr, flags: MsFlags) -> Result<()> {
    const NONE: Option<&CStr> = None;
    require_root()?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(NONE, c"/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    mount(Some(kind), c"/sys/fs/bpf", Some(kind), flags, NONE)?;
    Ok(())
}
