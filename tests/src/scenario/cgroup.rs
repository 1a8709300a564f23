//! The cgroup of a host: all its processes are in it, so where it is gone none of them is left.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::write;

use crate::command::PATIENCE;

/// How the names start of those that this makes.
const PREFIX: &str = "fixer-scenario-";

/// The cgroup below it of those who come from outside: where controllers are handed down, only the
/// leaves of the tree may hold processes.
const VISITORS: &str = "visitors";

/// A cgroup and those below it, removed when this is dropped.
#[derive(Debug)]
pub struct Cgroup(PathBuf);

/// A cgroup that a process can join between fork and exec.
#[derive(Debug)]
pub struct Door(File);

impl Cgroup {
    /// A new one, below the uppermost of this machine.
    pub fn new() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = uppermost()?.join(format!("{}{number}", own_prefix()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let cgroup = Self(path);
        fs::create_dir(cgroup.0.join(VISITORS))?;
        Ok(cgroup)
    }

    /// The way into it.
    pub fn door(&self) -> Result<Door> {
        door(&self.0)
    }

    /// The way in for those from outside.
    pub fn visitors(&self) -> Result<Door> {
        door(&self.0.join(VISITORS))
    }
}

impl Door {
    /// Takes the calling process in. It makes a system call only.
    pub fn enter(&self) -> io::Result<()> {
        Ok(write(&self.0, b"0").map(drop)?)
    }
}

fn door(cgroup: &Path) -> Result<Door> {
    let path = cgroup.join("cgroup.procs");
    let file = File::options().write(true).open(&path);
    Ok(Door(file.with_context(|| format!("cannot open {}", path.display()))?))
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        // Its processes were killed, but they end in their own time.
        while remove(&self.0).is_err() && Instant::now() < deadline {}
    }
}

/// Removes a cgroup and those in it.
pub fn remove(cgroup: &Path) -> io::Result<()> {
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(cgroup)
}

/// Fails if a host of this process has left its cgroup behind: then a process of it still runs.
pub fn none_is_left() -> Result<()> {
    let left = own()?;
    ensure!(left.is_empty(), "the host has left {left:?} behind");
    Ok(())
}

/// The cgroups of this process's hosts.
pub fn own() -> Result<Vec<PathBuf>> {
    let mut own = Vec::new();
    for entry in fs::read_dir(uppermost()?)? {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        own.extend(name.to_string_lossy().starts_with(&own_prefix()).then_some(path));
    }
    Ok(own)
}

fn own_prefix() -> String {
    format!("{PREFIX}{}-", std::process::id())
}

/// Where this machine has its cgroups, of the second version.
fn uppermost() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let row = mounts.lines().find(|row| row.contains(" - cgroup2 "));
    let place = row.and_then(|row| row.split(' ').nth(4));
    place.map(PathBuf::from).context("no cgroups are mounted: mount -t cgroup2 cgroup2 DIRECTORY")
}
