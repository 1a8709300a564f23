//! Where pins are: directories and names below the BPF file system.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use fixer_common::abi::Hook;

use super::pin::{PinError, refused};

/// Where the BPF file system is.
pub(super) const BPFFS: &str = "/sys/fs/bpf";

/// The directories of all namespaces and versions, each with the number of its namespace.
pub(super) fn every_directory() -> Vec<(u64, PathBuf)> {
    let entries = |path: PathBuf| fs::read_dir(path).into_iter().flatten().flatten();
    let versions = entries(root()).filter(|it| version(&it.file_name()).is_some());
    let every = versions.flat_map(|version| entries(version.path()));
    every.filter_map(|it| Some((it.file_name().to_str()?.parse().ok()?, it.path()))).collect()
}

/// The paths of the links that are pinned in a directory.
pub(super) fn links_in(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let is_link = |it: &fs::DirEntry| it.file_name().to_str().is_some_and(|it| parse(it).is_some());
    entries.filter(is_link).map(|it| it.path()).collect()
}

/// Removes a directory of pins. That there is none is no error.
pub(super) fn remove_directory(dir: &Path) -> Result<(), PinError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        outcome => outcome.map_err(refused("remove", dir))?,
    }
    // The directories above are there for other namespaces too, unless they are empty. One that was
    // killed may have removed the lower one already.
    for dir in dir.ancestors().skip(1).take_while(|dir| *dir != Path::new(BPFFS)) {
        let _ = fs::remove_dir(dir);
    }
    Ok(())
}

/// The version in the name of a directory.
pub(super) fn version(name: &OsStr) -> Option<u32> {
    name.to_str()?.strip_prefix('v')?.parse().ok()
}

/// Where fixer keeps its pins.
pub(super) fn root() -> PathBuf {
    Path::new(BPFFS).join("fixer")
}

/// The name of a link's pin.
pub(super) fn link(ifindex: u32, hook: Hook) -> String {
    format!("{ifindex}-{}", hook.name())
}

/// What the name of a pin says, if it is a link's.
pub(super) fn parse(name: &str) -> Option<(u32, Hook)> {
    let (ifindex, hook) = name.split_once('-')?;
    let hook = [Hook::Egress, Hook::Ingress].into_iter().find(|known| known.name() == hook)?;
    Some((ifindex.parse().ok()?, hook))
}

/// Removes a pin. That there is none is no error.
pub(super) fn remove_file(path: &Path) -> Result<(), PinError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome.map_err(refused("remove", path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_found_again_by_its_name() {
        for (ifindex, hook) in [(4, Hook::Egress), (12, Hook::Ingress)] {
            assert_eq!(parse(&link(ifindex, hook)), Some((ifindex, hook)));
        }
        for other in ["COUNTERS", "halfway", "4-sideways", "x-egress", "4-egress-clsact-1-1", ""] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
