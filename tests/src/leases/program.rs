//! A client or a server as it is packaged, started in a sandbox.
//!
//! `cargo xtask leases` unpacks the packages below `target/leases/root` instead of installing them: a
//! DHCP client that is installed may take over the machine, a server may start. What the machine has
//! already is not fetched again, so a program is looked for in both places.

use std::{
    env, fs,
    fs::File,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::Receiver,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use fixer_user::{
    lab::{sandbox::Sandboxed, scene::lines},
    net::netns::NetNs,
};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// Where the packages are unpacked, from the root of the repository.
const UNPACKED: &str = "target/leases/root";

/// Where programs are, below the root of a system.
const PLACES: [&str; 6] = ["usr/sbin", "usr/bin", "sbin", "bin", "usr/lib/systemd", "lib/systemd"];

/// Puts files where the program looks for them, and becomes the program. All that it writes lies in
/// the sandbox's own file systems: `/run`, `/var` and `/tmp`.
///
/// The user that systemd-networkd changes to is root here: a process that changes its user is no
/// longer killed with the thread that started it. Others do not find theirs, and stay root.
///
/// A client that cannot change the settings of its interface gives up. Those below `/proc/sys/net`
/// are the network namespace's own.
const PREPARE: &str = r#"
set -e
exec 2>&1
printf '%s:x:0:0::/:/bin/sh\n' root systemd-network >/run/passwd
mount --bind /run/passwd /etc/passwd
mount --bind /proc/sys/net /proc/sys/net
mount -o remount,bind,rw /proc/sys/net
while [ "$1" != -- ]; do
    mkdir -p "${1%/*}"
    printf %s "$2" >"$1"
    shift 2
done
shift
exec "$@"
"#;

/// How a program is started, and how it tells that it has come so far.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// Debian's name of the package that it is in.
    pub package: &'static str,
    /// Its name.
    pub program: &'static str,
    /// Its arguments, with spaces between them.
    pub arguments: &'static str,
    /// What it finds in its environment: name and value.
    pub environment: &'static [(&'static str, &'static str)],
    /// Files that are made for it: path and content.
    pub files: &'static [(&'static str, &'static str)],
    /// Words that it says when a server listens, or when a client has a lease.
    pub says: &'static str,
}

/// Where the programs of recipes are found.
#[derive(Debug)]
pub struct Programs {
    unpacked: Option<Unpacked>,
}

/// The unpacked packages. They are reached through a descriptor, because the sandbox may hide the
/// directory: it covers `/tmp` and `/var`, and a clone may lie there.
#[derive(Debug)]
struct Unpacked {
    directory: PathBuf,
    seen_inside: PathBuf,
    libraries: String,
    _open: File,
}

impl Programs {
    /// Looks for the unpacked packages.
    pub fn open() -> Result<Self> {
        let here = env::var_os("CARGO_MANIFEST_DIR")
            .context("the repository is not known; start this with cargo")?;
        let directory = Path::new(&here).join("..").join(UNPACKED);
        let unpacked = directory.is_dir().then(|| Unpacked::open(directory)).transpose()?;
        Ok(Self { unpacked })
    }

    /// Starts a recipe's program in a namespace.
    pub fn start(&self, netns: &NetNs, recipe: &Recipe) -> Result<Started> {
        let mut command = Command::new("sh");
        command.args(["-c", PREPARE, "sh"]);
        for (path, content) in recipe.files {
            command.args([path, content]);
        }
        command.arg("--");
        let mut command = self.with(command, recipe)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = Sandboxed::spawn(netns, command)
            .with_context(|| format!("cannot start {} in a sandbox", recipe.program))?;
        let stdout = process.child().stdout.take().context("it was piped above")?;
        Ok(Started { lines: lines(stdout), said: Vec::new(), _process: process })
    }

    /// A recipe's program without a sandbox, for one that only reads. Its files are not made.
    pub fn bare(&self, recipe: &Recipe) -> Result<Command> {
        self.with(Command::new("env"), recipe)
    }

    /// The program and its arguments as the last arguments of a command.
    fn with(&self, mut command: Command, recipe: &Recipe) -> Result<Command> {
        command.arg(self.find(recipe)?).args(recipe.arguments.split_whitespace());
        command.envs(recipe.environment.iter().copied());
        if let Some(unpacked) = &self.unpacked {
            command.env("LD_LIBRARY_PATH", &unpacked.libraries);
        }
        Ok(command)
    }

    /// Whether a recipe's program is here.
    pub fn has(&self, recipe: &Recipe) -> bool {
        self.find(recipe).is_ok()
    }

    fn find(&self, recipe: &Recipe) -> Result<PathBuf> {
        let unpacked = self.unpacked.iter().flat_map(|unpacked| {
            PLACES.map(|place| (unpacked.directory.join(place), unpacked.seen_inside.join(place)))
        });
        let installed = PLACES.map(|place| Path::new("/").join(place));
        unpacked
            .chain(installed.map(|place| (place.clone(), place)))
            .find(|(place, _)| place.join(recipe.program).is_file())
            .map(|(_, place)| place.join(recipe.program))
            .with_context(|| {
                format!(
                    "there is no {} here: `cargo xtask leases` fetches it (Debian's package {})",
                    recipe.program, recipe.package
                )
            })
    }
}

impl Unpacked {
    fn open(directory: PathBuf) -> Result<Self> {
        let open = File::open(&directory)?;
        // The programs inherit it, and find their libraries through it.
        fcntl(&open, FcntlArg::F_SETFD(FdFlag::empty()))?;
        let seen_inside = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
        let mut found = Vec::new();
        for place in ["lib", "usr/lib"] {
            libraries(&directory.join(place), 2, &mut found)?;
        }
        let found: Vec<_> = found
            .iter()
            .filter_map(|place| place.strip_prefix(&directory).ok())
            .map(|place| seen_inside.join(place).display().to_string())
            .collect();
        Ok(Self { libraries: found.join(":"), directory, seen_inside, _open: open })
    }
}

/// Every directory with shared libraries in it, this deep below `place`.
fn libraries(place: &Path, deep: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    if !place.is_dir() {
        return Ok(());
    }
    let mut is_one = false;
    for entry in fs::read_dir(place)? {
        let path = entry?.path();
        if path.is_dir() && deep > 0 {
            libraries(&path, deep - 1, found)?;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        is_one |= name.ends_with(".so") || name.contains(".so.");
    }
    if is_one {
        found.push(place.to_owned());
    }
    Ok(())
}

/// A program that runs, killed when this is dropped.
#[derive(Debug)]
pub struct Started {
    lines: Receiver<String>,
    said: Vec<String>,
    _process: Sandboxed,
}

impl Started {
    /// Whether it says these words before `patience` is over, or before it ends.
    pub fn says(&mut self, words: &str, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let left = || deadline.saturating_duration_since(Instant::now());
        while let Ok(line) = self.lines.recv_timeout(left()) {
            let is_it = line.contains(words);
            self.said.push(line);
            if is_it {
                return true;
            }
        }
        false
    }

    /// All that it said so far.
    pub fn said(mut self) -> Vec<String> {
        self.said.extend(self.lines.try_iter());
        self.said
    }
}
