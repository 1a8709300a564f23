//! Other programs, asked what they know: only when they are there, and never for long.

use std::{
    env,
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, setns};
use std::os::unix::process::CommandExt as _;

use crate::net::netns::NetNs;

/// How long a program may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much it may say, in bytes.
const MOST: u64 = 32 << 20;
/// Where the programs of administrators are, though not in everybody's `PATH`.
const PLACES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin"];

/// Where a program is, if it is there.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let places = env::split_paths(&path).chain(PLACES.map(PathBuf::from));
    places.map(|place| place.join(name)).find(|path| {
        path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    })
}

/// What a program says on standard output, run inside a namespace. `None`: it is not installed.
pub fn ask(netns: &NetNs, name: &str, arguments: &[&str]) -> Option<io::Result<String>> {
    let program = find(name)?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Its words are read, so they must not depend on the user's language.
    command.env("LC_ALL", "C");
    Some(run(netns, command).map_err(|error| {
        io::Error::new(error.kind(), format!("{name} {}: {error}", arguments.join(" ")))
    }))
}

/// Where rules of iptables are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// In nftables.
    Nft,
    /// In the kernel's older place.
    Legacy,
}

/// What the program of iptables, or ebtables, is called here that knows a backend's rules. The plain
/// name may be either's, so it is asked.
pub fn of(netns: &NetNs, program: &str, backend: Backend) -> Option<String> {
    let (suffix, is_nft) = match backend {
        Backend::Nft => ("nft", true),
        Backend::Legacy => ("legacy", false),
    };
    let version = ask(netns, program, &["--version"]);
    if version.is_some_and(|said| said.is_ok_and(|said| said.contains("nf_tables") == is_nft)) {
        return Some(program.to_owned());
    }
    let other = format!("{program}-{suffix}");
    find(&other).map(|_| other)
}

fn run(netns: &NetNs, mut command: Command) -> io::Result<String> {
    if netns.identity()? != NetNs::current()?.identity()? {
        let netns = netns.clone();
        let enter = move || Ok(setns(netns.file(), CloneFlags::CLONE_NEWNET)?);
        // SAFETY: between fork and exec `enter` makes one system call; it allocates nothing.
        unsafe { command.pre_exec(enter) };
    }
    let deadline = Instant::now() + PATIENCE;
    let mut child = command.spawn()?;
    let (stdout, stderr) = (heard(child.stdout.take()), heard(child.stderr.take()));
    let left = || deadline.saturating_duration_since(Instant::now());
    let said = stdout.recv_timeout(left());
    if said.is_err() {
        // It fails only if the program has ended already.
        let _ = child.kill();
    }
    let status = child.wait()?;
    let said = said.map_err(|_| {
        io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {PATIENCE:?}"))
    })?;
    if status.success() {
        return Ok(said);
    }
    let complaint = stderr.recv_timeout(left()).unwrap_or_default();
    let line = complaint.lines().find(|line| !line.is_empty()).unwrap_or("it failed");
    Err(io::Error::other(line.to_owned()))
}

/// Everything from a pipe, once it is closed.
fn heard(pipe: Option<impl io::Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            // What came before a failure is better than nothing.
            let _ = pipe.take(MOST).read_to_end(&mut bytes);
        }
        // Nobody waits any more if it took too long.
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}
