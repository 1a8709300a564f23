//! The files of the machine that DHCP clients and servers write to when nothing keeps them from it.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::Result;

/// Files and directories that are looked at with everything in them.
const PLACES: [&str; 10] = [
    "/etc/systemd/network",
    "/run/dhcpcd",
    "/run/kea",
    "/run/resolvconf",
    "/run/systemd/netif",
    "/run/systemd/network",
    "/var/lib/dhcp",
    "/var/lib/dhcpcd",
    "/var/lib/kea",
    "/var/lib/misc",
];

/// How the names of those in `/etc` start. Some are there for a moment, or under another name.
const IN_ETC: [&str; 6] = ["dhc", "host", "kea", "ntp", "passwd", "resolv"];

/// What is said of a file: when it was written, and its content.
type State = (SystemTime, Vec<u8>);

/// The machine's files as they are now.
#[derive(Debug, PartialEq)]
pub struct Machine(BTreeMap<PathBuf, State>);

impl Machine {
    /// Looks at them.
    pub fn look() -> Result<Self> {
        let mut files = BTreeMap::new();
        for path in PLACES {
            whole(Path::new(path), &mut files)?;
        }
        for path in entries(Path::new("/etc"))? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if IN_ETC.iter().any(|start| name.starts_with(start)) {
                whole(&path, &mut files)?;
            }
        }
        Ok(Self(files))
    }

    /// The paths that came, went or changed since.
    pub fn changed(&self, since: &Self) -> Vec<PathBuf> {
        let (now, then) = (&self.0, &since.0);
        let paths = now.keys().chain(then.keys().filter(|path| !now.contains_key(*path)));
        paths.filter(|path| now.get(*path) != then.get(*path)).cloned().collect()
    }
}

fn whole(path: &Path, files: &mut BTreeMap<PathBuf, State>) -> Result<()> {
    let Some(metadata) = exists(fs::symlink_metadata(path))? else { return Ok(()) };
    if metadata.is_dir() {
        for entry in entries(path)? {
            whole(&entry, files)?;
        }
    }
    let content = if metadata.is_file() { fs::read(path)? } else { Vec::new() };
    files.insert(path.to_owned(), (metadata.modified()?, content));
    Ok(())
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let Some(entries) = exists(fs::read_dir(directory))? else { return Ok(Vec::new()) };
    Ok(entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?)
}

fn exists<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        outcome => outcome.map(Some),
    }
}
