//! What of fixer's is attached in a network namespace, however it came there: read from the kernel,
//! which is the only one that cannot be wrong about it.
//!
//! Whoever holds a program is found without asking it. Pins bear the version of their ABI, and a program
//! whose counters are pinned stays (`fixer attach`); a filter's handle says the same. A live process has
//! claimed its programs. A tcx link ends with its last holder, and a filter does not: one that stays for
//! nobody and that nobody claims was left by a process that was killed.

use std::{
    collections::BTreeMap,
    fmt, io, thread,
    time::{Duration, Instant},
};

use aya::{
    maps::{MapError, MapInfo},
    programs::{ProgramInfo, SchedClassifier, loaded_programs},
};
use fixer_common::abi::{self, Hook, map, program};
use nix::{
    errno::Errno,
    net::if_::{if_indextoname, if_nametoindex},
};

use super::{
    attach::{AttachError, Mode, attach_type, lacks_tcx, refused},
    counters::{Counters, Row},
    pin::{self, Pins},
    query,
    remedy::errno,
};
use crate::{
    net::{
        claim::claims,
        filter::{self, Filter},
        turn::Turn,
    },
    say::say,
};

/// The names of our programs.
const OURS: [&str; 2] = [program::EGRESS, program::INGRESS];

/// How long the kernel may take until it removes the next link whose last holder is gone: it does so
/// later, by itself, and a thousand take it ten seconds.
const REMOVAL: Duration = Duration::from_secs(2);

/// Who holds a program where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Nobody has to: `fixer attach` put it there. With the version of its ABI.
    Attach(u32),
    /// A live `fixer run`, with the id of its process.
    Run(u32),
    /// The same in another pid namespace, where its process has a number that says nothing here.
    Elsewhere,
    /// A process or a pin that cannot be seen from here.
    Unknown,
    /// Nobody: a filter that a `fixer run` left that was killed.
    Nobody,
}

impl Holder {
    /// Its name in tables and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Attach(_) => "attach",
            Self::Run(_) | Self::Elsewhere => "run",
            Self::Unknown => "unknown",
            Self::Nobody => "nobody",
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attach(abi::VERSION) => f.write_str("attach"),
            Self::Attach(version) => write!(f, "attach (ABI {version})"),
            Self::Run(pid) => write!(f, "run (pid {pid})"),
            Self::Elsewhere => f.write_str("run (in another pid namespace)"),
            Self::Unknown => f.write_str("unknown"),
            Self::Nobody => f.write_str("nobody (left over)"),
        }
    }
}

/// A program of ours at a hook.
#[derive(Clone, Debug)]
pub struct Resident {
    /// The interface's index.
    pub ifindex: u32,
    /// The interface's name.
    pub interface: String,
    /// The hook.
    pub hook: Hook,
    /// The program's id.
    pub program: u32,
    /// Who holds it.
    pub holder: Holder,
    /// The filter; `None`: it is a tcx link.
    pub(super) filter: Option<Filter>,
    /// The id of its map of counters.
    pub counters: Option<u32>,
}

impl Resident {
    /// How it is attached.
    pub const fn mode(&self) -> Mode {
        match self.filter {
            None => Mode::Tcx,
            Some(_) => Mode::Clsact,
        }
    }

    /// Takes its filter off. A link has none: it ends with who holds it.
    pub fn remove_filter(&self, turn: &Turn) -> Result<(), AttachError> {
        let Self { ifindex, hook, filter, .. } = self;
        let Some(filter) = filter else { return Ok(()) };
        filter::remove(*ifindex, *hook, filter, turn)
            .map_err(|error| refused(&self.interface, *hook, error))
    }

    /// Makes room where a process was killed, and says so. Says whether there is room now: what is held
    /// stays.
    pub(super) fn reclaim(&self, turn: &Turn) -> Result<bool, AttachError> {
        if self.holder != Holder::Nobody {
            return Ok(false);
        }
        self.remove_filter(turn)?;
        let (hook, interface) = (self.hook.name(), &self.interface);
        say(format_args!("removed what a killed fixer left at {hook} of {interface}"));
        Ok(true)
    }

    /// What it has counted here; `None` as long as no packet matched.
    pub fn counted(&self) -> Result<Option<Row>, MapError> {
        let Some(id) = self.counters else { return Ok(None) };
        let rows = Counters::open(id)?.rows()?;
        Ok(rows.into_iter().find(|row| (row.ifindex, row.hook) == (self.ifindex, self.hook)))
    }
}

/// Every program of ours at the hooks of these interfaces of the calling thread's namespace.
pub fn residents<'a>(links: impl Iterator<Item = (u32, &'a str)>) -> io::Result<Vec<Resident>> {
    residents_at(links, &[Hook::Egress, Hook::Ingress])
}

/// The same at some hooks.
pub(super) fn residents_at<'a>(
    links: impl Iterator<Item = (u32, &'a str)>,
    hooks: &[Hook],
) -> io::Result<Vec<Resident>> {
    let (mut found, mut nameless, mut programs) = (Vec::new(), Vec::new(), None);
    for (ifindex, interface) in links {
        for &hook in hooks {
            let resident = |program, filter, counters| Resident {
                ifindex,
                interface: interface.to_owned(),
                hook,
                program,
                holder: Holder::Unknown,
                filter,
                counters,
            };
            match at_tcx(ifindex, hook)? {
                AtTcx::Programs(programs) => {
                    let ours = programs.iter().filter(|program| is_ours(program));
                    let ours = ours.map(|it| resident(it.id(), None, counters_of(it)));
                    found.extend(ours);
                }
                AtTcx::Ids(ids) => {
                    nameless.extend(ids.into_iter().map(|id| resident(id, None, None)));
                }
            }
            for filter in filter::filters(ifindex, hook)? {
                if !OURS.contains(&filter.name.as_str()) {
                    continue;
                }
                // A filter tells of itself; of its program only those are told who may ask.
                let programs = programs.get_or_insert_with(every_program);
                let counters = programs.get(&filter.program).and_then(counters_of);
                found.push(resident(filter.program, Some(filter), counters));
            }
        }
    }
    if !found.is_empty() || !nameless.is_empty() {
        let (pinned, claims) = (pin::by_counters()?, claims()?);
        found.extend(nameless.into_iter().filter(|it| claims.contains_key(&it.program)));
        for resident in &mut found {
            resident.holder = holder(resident, &pinned, &claims);
        }
    }
    Ok(found)
}

/// The same once links whose last holder is gone have gone too.
pub fn settled<'a>(
    links: impl Iterator<Item = (u32, &'a str)> + Clone,
) -> io::Result<Vec<Resident>> {
    let (mut fewest, mut deadline) = (usize::MAX, Instant::now() + REMOVAL);
    loop {
        let found = residents(links.clone())?;
        let is_going = |resident: &&Resident| resident.holder == Holder::Unknown;
        let going = found.iter().filter(is_going).count();
        // A look may have to wait for the kernel as well, so it is judged by what it found, not by when.
        if going < fewest {
            (fewest, deadline) = (going, Instant::now() + REMOVAL);
        }
        if going == 0 || Instant::now() > deadline {
            return Ok(found);
        }
        thread::sleep(Duration::from_millis(2));
    }
}

fn holder(
    resident: &Resident,
    pinned: &BTreeMap<u32, Pins>,
    claims: &BTreeMap<u32, Option<u32>>,
) -> Holder {
    let Resident { ifindex, hook, filter, .. } = resident;
    let pins = resident.counters.and_then(|id| pinned.get(&id));
    // The counters stay pinned for a moment when a link's pin is gone already.
    if let Some(pins) = pins.filter(|pins| filter.is_some() || pins.has_link(*ifindex, *hook)) {
        return Holder::Attach(pins.version);
    }
    let tag = filter.as_ref().and_then(Filter::tag);
    match (tag, claims.get(&resident.program)) {
        (Some(tag), _) if tag.stays => Holder::Attach(tag.version.into()),
        (_, Some(Some(pid))) => Holder::Run(*pid),
        (_, Some(None)) => Holder::Elsewhere,
        _ if filter.is_some() => Holder::Nobody,
        _ => Holder::Unknown,
    }
}

/// How a program of ours is attached to a hook of an interface of the calling thread's namespace, if
/// one is. Fails where that cannot be seen.
pub fn attached(interface: &str, hook: Hook) -> io::Result<Option<Mode>> {
    match SchedClassifier::query_tcx(interface, attach_type(hook)) {
        Ok((_, programs)) if programs.iter().any(is_ours) => return Ok(Some(Mode::Tcx)),
        Ok(_) => {}
        Err(error) if lacks_tcx(&error) => {}
        Err(error) => return Err(io::Error::other(error)),
    }
    let filters = filter::filters(if_nametoindex(interface)?, hook)?;
    let is_ours = |filter: &Filter| OURS.contains(&filter.name.as_str());
    Ok(filters.iter().any(is_ours).then_some(Mode::Clsact))
}

/// What is at a hook by tcx.
enum AtTcx {
    /// Programs.
    Programs(Vec<ProgramInfo>),
    /// Their ids, for those who may see no more. Whoever claims one says that it is fixer's.
    Ids(Vec<u32>),
}

/// The programs at a hook, by tcx. They are asked for by a name, and one by one by their ids: if one of
/// these has changed meanwhile, it is asked again.
fn at_tcx(ifindex: u32, hook: Hook) -> io::Result<AtTcx> {
    const TRIES: usize = 16;
    let none = || AtTcx::Programs(Vec::new());
    let mut outcome = Ok(none());
    for _ in 0..TRIES {
        // An index that is nobody's any more gives no name, and sometimes no error.
        let interface = match if_indextoname(ifindex) {
            Ok(name) if !name.is_empty() => name.to_string_lossy().into_owned(),
            Ok(_) | Err(Errno::ENXIO | Errno::ENODEV) => return Ok(none()),
            Err(error) => return Err(error.into()),
        };
        match SchedClassifier::query_tcx(&interface, attach_type(hook)) {
            Ok((_, programs)) => match if_nametoindex(&*interface) {
                Ok(index) if index == ifindex => return Ok(AtTcx::Programs(programs)),
                Ok(_) | Err(Errno::ENXIO | Errno::ENODEV) => {}
                Err(error) => return Err(error.into()),
            },
            Err(error) => match errno(&error) {
                _ if lacks_tcx(&error) => return Ok(none()),
                // Who may not even ask for ids sees filters all the same, and an interface may be gone.
                Some(libc::EPERM) => {
                    return Ok(AtTcx::Ids(query::ids(ifindex, hook).unwrap_or_default()));
                }
                Some(libc::ENODEV | libc::ENOENT) => outcome = Err(io::Error::other(error)),
                _ => return Err(io::Error::other(error)),
            },
        }
    }
    outcome
}

fn is_ours(program: &ProgramInfo) -> bool {
    program.name_as_str().is_some_and(|name| OURS.contains(&name))
}

fn every_program() -> BTreeMap<u32, ProgramInfo> {
    loaded_programs().flatten().map(|program| (program.id(), program)).collect()
}

fn counters_of(program: &ProgramInfo) -> Option<u32> {
    let maps = program.map_ids().ok()??;
    let is_counters = |id: &u32| {
        MapInfo::from_id(*id).is_ok_and(|info| info.name_as_str() == Some(map::COUNTERS))
    };
    maps.into_iter().find(is_counters)
}
