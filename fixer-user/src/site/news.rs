//! What there is to say about interfaces.

use std::{fmt, io, sync::Arc};

use crate::{
    bpf::{
        attach::{AttachError, Attachment, Mode},
        load::LoadError,
    },
    net::links::{Header, Link},
};

/// What became of an interface.
pub type Outcome = Result<News, SiteError>;

/// Something has happened to an interface, and this was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The programs were attached.
    Taken {
        /// Where it is.
        place: String,
        /// The hooks.
        hooks: Vec<&'static str>,
        /// How.
        mode: Mode,
    },
    /// The programs were detached.
    Left {
        /// Where it is.
        place: String,
        /// Why.
        why: String,
    },
    /// It is attached, and has another name now.
    Renamed {
        /// Where it was.
        from: String,
        /// Its name now.
        to: String,
    },
    /// Somebody else took the programs off.
    Lost {
        /// Where it is.
        place: String,
        /// The hooks.
        hooks: Vec<&'static str>,
    },
    /// It was attached, and is gone.
    Gone {
        /// Where it was.
        place: String,
    },
}

impl News {
    /// That something was attached, if it was.
    pub(super) fn taken(place: String, made: &[Attachment]) -> Option<Self> {
        let hooks = made.iter().map(|attachment| attachment.hook.name()).collect();
        made.first().map(|first| Self::Taken { place, hooks, mode: first.mode })
    }

    /// That an interface which is not to be attached any more was left, and why.
    pub(super) fn left(place: String, link: &Link) -> Self {
        let why = match &link.header {
            Header::Ethernet => "its name is none of those that were selected".to_owned(),
            Header::Other(kind) => {
                format!("its packets have no Ethernet header any more, it is of the kind '{kind}'")
            }
        };
        Self::Left { place, why }
    }
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken { place, hooks, mode } => {
                write!(f, "attached to {} of {place} ({mode})", hooks.join(" and "))
            }
            Self::Left { place, why } => write!(f, "detached from {place}: {why}"),
            Self::Lost { place, hooks } => {
                write!(f, "somebody else took fixer off {} of {place}", hooks.join(" and "))
            }
            Self::Renamed { from, to } => write!(f, "{from} is called {to} now"),
            Self::Gone { place } => write!(f, "{place} is gone"),
        }
    }
}

/// An interface was named whose packets no program of ours can read: it would take their IP header for
/// an Ethernet header, and change bytes that it knows nothing about.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot attach to {place}: it is of the kind '{kind}', whose packets have no Ethernet header to \
     find DHCP behind; name the bridge, a veth or a tap that carries the replies"
)]
pub struct NoEthernet {
    /// Where it is.
    pub place: String,
    /// Its kind.
    pub kind: String,
}

/// An interface could not be taken or given back.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// Its namespace could not be entered.
    #[error("cannot enter the network namespace '{0}': {1}")]
    Enter(Arc<str>, io::Error),
    /// What there is in it could not be found out.
    #[error("cannot list the interfaces of '{0}': {1}")]
    List(Arc<str>, io::Error),
    /// It has no Ethernet header.
    #[error(transparent)]
    NoEthernet(#[from] NoEthernet),
    /// The object was not loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The programs were not attached or detached.
    #[error(transparent)]
    Attach(#[from] AttachError),
}
