//! Writes a root file system the way the kernel unpacks it: a "newc" archive
//! (Documentation/driver-api/early-userspace/buffer-format.rst in Linux).

use std::collections::BTreeMap;

/// A file in the root file system.
pub(crate) struct Entry {
    /// Where it is, from the root on, without a leading slash.
    pub(crate) path: String,
    pub(crate) bytes: Vec<u8>,
}

impl Entry {
    pub(crate) fn new(path: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        let path = path.into().trim_start_matches('/').to_owned();
        Self { path, bytes: bytes.into() }
    }
}

/// A file that everyone may execute.
const FILE: u32 = 0o100_755;
const DIRECTORY: u32 = 0o040_755;

/// The name that ends an archive.
const END: &str = "TRAILER!!!";

/// Everything is padded to multiples of this.
const ALIGNMENT: usize = 4;

/// An archive of these files, the directories they are in, and `directories`.
pub(crate) fn archive<'a>(
    files: impl IntoIterator<Item = &'a Entry>,
    directories: &[&str],
) -> Vec<u8> {
    // In order of their paths, directories come before what is in them.
    let mut entries: BTreeMap<&str, (u32, &[u8])> =
        directories.iter().map(|path| (*path, (DIRECTORY, &[][..]))).collect();
    for Entry { path, bytes } in files {
        for (at, _) in path.match_indices('/') {
            entries.insert(&path[..at], (DIRECTORY, &[]));
        }
        entries.insert(path, (FILE, bytes));
    }
    let mut archive = Vec::new();
    for (number, (path, (mode, bytes))) in entries.into_iter().enumerate() {
        append(&mut archive, number + 1, path, mode, bytes);
    }
    append(&mut archive, 0, END, 0, &[]);
    archive
}

fn append(archive: &mut Vec<u8>, inode: usize, path: &str, mode: u32, bytes: &[u8]) {
    let name_len = path.len() + 1;
    let mode = mode as usize;
    // inode, mode, uid, gid, links, mtime, size, four device numbers, length of the name, checksum
    let header = [inode, mode, 0, 0, 1, 0, bytes.len(), 0, 0, 0, 0, name_len, 0];
    archive.extend(b"070701");
    for field in header {
        archive.extend(format!("{field:08X}").bytes());
    }
    archive.extend(path.bytes());
    archive.push(0);
    pad(archive);
    archive.extend(bytes);
    pad(archive);
}

fn pad(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(ALIGNMENT), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_come_before_what_is_in_them() {
        let files = [Entry::new("/usr/bin/fixer", *b"ELF"), Entry::new("init", *b"#!")];
        let archive = archive(&files, &["proc", "usr"]);
        let names = ["init\0", "proc\0", "usr\0", "usr/bin\0", "usr/bin/fixer\0", "TRAILER!!!\0"];
        let places = names.map(|name| {
            archive.windows(name.len()).position(|window| window == name.as_bytes()).unwrap()
        });
        assert!(places.is_sorted(), "{places:?}");
    }

    #[test]
    fn a_file_is_laid_out_as_the_kernel_reads_it() {
        let archive = archive(&[Entry::new("a", *b"hello")], &[]);
        assert_eq!(
            &archive[..110],
            b"070701\
              00000001000081ED0000000000000000\
              0000000100000000000000050000000000000000\
              00000000000000000000000200000000"
        );
        assert_eq!(&archive[110..120], b"a\0hello\0\0\0");
        assert_eq!(archive.len() % ALIGNMENT, 0);
    }
}
