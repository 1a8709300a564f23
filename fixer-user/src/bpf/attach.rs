//! Attaches a program to a hook of an interface, and takes it off again.
//!
//! Linux 6.6 and newer have tcx: a link that the kernel removes with its last holder. Older ones
//! have the clsact qdisc with a filter on it, which stays until somebody removes it. Which of the
//! two a kernel can do is found by trying.

use std::{collections::BTreeMap, fmt, io};

use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType,
    tc::{NlOptions, SchedClassifierLinkId, TcAttachOptions, qdisc_add_clsact},
};
use fixer_common::abi::{Hook, program};
use nix::net::if_::if_nametoindex;

use super::{
    load::{LoadError, Object},
    remedy::{Explained, errno},
};
use crate::net::{links::Link, netns::NetNs, qdisc};

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A tcx link.
    Tcx,
    /// A filter on a clsact qdisc.
    Clsact,
}

impl Mode {
    /// Its name in messages and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a program is to be attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Wish {
    /// tcx where the kernel has it, else clsact.
    #[default]
    Auto,
    /// tcx, or not at all.
    Tcx,
    /// A filter on a clsact qdisc, or not at all.
    Clsact,
}

/// A program at a hook of an interface.
#[derive(Debug)]
pub struct Attachment {
    /// The interface's name when it was attached.
    pub interface: String,
    /// The hook.
    pub hook: Hook,
    /// How it is attached.
    pub mode: Mode,
    /// Whether the clsact qdisc was not there before.
    pub made_qdisc: bool,
    pub(super) link: SchedClassifierLinkId,
}

/// A program was not attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// A fixer is there already.
    #[error(
        "a fixer is already attached to {hook} of {interface} by {mode} (program {id}); stop its \
         `fixer run`, or undo `fixer attach` with `fixer detach -i {interface}`{}",
        if *mode == Mode::Clsact {
            format!("; if it was killed: tc filter del dev {interface} {} pref 1", hook.name())
        } else {
            String::new()
        },
        hook = hook.name()
    )]
    Occupied {
        /// The interface's name.
        interface: String,
        /// The hook.
        hook: Hook,
        /// How it is attached.
        mode: Mode,
        /// The program's id.
        id: u32,
    },
    /// The kernel refused.
    #[error("cannot attach to {hook} of {interface}: {cause}", hook = hook.name())]
    Refused {
        /// The interface's name.
        interface: String,
        /// The hook.
        hook: Hook,
        /// Why, and what to do.
        cause: Explained,
    },
    /// The object is not what it should be.
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// The filters of ours on the clsact qdiscs of a namespace, found in one look for all interfaces:
/// asking netlink about a thousand of them one by one takes seconds.
#[derive(Debug, Default)]
pub struct Filters(BTreeMap<(u32, Hook), u32>);

impl Filters {
    /// Looks at the calling thread's namespace. What cannot be found out is no reason not to attach.
    pub fn look() -> Self {
        let found = NetNs::current().and_then(|netns| qdisc::all_filters_named(&netns, &OURS));
        let found = found.unwrap_or_default().into_iter();
        Self(found.map(|(ifindex, hook, id)| ((ifindex, hook), id)).collect())
    }
}

impl Object {
    /// Attaches the hook's program to one of many interfaces of the calling thread's namespace.
    ///
    /// Attaching is by name, and a name may have gone to another interface since the link was read.
    /// Then nothing is attached, and that is no error: there is news about both on the way.
    pub fn attach_link(
        &mut self,
        link: &Link,
        hook: Hook,
        wish: Wish,
        filters: &Filters,
    ) -> Result<Option<Attachment>, AttachError> {
        let is_meant = || if_nametoindex(link.name.as_str()).is_ok_and(|now| now == link.ifindex);
        if !is_meant() {
            return Ok(None);
        }
        let filter = filters.0.get(&(link.ifindex, hook)).map(|id| (*id, Mode::Clsact));
        let resident = resident_by_link(&link.name, hook).or(filter);
        let outcome = match resident {
            Some((id, mode)) => {
                let interface = link.name.clone();
                Err(AttachError::Occupied { interface, hook, mode, id })
            }
            None => self.attach_unseen(&link.name, hook, wish),
        };
        if is_meant() {
            return outcome.map(Some);
        }
        outcome.map_or(Ok(()), |mistaken| self.detach(mistaken))?;
        Ok(None)
    }

    /// Attaches the hook's program to an interface of the calling thread's namespace, before the
    /// tcx programs that are already there: one that ends the chain must not hide replies from us.
    pub fn attach(
        &mut self,
        interface: &str,
        hook: Hook,
        wish: Wish,
    ) -> Result<Attachment, AttachError> {
        if let Some((id, mode)) = resident(interface, hook) {
            let interface = interface.to_owned();
            return Err(AttachError::Occupied { interface, hook, mode, id });
        }
        self.attach_unseen(interface, hook, wish)
    }

    /// Attaches without a look at who is there.
    fn attach_unseen(
        &mut self,
        interface: &str,
        hook: Hook,
        wish: Wish,
    ) -> Result<Attachment, AttachError> {
        let refused = |error: ProgramError| AttachError::Refused {
            interface: interface.to_owned(),
            hook,
            cause: Explained::new(error),
        };
        let classifier = self.classifier(hook)?;
        if wish != Wish::Clsact {
            let tcx = TcAttachOptions::TcxOrder(LinkOrder::first());
            match classifier.attach_with_options(interface, attach_type(hook), tcx) {
                Ok(link) => {
                    let interface = interface.to_owned();
                    return Ok(Attachment {
                        interface,
                        hook,
                        mode: Mode::Tcx,
                        made_qdisc: false,
                        link,
                    });
                }
                Err(error) if wish == Wish::Auto && lacks_tcx(&error) => {}
                Err(error) => return Err(refused(error)),
            }
        }
        let made_qdisc = add_clsact(interface).map_err(refused)?;
        let mut filter = |priority| {
            let options = NlOptions { priority, ..NlOptions::default() };
            let options = TcAttachOptions::Netlink(options);
            classifier.attach_with_options(interface, attach_type(hook), options)
        };
        // Somebody's filter of another kind may have the first place; then the kernel finds one.
        let link = filter(FIRST).or_else(|_| filter(ANY)).map_err(|error| {
            if made_qdisc {
                // The refusal is what matters; that this fails too would only hide it.
                let _ = qdisc::remove_unused_clsact_of(interface);
            }
            refused(error)
        })?;
        let interface = interface.to_owned();
        Ok(Attachment { interface, hook, mode: Mode::Clsact, made_qdisc, link })
    }

    /// Takes a program off. An interface that is gone took it along: that is no error.
    pub fn detach(&mut self, attachment: Attachment) -> Result<(), AttachError> {
        let hook = attachment.hook;
        match self.classifier(hook)?.detach(attachment.link) {
            Err(error) if !is_gone(&error) => Err(AttachError::Refused {
                interface: attachment.interface,
                hook,
                cause: Explained::new(error),
            }),
            _ => Ok(()),
        }
    }
}

pub(super) const fn attach_type(hook: Hook) -> TcAttachType {
    match hook {
        Hook::Ingress => TcAttachType::Ingress,
        Hook::Egress => TcAttachType::Egress,
    }
}

/// The priority of a filter that comes before the others: one that ends the chain must not hide
/// replies from us.
const FIRST: u16 = 1;

/// The priority that lets the kernel choose.
const ANY: u16 = 0;

/// The id of a program of ours that is at a hook already, and how it is attached. Where that cannot
/// be found out, for want of a privilege, it is no reason not to attach: a packet that is fixed twice
/// is still right.
fn resident(interface: &str, hook: Hook) -> Option<(u32, Mode)> {
    [Mode::Tcx, Mode::Clsact].into_iter().find_map(|mode| {
        let ids = residents(interface, hook, mode).unwrap_or_default();
        ids.first().map(|id| (*id, mode))
    })
}

/// The same for tcx alone.
fn resident_by_link(interface: &str, hook: Hook) -> Option<(u32, Mode)> {
    let ids = residents(interface, hook, Mode::Tcx).unwrap_or_default();
    ids.first().map(|id| (*id, Mode::Tcx))
}

/// How a program of ours is attached to a hook of an interface of the calling thread's namespace, if
/// one is.
pub fn attached(interface: &str, hook: Hook) -> io::Result<Option<Mode>> {
    for mode in [Mode::Tcx, Mode::Clsact] {
        if !residents(interface, hook, mode)?.is_empty() {
            return Ok(Some(mode));
        }
    }
    Ok(None)
}

/// The names of our programs.
const OURS: [&str; 2] = [program::EGRESS, program::INGRESS];

/// The ids of our programs at a hook of an interface of the calling thread's namespace.
pub(super) fn residents(interface: &str, hook: Hook, mode: Mode) -> io::Result<Vec<u32>> {
    match mode {
        Mode::Tcx => match SchedClassifier::query_tcx(interface, attach_type(hook)) {
            Ok((_, programs)) => Ok(programs
                .iter()
                .filter(|program| program.name_as_str().is_some_and(|name| OURS.contains(&name)))
                .map(|program| program.id())
                .collect()),
            Err(error) if lacks_tcx(&error) => Ok(Vec::new()),
            Err(error) => Err(io::Error::other(error)),
        },
        Mode::Clsact => qdisc::filters_named(&NetNs::current()?, interface, hook, &OURS),
    }
}

/// Kernels before 6.6 know no such attach type; some are built without it.
fn lacks_tcx(error: &ProgramError) -> bool {
    matches!(errno(error), Some(libc::EINVAL | libc::ENOTSUP))
}

fn is_gone(error: &ProgramError) -> bool {
    matches!(errno(error), Some(libc::ENODEV | libc::ENOENT | libc::EINVAL))
}

/// Adds the clsact qdisc, and says whether it was not there before.
fn add_clsact(interface: &str) -> Result<bool, ProgramError> {
    match qdisc_add_clsact(interface) {
        Ok(()) => Ok(true),
        Err(error) => {
            let error = ProgramError::from(error);
            match errno(&error).map(io::Error::from_raw_os_error).map(|error| error.kind()) {
                Some(io::ErrorKind::AlreadyExists) => Ok(false),
                _ => Err(error),
            }
        }
    }
}
