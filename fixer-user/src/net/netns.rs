//! A network namespace: how it is named, opened and entered.

use std::{
    fmt,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};

use crate::names::shown;

/// The label of the namespace that fixer was started in.
pub const HOST: &str = "host";

/// Where `ip netns add` keeps the namespaces that it named.
pub(super) const NAMED: &str = "/run/netns";

/// The namespace of the calling thread.
pub(crate) const OWN: &str = "/proc/thread-self/ns/net";

/// How a user names a network namespace: `NAME`, `/PATH` or `pid:N`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    given: String,
    path: PathBuf,
}

impl FromStr for Spec {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, Self::Err> {
        let path = if let Some(pid) = given.strip_prefix("pid:") {
            let pid: u32 = pid.parse().map_err(|_| {
                format!("'{pid}' is no process id: write pid:N with the number of a process")
            })?;
            PathBuf::from(format!("/proc/{pid}/ns/net"))
        } else if given.contains('/') {
            PathBuf::from(given)
        } else if given.is_empty() || given.starts_with('.') {
            return Err("write a name (as in `ip netns list`), a path, or pid:N".to_owned());
        } else {
            return Ok(Self::named(given));
        };
        Ok(Self { given: given.to_owned(), path })
    }
}

/// What tells a namespace from all others, for as long as it lives: device and inode of its file.
pub type Identity = (u64, u64);

impl Spec {
    /// The namespace that `ip netns` gave this name.
    pub fn named(name: &str) -> Self {
        Self { given: name.to_owned(), path: Path::new(NAMED).join(name) }
    }

    /// The name that `ip netns` knows it by, if it was given by name.
    pub fn name(&self) -> Option<&str> {
        let is_name = self.path.parent() == Some(Path::new(NAMED)) && !self.given.contains('/');
        is_name.then_some(&self.given)
    }

    /// As the user wrote it, or as it was found.
    pub fn given(&self) -> &str {
        &self.given
    }

    /// The process whose namespace this is, or through which it is reached. The namespace does not
    /// come back when it has ended: another process is another matter.
    pub fn process(&self) -> Option<i32> {
        let mut parts = self.path.strip_prefix("/proc").ok()?.iter();
        parts.next()?.to_str()?.parse().ok()
    }

    /// The namespace that is there at the moment. A name is made before it is given a namespace:
    /// until then it is an empty file.
    pub fn present(&self) -> Option<Identity> {
        let identity = identity(&fs::metadata(&self.path).ok()?);
        let namespaces = fs::metadata(OWN).ok()?.dev();
        (identity.0 == namespaces).then_some(identity)
    }

    /// Whether this is known not to be that namespace, or no longer. What cannot be seen, because the
    /// directory is shut to us, may be it.
    pub fn has_lost(&self, namespace: Identity) -> bool {
        match fs::metadata(&self.path) {
            Ok(metadata) => identity(&metadata) != namespace,
            Err(error) => is_gone(&error),
        }
    }
}

/// Whether a file is known not to be there, and is not only out of sight.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn identity(metadata: &fs::Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

/// A network namespace did not open.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the network namespace '{given}' at {path}: {source}; {remedy}", path = path.display())]
pub struct OpenError {
    given: String,
    path: PathBuf,
    source: io::Error,
    remedy: &'static str,
}

/// An open network namespace: it stays as long as this value does.
#[derive(Clone, Debug)]
pub struct NetNs {
    label: Arc<str>,
    /// How the user named it.
    spec: Option<Spec>,
    file: Arc<File>,
}

impl NetNs {
    /// The namespace of the calling thread, under the label [`HOST`].
    pub fn current() -> io::Result<Self> {
        Ok(Self { label: HOST.into(), spec: None, file: Arc::new(File::open(OWN)?) })
    }

    /// A new namespace that has no name: it is gone with the last thread, socket or value that
    /// holds it, however the process ends.
    pub fn scratch(label: &str) -> io::Result<Self> {
        let label = label.into();
        on_own_thread(move || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok(Self { label, spec: None, file: Arc::new(File::open(OWN)?) })
        })
    }

    /// The namespace that a user named.
    pub fn open(spec: &Spec) -> Result<Self, OpenError> {
        let error = |source: io::Error| OpenError {
            given: spec.given.clone(),
            path: spec.path.clone(),
            remedy: match source.kind() {
                io::ErrorKind::NotFound => {
                    "`ip netns list` shows the named ones; a process's is pid:N"
                }
                io::ErrorKind::PermissionDenied => {
                    "run as root, or grant CAP_SYS_ADMIN, and for another's pid:N CAP_SYS_PTRACE"
                }
                _ => "give a name, the path of a namespace file, or pid:N",
            },
            source,
        };
        let file = File::open(&spec.path).map_err(error)?;
        let label = shown(&spec.given).into();
        let netns = Self { label, spec: Some(spec.clone()), file: Arc::new(file) };
        // Entering is the only proof that the file is a network namespace, and that we may.
        netns.run(|| ()).map_err(error)?;
        Ok(netns)
    }

    /// Its label in events and metrics, safe to show.
    pub fn label(&self) -> &Arc<str> {
        &self.label
    }

    /// How the user named it, if it is not our own.
    pub fn spec(&self) -> Option<&Spec> {
        self.spec.as_ref()
    }

    /// What tells it from all others.
    pub fn identity(&self) -> io::Result<Identity> {
        Ok(identity(&self.file.metadata()?))
    }

    /// Runs `act` inside the namespace, on a thread that nobody else uses.
    pub fn run<T: Send>(&self, act: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_own_thread(|| {
            // Entering takes CAP_SYS_ADMIN, which is not needed to stay where one is.
            if File::open(OWN)?.metadata()?.ino() != self.file.metadata()?.ino() {
                setns(&*self.file, CloneFlags::CLONE_NEWNET)?;
            }
            Ok(act())
        })
    }

    /// The namespace's file, for those who enter by themselves.
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl fmt::Display for NetNs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label)
    }
}

/// A thread that changed its namespace is not given back: it ends with the act.
fn on_own_thread<T: Send>(act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, act)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_a_path_and_a_pid_are_told_apart() {
        let path = |given: &str| given.parse::<Spec>().unwrap().path;
        assert_eq!(path("blue"), Path::new("/run/netns/blue"));
        assert_eq!(path("./blue"), Path::new("./blue"));
        assert_eq!(path("pid:12"), Path::new("/proc/12/ns/net"));
        let name = |given: &str| given.parse::<Spec>().unwrap().name().map(str::to_owned);
        assert_eq!(name("blue"), Some("blue".to_owned()));
        assert_eq!([name("/run/netns/blue"), name("./blue"), name("pid:12")], [None, None, None]);
        assert!("pid:x".parse::<Spec>().unwrap_err().contains("no process id"));
        assert!("".parse::<Spec>().is_err());
        assert!("..".parse::<Spec>().is_err());
    }
}
