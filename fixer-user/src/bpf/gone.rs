//! Pins of network namespaces that are gone. Nobody can enter those any more, so no verb that looks into
//! a namespace finds them.
//!
//! What is removed holds nothing: every link that is pinned there has lost its interface, no other program
//! uses the maps, and no namespace of that number is seen. The number may have been given to another one
//! since; that one's next `attach` or `detach` sees to them.

use std::{
    collections::BTreeSet,
    ffi::CString,
    fs, io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use aya::{maps::MapInfo, programs::loaded_programs};
use fixer_common::abi::map;

use super::{
    pin::{PinError, refused},
    places::{every_directory, links_in, remove_directory},
    raw::bpf,
    remedy::errno,
};

/// The command of bpf(2) that opens a pin.
const OBJ_GET: libc::c_long = 7;

/// Removes the pins of namespaces that are gone. Gives the numbers of these.
pub fn remove() -> Result<Vec<u64>, PinError> {
    let mut every = every_directory();
    // The most do not get so far as to the look at every process.
    every.retain(|(_, dir)| is_idle(dir).unwrap_or(false));
    if every.is_empty() {
        return Ok(Vec::new());
    }
    let there =
        namespaces().map_err(refused("look for network namespaces in", Path::new("/proc")))?;
    every.retain(|(inode, _)| !there.contains(inode));
    for (_, dir) in &every {
        remove_directory(dir)?;
    }
    Ok(every.into_iter().map(|(inode, _)| inode).collect())
}

/// Whether no packet can come to what is pinned in a directory.
fn is_idle(dir: &Path) -> io::Result<bool> {
    let mut pinned = BTreeSet::new();
    for link in links_in(dir) {
        let told = told_of(&link)?;
        if number(&told, "ifindex:") != Some(0) {
            return Ok(false);
        }
        pinned.extend(number(&told, "prog_id:"));
    }
    let maps = map::ALL.iter().map(|name| dir.join(name)).filter(|path| path.exists());
    let maps: BTreeSet<u32> = maps
        .map(|path| MapInfo::from_pin(path).map(|map| map.id()).map_err(io::Error::other))
        .collect::<io::Result<_>>()?;
    for program in loaded_programs() {
        let program = match program {
            // Who is gone by now uses nothing.
            Err(error) if errno(&error) == Some(libc::ENOENT) => continue,
            program => program.map_err(io::Error::other)?,
        };
        let uses = program.map_ids().map_err(io::Error::other)?.unwrap_or_default();
        if !pinned.contains(&program.id()) && uses.iter().any(|id| maps.contains(id)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What procfs tells of a pinned link: of one whose interface is gone, that its index is 0.
fn told_of(link: &Path) -> io::Result<String> {
    #[repr(C)]
    struct Attributes {
        path: u64,
        fd: u32,
        flags: u32,
    }
    let path = CString::new(link.as_os_str().as_bytes())?;
    let mut attributes = Attributes { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    // SAFETY: the attributes are those of the command, and name a path that ends in NUL and is alive.
    let fd = unsafe { bpf(OBJ_GET, &mut attributes) }?;
    // SAFETY: the descriptor is new and nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", fd.as_raw_fd()))
}

fn number(told: &str, name: &str) -> Option<u32> {
    told.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// The numbers of all network namespaces that are seen from here: those that threads are in, that are open,
/// and that are mounted.
fn namespaces() -> io::Result<BTreeSet<u64>> {
    let mut found = BTreeSet::new();
    let entries = |path: PathBuf| fs::read_dir(path).into_iter().flatten().flatten();
    for process in fs::read_dir("/proc")?.flatten() {
        if !process.file_name().as_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        for thread in entries(process.path().join("task")) {
            found.extend(fs::metadata(thread.path().join("ns/net")).map(|netns| netns.ino()));
        }
        for open in entries(process.path().join("fd")) {
            let target = fs::read_link(open.path()).unwrap_or_default();
            found.extend(target.to_str().and_then(inode));
        }
        let mounts = fs::read_to_string(process.path().join("mountinfo")).unwrap_or_default();
        found.extend(mounts.lines().filter_map(|line| inode(line.split(' ').nth(3)?)));
    }
    Ok(found)
}

/// The number in `net:[4026532008]`.
fn inode(name: &str) -> Option<u64> {
    name.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_told_by_its_number() {
        assert_eq!(inode("net:[4026532008]"), Some(4_026_532_008));
        for other in ["mnt:[4026532008]", "net:[]", "/", "net:[1"] {
            assert_eq!(inode(other), None, "{other}");
        }
        let told = "link_type:\ttcx\nprog_id:\t12\nifindex:\t0\n";
        assert_eq!(
            ["prog_id:", "ifindex:", "flags:"].map(|name| number(told, name)),
            [Some(12), Some(0), None]
        );
    }
}
