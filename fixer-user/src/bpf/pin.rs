//! What stays when fixer has gone: tcx links and maps, pinned on the BPF file system.
//!
//! `/sys/fs/bpf/fixer/v2/<namespace>/` holds the maps under their names, and for each tcx link a pin
//! with the interface's index and the hook (`4-egress`). A clsact filter stays without a pin. The
//! version is that of the ABI, so a fixer never takes maps for its own that it does not understand. The
//! namespace is the inode number of its file.
//!
//! A process may be killed between any two of these. What is there at a hook is always one of: nothing,
//! maps without an attachment (the next `attach` uses them, `detach` removes them), or all of it. How
//! far one came that was at several hooks is told by [`halfway`](super::halfway).

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use aya::{
    maps::{Map, MapData, MapError, MapInfo},
    programs::{
        links::{FdLink, PinnedLink},
        tc::SchedClassifierLink,
    },
};
use fixer_common::abi::{self, Hook, map};
use nix::{
    sys::statfs::{BPF_FS_MAGIC, statfs},
    unistd::geteuid,
};

use super::{
    attach::{AttachError, Held, Mode, Wish, has_name, make_room, on_filter},
    counters,
    load::{Config, LoadError, Object},
    places::{self, BPFFS, parse, remove_directory, remove_file, root, version},
    remedy::Explained,
    resident::{Holder, Resident},
    ring::Maps,
};
use crate::net::{
    filter,
    netns::{NetNs, OWN},
    turn::Turn,
};

/// Something about the pins went wrong.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// There is no BPF file system to pin to.
    #[error(
        "{BPFFS} is no BPF file system, so nothing can stay attached; mount one: mount -t bpf -o mode=0700 bpf {BPFFS}"
    )]
    NoBpffs,
    /// Others could move the pins.
    #[error(
        "{} belongs to another user, or others may write to it, so what is pinned there cannot be \
         trusted; see who made it, and remove it", path.display()
    )]
    Shared {
        /// The directory.
        path: PathBuf,
    },
    /// The kernel or the file system refused.
    #[error("cannot {what} {}: {cause}", path.display())]
    Refused {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed, and what to do.
        cause: Explained,
    },
    /// A map has our version's name and another shape.
    #[error(
        "the pinned map {} has another shape than this fixer's ({found}, and not {wanted}); \
         `fixer detach --all` in this namespace removes it, with what is attached and counted",
        path.display()
    )]
    Shape {
        /// The map.
        path: PathBuf,
        /// What it is.
        found: String,
        /// What it should be.
        wanted: String,
    },
    /// The programs were not attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The programs were not loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// The pins of one network namespace and one version of the ABI.
#[derive(Clone, Debug)]
pub struct Pins {
    /// The version.
    pub version: u32,
    pub(super) dir: PathBuf,
}

impl Pins {
    /// The place for the pins of a namespace, which need not be there yet.
    pub fn of(netns: &NetNs) -> Result<Self, PinError> {
        let is_bpffs = statfs(BPFFS).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC);
        if !is_bpffs {
            return Err(PinError::NoBpffs);
        }
        let root = root();
        if let Ok(made) = fs::symlink_metadata(&root) {
            let is_safe =
                made.is_dir() && made.uid() == geteuid().as_raw() && made.mode() & 0o022 == 0;
            if !is_safe {
                return Err(PinError::Shared { path: root });
            }
        }
        let inode = netns.file().metadata().map_err(refused("look at", &root))?.ino();
        Ok(Self::at(abi::VERSION, inode))
    }

    fn at(version: u32, inode: u64) -> Self {
        let dir = root().join(format!("v{version}")).join(inode.to_string());
        Self { version, dir }
    }

    /// The pins in a namespace of this version, and of every other that has some. Without a BPF file
    /// system there are none.
    pub fn every(netns: &NetNs) -> Result<Vec<Self>, PinError> {
        let mut every = match Self::of(netns) {
            Err(PinError::NoBpffs) => return Ok(Vec::new()),
            pins => vec![pins?],
        };
        let found = found(netns.file().metadata()).map_err(refused("read", &root()))?;
        every.extend(found.into_iter().filter(|pins| pins.version != abi::VERSION));
        Ok(every)
    }

    /// Loads an object whose maps are pinned here, or found here with what they have counted.
    pub fn load(&self, config: &Config) -> Result<Object, PinError> {
        self.check_shapes(config)?;
        let mut made = fs::DirBuilder::new();
        made.recursive(true).mode(0o700);
        made.create(&self.dir).map_err(refused("make", &self.dir))?;
        Ok(Object::load_pinned(config, &self.dir)?)
    }

    /// The maps that the events of what is attached here take their way through.
    pub fn event_maps(&self) -> Result<Maps, PinError> {
        let id = |name| {
            let path = self.dir.join(name);
            MapInfo::from_pin(&path).map(|map| map.id()).map_err(refused("open", &path))
        };
        Ok(Maps { events: id(map::EVENTS)?, wanted: id(map::WANTED)?, lost: id(map::LOST)? })
    }

    /// A map that is taken from here must be like the one that the object would make: a program that
    /// was built for another would count where nobody looks.
    fn check_shapes(&self, config: &Config) -> Result<(), PinError> {
        let pinned: Vec<_> =
            map::ALL.into_iter().filter(|name| self.dir.join(name).exists()).collect();
        if pinned.is_empty() {
            return Ok(());
        }
        let fresh = Object::load(config)?;
        for name in pinned {
            let path = self.dir.join(name);
            let found = MapInfo::from_pin(&path).map_err(refused("read", &path))?;
            let wanted = fresh.map_info(name).map_err(refused("compare", &path))?;
            let (found, wanted) = (shape(&found), shape(&wanted));
            if found != wanted {
                return Err(PinError::Shape { path, found, wanted });
            }
        }
        Ok(())
    }

    /// Attaches to a hook of an interface of the calling thread's namespace, so that it stays. Where
    /// this version is already, its program is replaced in one step: no packet passes unseen. Says
    /// whether that was so, and how it is attached. `None`: the interface is gone, or is called otherwise
    /// by now, and nothing was attached.
    pub fn attach(
        &self,
        turn: &Turn,
        object: &mut Object,
        (ifindex, interface): (u32, &str),
        how: (Hook, Wish),
        there: Option<&Resident>,
    ) -> Result<Option<(bool, Mode)>, PinError> {
        if !has_name(ifindex, interface).map_err(AttachError::from)? {
            return Ok(None);
        }
        match self.attach_to(turn, object, (ifindex, interface), how, there) {
            // What was refused was refused for that.
            Err(_) if matches!(has_name(ifindex, interface), Ok(false)) => Ok(None),
            outcome => outcome,
        }
    }

    fn attach_to(
        &self,
        turn: &Turn,
        object: &mut Object,
        (ifindex, interface): (u32, &str),
        (hook, wish): (Hook, Wish),
        there: Option<&Resident>,
    ) -> Result<Option<(bool, Mode)>, PinError> {
        let path = self.link(ifindex, hook);
        match there.map(|there| (there, there.holder, &there.filter)) {
            Some((there, Holder::Attach(abi::VERSION), None)) => {
                replace_link(object, hook, &path)?;
                return Ok(Some((true, there.mode())));
            }
            Some((there, Holder::Attach(abi::VERSION), Some(old))) => {
                on_filter(object.classifier(hook)?, hook, |program| {
                    filter::replace(ifindex, hook, old, program)
                })
                .map_err(refused("replace the program of the filter for", &path))?;
                return Ok(Some((true, there.mode())));
            }
            Some(_) | None => make_room(turn, (ifindex, interface), hook)?,
        }
        // Indexes are given again: what is here is of an interface that is gone.
        remove_file(&path)?;
        self.forget(ifindex, hook)?;
        let attachment = object.put(turn, (ifindex, interface), hook, wish, true)?;
        let mode = attachment.mode;
        // Where that cannot be told, it is taken for what it was a moment ago.
        if matches!(has_name(ifindex, interface), Ok(false)) {
            object.detach_in(turn, attachment)?;
            return Ok(None);
        }
        if let Held::Link(link) = attachment.held {
            let link = object.classifier(hook)?.take_link(link);
            let link = link.map_err(refused("take the link for", &path))?;
            let link = FdLink::try_from(link).map_err(refused("take the link for", &path))?;
            link.pin(&path).map_err(refused("pin", &path))?;
        }
        Ok(Some((false, mode)))
    }

    /// Detaches what is there by `fixer attach` of this version. A link goes with its pin, if a little
    /// later.
    pub fn detach(&self, turn: &Turn, there: &Resident) -> Result<(), PinError> {
        let Resident { ifindex, hook, filter, .. } = there;
        let path = self.link(*ifindex, *hook);
        match filter {
            Some(filter) => filter::remove(*ifindex, *hook, filter, turn)
                .map_err(refused("remove the filter of", &path))?,
            None => remove_file(&path)?,
        }
        self.forget(*ifindex, *hook)
    }

    /// Removes what was counted at a hook, if this fixer can read it.
    fn forget(&self, ifindex: u32, hook: Hook) -> Result<(), PinError> {
        let path = self.dir.join(map::COUNTERS);
        if self.version != abi::VERSION || !path.exists() {
            return Ok(());
        }
        counters::forget(MapData::from_pin(&path), ifindex, hook).map_err(refused("clean", &path))
    }

    /// Removes the pins that hold nothing any more; with the last, the maps and what was counted in
    /// them. Given is all that is left in the namespace.
    pub fn tidy(&self, left: &[Resident]) -> Result<(), PinError> {
        let ours: Vec<_> =
            left.iter().filter(|there| there.holder == Holder::Attach(self.version)).collect();
        if !ours.is_empty() {
            for (ifindex, hook) in self.links()? {
                let is_there = |there: &&&Resident| (there.ifindex, there.hook) == (ifindex, hook);
                if !ours.iter().any(|there| is_there(&there)) {
                    remove_file(&self.link(ifindex, hook))?;
                }
            }
            return Ok(());
        }
        remove_directory(&self.dir)
    }

    /// The links that are pinned.
    fn links(&self) -> Result<Vec<(u32, Hook)>, PinError> {
        let entries = fs::read_dir(&self.dir).map_err(refused("read", &self.dir))?;
        Ok(entries.flatten().filter_map(|entry| parse(entry.file_name().to_str()?)).collect())
    }

    fn link(&self, ifindex: u32, hook: Hook) -> PathBuf {
        self.dir.join(places::link(ifindex, hook))
    }

    /// Whether the link at a hook is pinned.
    pub(super) fn has_link(&self, ifindex: u32, hook: Hook) -> bool {
        self.link(ifindex, hook).exists()
    }
}

/// The pins of the calling thread's namespace, by the id of the map of counters among them. Who may not
/// see them, as a service under a user of its own, goes by what the handles of filters say.
pub(super) fn by_counters() -> io::Result<BTreeMap<u32, Pins>> {
    let every = match found(fs::metadata(OWN)) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Vec::new(),
        every => every?,
    };
    let with_id = every.into_iter().filter_map(|pins| {
        let counters = MapInfo::from_pin(pins.dir.join(map::COUNTERS)).ok()?;
        Some((counters.id(), pins))
    });
    Ok(with_id.collect())
}

/// The pins of every version for a namespace.
fn found(netns: io::Result<fs::Metadata>) -> io::Result<Vec<Pins>> {
    let inode = netns?.ino();
    let entries = match fs::read_dir(root()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let versions = entries.flatten().filter_map(|entry| version(&entry.file_name()));
    let pins = versions.map(|version| Pins::at(version, inode));
    Ok(pins.filter(|pins| pins.dir.exists()).collect())
}

fn replace_link(object: &mut Object, hook: Hook, path: &Path) -> Result<(), PinError> {
    let link = PinnedLink::from_pin(path)
        .and_then(|pinned| SchedClassifierLink::try_from(FdLink::from(pinned)))
        .map_err(refused("open", path))?;
    let classifier = object.classifier(hook)?;
    classifier
        .attach_to_link(link)
        .and_then(|link| classifier.take_link(link))
        .map(drop)
        .map_err(refused("replace the program of", path))
}

fn shape(map: &MapInfo) -> String {
    let kind = map.map_type().map_or_else(|_| "unknown".to_owned(), |kind| format!("{kind:?}"));
    let (key, value, most) = (map.key_size(), map.value_size(), map.max_entries());
    format!("{kind} of {most} with keys of {key} and values of {value} bytes")
}

pub(super) fn refused<'a, E: std::error::Error + 'static>(
    what: &'static str,
    path: &'a Path,
) -> impl FnOnce(E) -> PinError + 'a {
    move |error| PinError::Refused { what, path: path.to_owned(), cause: Explained::new(error) }
}

impl Object {
    /// What a map of this object is like.
    fn map_info(&self, name: &'static str) -> Result<MapInfo, MapError> {
        match self.ebpf.map(name) {
            Some(
                Map::Array(data)
                | Map::PerCpuArray(data)
                | Map::PerCpuHashMap(data)
                | Map::RingBuf(data),
            ) => data.info(),
            _ => Err(MapError::InvalidName { name: name.to_owned() }),
        }
    }
}
