//! What stays when fixer has gone: links, programs and maps, pinned on the BPF file system.
//!
//! `/sys/fs/bpf/fixer/v2/<namespace>/` holds the maps under their names and, for each hook of each
//! interface, either a tcx link (`4-egress`) or, where the kernel has no tcx, the program of a clsact
//! filter (`4-egress-clsact-1-1-made`, with the filter's priority and handle, and whether the qdisc was
//! made for it: such a filter is no object that could be pinned, and is found again by these). The version is that of the ABI, so a
//! fixer never meets maps that it does not understand. The namespace is the inode number of its file.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use aya::{
    maps::{Map, MapData, MapError},
    programs::{
        SchedClassifier,
        links::{FdLink, PinnedLink},
        tc::{SchedClassifierLink, TcHandle},
    },
};
use fixer_common::abi::{self, Hook, map};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::{
    attach::{AttachError, Attachment, Mode, Wish, attach_type, residents},
    counters::{self, Row},
    load::{Config, LoadError, Object},
    remedy::Explained,
};
use crate::net::netns::NetNs;

/// Where the BPF file system is.
const BPFFS: &str = "/sys/fs/bpf";

/// What separates the parts of a clsact filter's pin.
const CLSACT: &str = "clsact";

/// The qdisc of a filter was made for it.
const MADE: &str = "made";

/// The qdisc of a filter was there before.
const FOUND: &str = "found";

/// Something about the pins went wrong.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// There is no BPF file system to pin to.
    #[error(
        "{BPFFS} is no BPF file system, so nothing can stay attached; mount one: mount -t bpf bpf {BPFFS}"
    )]
    NoBpffs,
    /// A file of the pins could not be made, read or removed.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The kernel refused.
    #[error("cannot {what} {}: {cause}", path.display())]
    Refused {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed, and what to do.
        cause: Explained,
    },
    /// The programs were not attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The programs were not loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// A hook that has a pin.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pinned {
    /// The interface's index.
    pub ifindex: u32,
    /// The hook.
    pub hook: Hook,
    /// The clsact filter; `None`: it is a tcx link.
    filter: Option<Filter>,
}

/// Where a clsact filter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Filter {
    priority: u16,
    handle: u32,
    made_qdisc: bool,
}

impl Pinned {
    /// How it is attached.
    pub const fn mode(&self) -> Mode {
        match self.filter {
            None => Mode::Tcx,
            Some(_) => Mode::Clsact,
        }
    }

    /// Whether the clsact qdisc was made for it.
    pub fn made_qdisc(&self) -> bool {
        self.filter.is_some_and(|filter| filter.made_qdisc)
    }

    fn name(&self) -> String {
        let Self { ifindex, hook, filter } = self;
        match filter {
            None => format!("{ifindex}-{}", hook.name()),
            Some(Filter { priority, handle, made_qdisc }) => {
                let qdisc = if *made_qdisc { MADE } else { FOUND };
                format!("{ifindex}-{}-{CLSACT}-{priority}-{handle}-{qdisc}", hook.name())
            }
        }
    }

    fn parse(name: &str) -> Option<Self> {
        let parts: Vec<_> = name.split('-').collect();
        let (ifindex, hook, filter) = match parts[..] {
            [ifindex, hook] => (ifindex, hook, None),
            [ifindex, hook, CLSACT, priority, handle, qdisc @ (MADE | FOUND)] => {
                let (priority, handle) = (priority.parse().ok()?, handle.parse().ok()?);
                (ifindex, hook, Some(Filter { priority, handle, made_qdisc: qdisc == MADE }))
            }
            _ => return None,
        };
        let hook = [Hook::Egress, Hook::Ingress].into_iter().find(|known| known.name() == hook)?;
        Some(Self { ifindex: ifindex.parse().ok()?, hook, filter })
    }
}

/// The pins of one network namespace.
#[derive(Clone, Debug)]
pub struct Pins {
    dir: PathBuf,
}

impl Pins {
    /// The place for the pins of a namespace, which need not be there yet.
    pub fn of(netns: &NetNs) -> Result<Self, PinError> {
        let is_bpffs = statfs(BPFFS).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC);
        if !is_bpffs {
            return Err(PinError::NoBpffs);
        }
        let version = Path::new(BPFFS).join("fixer").join(format!("v{}", abi::VERSION));
        let inode = netns.file().metadata().map_err(file("look at", &version))?.ino();
        Ok(Self { dir: version.join(inode.to_string()) })
    }

    /// Every hook that has a pin, in order.
    pub fn list(&self) -> Result<Vec<Pinned>, PinError> {
        let mut found = Vec::new();
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            entries => entries.map_err(file("read", &self.dir))?,
        };
        for entry in entries {
            let name = entry.map_err(file("read", &self.dir))?.file_name();
            found.extend(name.to_str().and_then(Pinned::parse));
        }
        found.sort();
        Ok(found)
    }

    /// Loads an object whose maps are pinned here, or found here with what they have counted.
    pub fn load(&self, config: &Config) -> Result<Object, PinError> {
        fs::create_dir_all(&self.dir).map_err(file("make", &self.dir))?;
        Ok(Object::load_pinned(config, &self.dir)?)
    }

    /// Attaches to a hook and pins that. Where a pin is already, its program is replaced in one step:
    /// no packet passes unseen. Says whether that was so, and how it is attached.
    pub fn attach(
        &self,
        object: &mut Object,
        (ifindex, interface): (u32, &str),
        hook: Hook,
        wish: Wish,
    ) -> Result<(bool, Mode), PinError> {
        let here = |pinned: &Pinned| (pinned.ifindex, pinned.hook) == (ifindex, hook);
        if let Some(old) = self.list()?.into_iter().find(here) {
            if self.is_alive(&old, interface)? {
                self.replace(object, interface, &old)?;
                return Ok((true, old.mode()));
            }
            self.forget(&old)?;
        }
        let attachment = object.attach(interface, hook, wish)?;
        let mode = attachment.mode;
        self.pin(object, ifindex, attachment)?;
        Ok((false, mode))
    }

    /// Whether the program behind a pin is at that hook of this interface of the calling thread's
    /// namespace. Indexes and inode numbers are given again: a pin may be of an interface, or of a
    /// namespace, that is gone, and a filter may have been replaced by somebody else's.
    pub fn is_alive(&self, pinned: &Pinned, interface: &str) -> Result<bool, PinError> {
        let path = self.path(pinned);
        let behind = match pinned.filter {
            None => PinnedLink::from_pin(&path)
                .and_then(|link| FdLink::from(link).info())
                .map(|link| link.program_id())
                .map_err(refused("look at", &path))?,
            Some(_) => SchedClassifier::from_pin(&path)
                .and_then(|program| program.info())
                .map(|program| program.id())
                .map_err(refused("look at", &path))?,
        };
        let there = residents(interface, pinned.hook, pinned.mode())
            .map_err(file("find the interface's programs for", &path))?;
        Ok(there.contains(&behind))
    }

    /// Removes a pin that holds nothing any more, with what was counted for it.
    pub fn forget(&self, pinned: &Pinned) -> Result<(), PinError> {
        let path = self.path(pinned);
        fs::remove_file(&path).map_err(file("remove", &path))?;
        let path = self.dir.join(map::COUNTERS);
        if path.exists() {
            counters::forget(MapData::from_pin(&path), pinned.ifindex, pinned.hook)
                .map_err(refused("clean", &path))?;
        }
        Ok(())
    }

    fn replace(&self, object: &mut Object, interface: &str, old: &Pinned) -> Result<(), PinError> {
        let path = self.path(old);
        let link = match old.filter {
            None => PinnedLink::from_pin(&path)
                .and_then(|pinned| SchedClassifierLink::try_from(FdLink::from(pinned)))
                .map_err(refused("open", &path))?,
            Some(filter) => filter_link(interface, old.hook, filter)
                .map_err(file("find the interface of", &path))?,
        };
        let classifier = object.classifier(old.hook)?;
        let link = classifier
            .attach_to_link(link)
            .and_then(|link| classifier.take_link(link))
            .map_err(refused("replace the program of", &path))?;
        if old.filter.is_some() {
            // The filter is not ours to remove when this value goes.
            std::mem::forget(link);
            fs::remove_file(&path).map_err(file("remove", &path))?;
            classifier.pin(&path).map_err(refused("pin", &path))?;
        }
        Ok(())
    }

    fn pin(
        &self,
        object: &mut Object,
        ifindex: u32,
        attachment: Attachment,
    ) -> Result<(), PinError> {
        let hook = attachment.hook;
        let classifier = object.classifier(hook)?;
        let made_qdisc = attachment.made_qdisc;
        let link = classifier.take_link(attachment.link).map_err(refused("take", &self.dir))?;
        let place = match (link.priority(), link.handle()) {
            (Ok(priority), Ok(handle)) => {
                let handle = handle.into();
                Pinned { ifindex, hook, filter: Some(Filter { priority, handle, made_qdisc }) }
            }
            _ => Pinned { ifindex, hook, filter: None },
        };
        let path = self.path(&place);
        if place.filter.is_some() {
            // If this fails the link goes out of scope, and takes the filter along.
            classifier.pin(&path).map_err(refused("pin", &path))?;
            std::mem::forget(link);
        } else {
            let link = FdLink::try_from(link).map_err(refused("take the link for", &path))?;
            link.pin(&path).map_err(refused("pin", &path))?;
        }
        Ok(())
    }

    /// Detaches what is alive behind a pin.
    pub fn detach(&self, pinned: &Pinned, interface: &str) -> Result<(), PinError> {
        let path = self.path(pinned);
        if let Some(filter) = pinned.filter {
            // Dropping it removes the filter.
            drop(filter_link(interface, pinned.hook, filter).map_err(file("find", &path))?);
        }
        self.forget(pinned)
    }

    /// Removes the maps, and what was counted in them, once nothing is attached any more.
    pub fn tidy(&self) -> Result<(), PinError> {
        if !self.dir.exists() || !self.list()?.is_empty() {
            return Ok(());
        }
        fs::remove_dir_all(&self.dir).map_err(file("remove", &self.dir))?;
        // The directories above are there for other namespaces too, unless they are empty.
        let above = self.dir.ancestors().skip(1).take_while(|dir| *dir != Path::new(BPFFS));
        above.map_while(|dir| fs::remove_dir(dir).ok()).for_each(drop);
        Ok(())
    }

    /// The counters of what is pinned here.
    pub fn counters(&self) -> Result<Vec<Row>, PinError> {
        let path = self.dir.join(map::COUNTERS);
        if !path.exists() {
            return Ok(Vec::new());
        }
        let read = || -> Result<Vec<Row>, MapError> {
            counters::rows(&Map::PerCpuHashMap(MapData::from_pin(&path)?))
        };
        read().map_err(refused("read", &path))
    }

    fn path(&self, pinned: &Pinned) -> PathBuf {
        self.dir.join(pinned.name())
    }
}

/// A filter of ours by what is known of it.
fn filter_link(
    interface: &str,
    hook: Hook,
    Filter { priority, handle, .. }: Filter,
) -> io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(
        interface,
        attach_type(hook),
        priority,
        TcHandle::from(handle),
        None,
    )
}

fn file<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> PinError + 'a {
    move |source| PinError::File { what, path: path.to_owned(), source }
}

fn refused<'a, E: std::error::Error + 'static>(
    what: &'static str,
    path: &'a Path,
) -> impl FnOnce(E) -> PinError + 'a {
    move |error| PinError::Refused { what, path: path.to_owned(), cause: Explained::new(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_found_again_by_its_name() {
        for (pinned, name) in [
            (Pinned { ifindex: 4, hook: Hook::Egress, filter: None }, "4-egress"),
            (
                Pinned {
                    ifindex: 12,
                    hook: Hook::Ingress,
                    filter: Some(Filter { priority: 49152, handle: 1, made_qdisc: true }),
                },
                "12-ingress-clsact-49152-1-made",
            ),
        ] {
            assert_eq!(pinned.name(), name);
            assert_eq!(Pinned::parse(name), Some(pinned));
        }
        for other in ["COUNTERS", "4-sideways", "x-egress", "4-egress-clsact-1-1", ""] {
            assert_eq!(Pinned::parse(other), None, "{other}");
        }
    }
}
