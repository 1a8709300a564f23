//! The files that a dnsmasq was told. Anybody may call a process so, and tell it what they like.

use std::{
    fs::File,
    io::{self, Read as _},
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    path::Path,
};

/// How much of a file is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// What is in a file, which is neither waited for nor read for ever. Opening a device may do something, so it
/// is looked at before it is opened.
pub(super) fn text(path: &Path) -> io::Result<String> {
    let place = File::options().read(true).custom_flags(libc::O_PATH).open(path)?;
    let mut text = String::new();
    if place.metadata()?.is_file() {
        let file = File::open(format!("/proc/self/fd/{}", place.as_raw_fd()))?;
        file.take(LONGEST).read_to_string(&mut text)?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::sys::{
        inotify::{AddWatchFlags, InitFlags, Inotify},
        stat::Mode,
    };

    use super::*;

    /// A watchdog begins to count when it is opened.
    #[test]
    fn what_is_no_file_is_not_even_opened() {
        let directory = tempfile::tempdir().unwrap();
        let [pipe, file] = ["pipe", "file"].map(|name| directory.path().join(name));
        nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        fs::write(&file, "interface=br0\n").unwrap();
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
        let opened = |path: &Path| {
            inotify.add_watch(path, AddWatchFlags::IN_OPEN).unwrap();
            let told = text(path).unwrap();
            (told, inotify.read_events().is_ok_and(|events| !events.is_empty()))
        };
        assert_eq!(opened(&file), ("interface=br0\n".to_owned(), true));
        assert_eq!(opened(&pipe), (String::new(), false));
    }
}
