//! Attaches a program to a hook of an interface, and takes it off again.
//!
//! Linux 6.6 and newer have tcx: a link that the kernel removes with its last holder. Older ones
//! have the clsact qdisc with a filter on it, which stays until somebody removes it. Which of the
//! two a kernel can do is found by trying.

use std::{
    fmt, io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType,
    tc::{SchedClassifierLinkId, TcAttachOptions},
};
use fixer_common::abi::{self, Hook};
use nix::{errno::Errno, net::if_::if_nametoindex};

use super::{
    load::{LoadError, Object},
    remedy::{Explained, errno},
    resident::{Holder, Resident, residents_at, settled},
};
use crate::net::{
    claim::Claim,
    filter::{self, Filter, Program},
    links::Link,
    turn::{SHORT, Turn},
};

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
    pub(super) held: Held,
}

/// What there is to an attachment.
#[derive(Debug)]
pub(super) enum Held {
    /// A tcx link, which the object owns.
    Link(SchedClassifierLinkId),
    /// A filter on a clsact qdisc.
    Filter(u32, Filter),
}

/// A program was not attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// A fixer is there already.
    #[error(
        "a fixer is already attached to {hook} of {interface} by {mode} (program {program}), {}",
        held_by(interface, *holder),
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
        program: u32,
        /// Who holds it.
        holder: Holder,
    },
    /// The interface is not there any more under its name.
    #[error("{interface} went away, or got another name, while it was to be attached")]
    Gone {
        /// The interface's name.
        interface: String,
    },
    /// It could not be found out who is there.
    #[error("cannot look at what is attached already: {0}")]
    Look(#[from] io::Error),
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

/// Who holds it, and what to do.
fn held_by(interface: &str, holder: Holder) -> String {
    match holder {
        Holder::Attach(version) if version == abi::VERSION => {
            format!("put there by `fixer attach`; undo it: fixer detach -i {interface}")
        }
        Holder::Attach(version) => format!(
            "put there by `fixer attach` of another version (ABI {version}, and this one is {}); \
             take it off with `fixer detach -i {interface}`, of that version or of this one",
            abi::VERSION
        ),
        Holder::Run(pid) => format!("held by the `fixer run` with process id {pid}; stop that first"),
        Holder::Elsewhere => {
            "held by a `fixer run` in another pid namespace (a container, or the host of this one); \
             stop that first"
                .to_owned()
        }
        Holder::Unknown | Holder::Nobody => {
            "held by a process or a pin that cannot be seen from here; stop that `fixer run`, or use \
             `fixer detach` where /sys/fs/bpf has its pins"
                .to_owned()
        }
    }
}

impl From<&Resident> for AttachError {
    fn from(there: &Resident) -> Self {
        Self::Occupied {
            interface: there.interface.clone(),
            hook: there.hook,
            mode: there.mode(),
            program: there.program,
            holder: there.holder,
        }
    }
}

/// The right to attach in a namespace.
#[derive(Debug)]
pub struct Batch {
    turn: Turn,
}

impl Batch {
    /// Waits for its turn in the calling thread's namespace, but not long, and until links at these
    /// interfaces whose last holder is gone have gone too.
    pub fn begin<'a>(
        links: impl Iterator<Item = (u32, &'a str)> + Clone,
    ) -> Result<Self, AttachError> {
        let turn = Turn::wait(SHORT)?;
        settled(links)?;
        Ok(Self { turn })
    }
}

/// Makes room at a hook, right before something is put there: a turn may have been given up, and then
/// somebody else may have come since the first look. What is held stays, and is an error.
pub(super) fn make_room(
    turn: &Turn,
    (ifindex, interface): (u32, &str),
    hook: Hook,
) -> Result<(), AttachError> {
    for resident in residents_at([(ifindex, interface)].into_iter(), &[hook])? {
        if !resident.reclaim(turn)? {
            return Err((&resident).into());
        }
    }
    Ok(())
}

/// Whether an interface still has the name by which it was found. tcx attaches by name, and a name may go
/// to another interface at any time.
pub(super) fn has_name(ifindex: u32, interface: &str) -> io::Result<bool> {
    match if_nametoindex(interface) {
        Ok(now) => Ok(now == ifindex),
        Err(Errno::ENODEV) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl Object {
    /// Attaches the hook's program to an interface of the calling thread's namespace.
    pub fn attach(
        &mut self,
        interface: &str,
        hook: Hook,
        wish: Wish,
    ) -> Result<Attachment, AttachError> {
        let ifindex = if_nametoindex(interface)
            .map_err(|errno| refused(interface, hook, io::Error::from(errno)))?;
        let batch = Batch::begin([(ifindex, interface)].into_iter())?;
        self.attach_in(&batch, (ifindex, interface), hook, wish)
    }

    /// The same for one of many interfaces, before the programs that are already there: one that ends
    /// the chain must not hide replies from us. It stays until it is detached; a filter that a killed
    /// process left makes room for it.
    ///
    /// Attaching is by name, and a name may have gone to another interface since the link was read.
    /// Then nothing is attached, and that is no error: there is news about both on the way.
    pub fn attach_link(
        &mut self,
        batch: &Batch,
        link: &Link,
        hook: Hook,
        wish: Wish,
    ) -> Result<Option<Attachment>, AttachError> {
        let is_meant = || has_name(link.ifindex, &link.name);
        if !is_meant()? {
            return Ok(None);
        }
        let outcome = self.attach_in(batch, (link.ifindex, &link.name), hook, wish);
        // Where that cannot be told, it is taken for what it was a moment ago.
        if is_meant().unwrap_or(true) {
            return outcome.map(Some);
        }
        outcome.map_or(Ok(()), |mistaken| self.detach_in(&batch.turn, mistaken))?;
        Ok(None)
    }

    fn attach_in(
        &mut self,
        Batch { turn }: &Batch,
        (ifindex, interface): (u32, &str),
        hook: Hook,
        wish: Wish,
    ) -> Result<Attachment, AttachError> {
        self.claim(hook).map_err(|error| refused(interface, hook, error))?;
        make_room(turn, (ifindex, interface), hook)?;
        self.put(turn, (ifindex, interface), hook, wish, false)
    }

    /// Lets others see that the hook's program is in use, for as long as this object lives.
    fn claim(&mut self, hook: Hook) -> io::Result<()> {
        let program = self.classifier(hook).map_err(io::Error::other)?.info();
        let program = program.map_err(io::Error::other)?.id();
        // It may have been claimed for another interface.
        if !self.claims.iter().any(|claim| claim.program == program) {
            self.claims.push(Claim::on(program)?);
        }
        Ok(())
    }

    /// Lets go of what was claimed: a claim is a socket, and keeps its namespace alive.
    pub fn unclaim(&mut self) {
        self.claims.clear();
    }

    /// Attaches, whoever is there.
    pub(super) fn put(
        &mut self,
        _turn: &Turn,
        (ifindex, interface): (u32, &str),
        hook: Hook,
        wish: Wish,
        stays: bool,
    ) -> Result<Attachment, AttachError> {
        let attachment = |mode, held| {
            let interface = interface.to_owned();
            Attachment { interface, hook, mode, held }
        };
        let classifier = self.classifier(hook)?;
        if wish != Wish::Clsact {
            let tcx = TcAttachOptions::TcxOrder(LinkOrder::first());
            match classifier.attach_with_options(interface, attach_type(hook), tcx) {
                Ok(link) => return Ok(attachment(Mode::Tcx, Held::Link(link))),
                Err(error) if wish == Wish::Auto && lacks_tcx(&error) => {}
                Err(error) => return Err(refused(interface, hook, error)),
            }
        }
        let version = abi::VERSION as u16;
        let filter = on_filter(classifier, hook, |program| {
            filter::add(ifindex, hook, program, version, stays)
        });
        let filter = filter.map_err(|error| refused(interface, hook, error))?;
        Ok(attachment(Mode::Clsact, Held::Filter(ifindex, filter)))
    }

    /// Puts this object's program in the place of another's, in one step: no packet passes unseen. If
    /// that is refused the other's is taken off.
    pub fn replace(
        &mut self,
        turn: &Turn,
        old: &mut Self,
        attachment: Attachment,
    ) -> Result<Attachment, AttachError> {
        let Attachment { interface, hook, mode, held } = attachment;
        let refused = |error: ProgramError| refused(&interface, hook, error);
        self.claim(hook).map_err(|error| refused(ProgramError::IOError(error)))?;
        let classifier = self.classifier(hook)?;
        let held = match held {
            Held::Link(link) => {
                let link = old.classifier(hook)?.take_link(link);
                let link = link.and_then(|link| classifier.attach_to_link(link));
                Held::Link(link.map_err(refused)?)
            }
            Held::Filter(ifindex, filter) => {
                let replaced = on_filter(classifier, hook, |program| {
                    filter::replace(ifindex, hook, &filter, program)
                });
                if let Err(error) = replaced {
                    // The refusal is what matters; that this fails too would only hide it.
                    let _ = filter::remove(ifindex, hook, &filter, turn);
                    return Err(refused(ProgramError::IOError(error)));
                }
                let program = classifier.info().map_err(refused)?.id();
                Held::Filter(ifindex, Filter { program, ..filter })
            }
        };
        Ok(Attachment { interface, hook, mode, held })
    }

    /// Takes a program off an interface of the calling thread's namespace. An interface that is gone took
    /// it along: that is no error.
    pub fn detach(&mut self, attachment: Attachment) -> Result<(), AttachError> {
        self.detach_in(&Turn::wait(SHORT)?, attachment)
    }

    /// The same for one of many.
    pub fn detach_in(&mut self, turn: &Turn, attachment: Attachment) -> Result<(), AttachError> {
        let Attachment { interface, hook, held, .. } = attachment;
        match held {
            Held::Link(link) => match self.classifier(hook)?.detach(link) {
                Err(error) if !is_gone(&error) => Err(refused(&interface, hook, error)),
                _ => Ok(()),
            },
            Held::Filter(ifindex, filter) => filter::remove(ifindex, hook, &filter, turn)
                .map_err(|error| refused(&interface, hook, error)),
        }
    }
}

/// Hands a program to whoever puts it into a filter.
pub(super) fn on_filter<T>(
    classifier: &SchedClassifier,
    hook: Hook,
    act: impl FnOnce(Program<'_>) -> io::Result<T>,
) -> io::Result<T> {
    let fd = classifier.fd().map_err(io::Error::other)?;
    act(Program { fd: fd.as_fd().as_raw_fd(), name: Object::program_name(hook) })
}

pub(super) fn refused(
    interface: &str,
    hook: Hook,
    error: impl std::error::Error + 'static,
) -> AttachError {
    AttachError::Refused { interface: interface.to_owned(), hook, cause: Explained::new(error) }
}

pub(super) const fn attach_type(hook: Hook) -> TcAttachType {
    match hook {
        Hook::Ingress => TcAttachType::Ingress,
        Hook::Egress => TcAttachType::Egress,
    }
}

/// Kernels before 6.6 know no such attach type; some are built without it.
pub(super) fn lacks_tcx(error: &ProgramError) -> bool {
    matches!(errno(error), Some(libc::EINVAL | libc::ENOTSUP))
}

fn is_gone(error: &ProgramError) -> bool {
    matches!(errno(error), Some(libc::ENODEV | libc::ENOENT | libc::EINVAL))
}
