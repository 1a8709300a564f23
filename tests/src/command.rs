//! Programs as a user starts them: in a namespace, and heard while they run.
//!
//! A program dies with the test that started it, also when the test panics. Whoever waits, waits for
//! a line or for the end, and gives up after [`PATIENCE`] with all that was said.

use std::{
    ffi::CString,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::PathBuf,
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
    sync::{
        OnceLock,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType};
use fixer_user::{
    bpf::remedy::errno,
    lab::scene::{BRIDGE, lines},
    net::netns::NetNs,
};
use nix::{
    mount::{MsFlags, mount},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, setns, unshare},
    sys::{
        prctl,
        signal::{Signal, kill},
        stat::Mode,
    },
    unistd::{Pid, dup2_stdin, mkdir, setsid},
};

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How a program of ours ends that tells whether all was as it must be; what failed goes to standard error.
pub fn exit_status(outcome: Result<bool>) -> ExitCode {
    let is_good = outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        false
    });
    ExitCode::from(u8::from(!is_good))
}

/// `fixer` as it was built, with these arguments.
pub fn fixer(arguments: &[&str]) -> Result<Command> {
    static BUILT: OnceLock<File> = OnceLock::new();
    command(&BUILT, built, arguments)
}

/// The same, built with the feature `otlp`.
pub fn fixer_with_otlp(arguments: &[&str]) -> Result<Command> {
    static BUILT: OnceLock<File> = OnceLock::new();
    command(&BUILT, built_with_otlp, arguments)
}

fn command(
    file: &'static OnceLock<File>,
    built: fn() -> Result<PathBuf>,
    arguments: &[&str],
) -> Result<Command> {
    if file.get().is_none() {
        let _ = file.set(File::open(built()?)?);
    }
    let file = file.get().context("it was opened above")?;
    // Through a descriptor it can also be started by a user who may not enter the directory.
    let mut command = Command::new(format!("/proc/self/fd/{}", file.as_raw_fd()));
    command.arg0("fixer").args(arguments).env("RUST_BACKTRACE", "1").env_remove("NO_COLOR");
    Ok(command)
}

/// Where `fixer` is. Cargo builds no other package's program for a test, so it has to be there already.
pub fn built() -> Result<PathBuf> {
    beside_us("fixer", "run `cargo build -p fixer-user --bin fixer`")
}

/// Where the one with the feature `otlp` is.
pub fn built_with_otlp() -> Result<PathBuf> {
    beside_us("fixer-otlp", "run `cargo xtask test otlp`, which builds fixer both ways")
}

fn beside_us(name: &str, advice: &str) -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    // Tests lie in a directory beside it, and binaries of this package where it lies itself.
    let mut paths = test.ancestors().skip(1).take(2).map(|directory| directory.join(name));
    paths
        .find(|path| path.is_file())
        .with_context(|| format!("there is no `{name}` to test near {}: {advice}", test.display()))
}

/// Another program, with these arguments.
pub fn program(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(name);
    command.args(arguments);
    command
}

/// A program that runs, killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// What it says on standard output.
    pub stdout: Lines,
    /// What it says on standard error.
    pub stderr: Lines,
}

impl Running {
    /// Starts `command` in a namespace.
    pub fn start(netns: &NetNs, command: Command) -> Result<Self> {
        Self::start_as(netns, command, || Ok(()))
    }

    /// Starts `command` in a namespace, after `prepare`: it runs between fork and exec, so it makes
    /// system calls only.
    pub fn start_as(
        netns: &NetNs,
        command: Command,
        prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::spawn(netns, command, [Stdio::piped(), Stdio::piped()], prepare)
    }

    /// Starts `command` in a namespace with a standard output of the test's own, of which nothing
    /// is heard here.
    pub fn start_into(netns: &NetNs, command: Command, stdout: impl Into<Stdio>) -> Result<Self> {
        Self::spawn(netns, command, [stdout.into(), Stdio::piped()], || Ok(()))
    }

    /// Starts `command` in a namespace, with this terminal as its standard input and output and as the
    /// one that controls it.
    pub fn start_on(netns: &NetNs, command: Command, terminal: impl Into<Stdio>) -> Result<Self> {
        let take = || {
            setsid()?;
            // SAFETY: it takes a descriptor and a number.
            if unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCSCTTY, 0) } < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(dup2_stdin(io::stdout())?)
        };
        Self::spawn(netns, command, [terminal.into(), Stdio::piped()], take)
    }

    /// Starts `command` in a namespace with both outputs of the test's own.
    pub fn start_all_into(
        netns: &NetNs,
        command: Command,
        stdout: impl Into<Stdio>,
        stderr: impl Into<Stdio>,
    ) -> Result<Self> {
        Self::spawn(netns, command, [stdout.into(), stderr.into()], || Ok(()))
    }

    fn spawn(
        netns: &NetNs,
        mut command: Command,
        [stdout, stderr]: [Stdio; 2],
        mut prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<Self> {
        let netns = netns.clone();
        let enter = move || {
            setns(netns.file(), CloneFlags::CLONE_NEWNET)?;
            prepare()?;
            // Last, for a change of the user clears it.
            Ok(prctl::set_pdeathsig(Signal::SIGKILL)?)
        };
        // SAFETY: between fork and exec `enter` makes system calls only; `prepare` promises the same.
        unsafe { command.pre_exec(enter) };
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        let mut child = command.spawn().with_context(|| {
            format!("cannot start {name}; `cargo xtask test` installs what the suites need")
        })?;
        let stdout = child.stdout.take().map_or_else(Lines::default, Lines::of);
        let stderr = child.stderr.take().map_or_else(Lines::default, Lines::of);
        Ok(Self { child, stdout, stderr })
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(self.pid(), signal)?)
    }

    /// Sends it a signal, and waits for its end.
    pub fn stop(self, signal: Signal) -> Result<Ended> {
        self.signal(signal)?;
        self.end()
    }

    /// Whether it has ended by itself.
    pub fn is_over(&self) -> bool {
        Process::of(self.pid()).and_then(|it| it.ends_within(Duration::ZERO)).unwrap_or(true)
    }

    /// Waits for its end.
    pub fn end(mut self) -> Result<Ended> {
        if !Process::of(self.pid())?.ends_within(PATIENCE)? {
            bail!("it does not end; it said {:?} and {:?}", self.stdout.rest(), self.stderr.rest());
        }
        let status = self.child.wait()?;
        Ok(Ended { status, stdout: self.stdout.rest(), stderr: self.stderr.rest() })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a program ended, and all that it said.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// The lines of its standard output.
    pub stdout: Vec<String>,
    /// The lines of its standard error.
    pub stderr: Vec<String>,
}

impl Ended {
    /// Fails unless the program ended well.
    pub fn ok(self) -> Result<Self> {
        ensure!(self.status.success(), "{self:?}");
        Ok(self)
    }
}

/// The lines of a pipe, as they come.
#[derive(Debug, Default)]
pub struct Lines {
    seen: Vec<String>,
    more: Option<Receiver<String>>,
}

impl Lines {
    fn of(pipe: impl io::Read + Send + 'static) -> Self {
        Self { seen: Vec::new(), more: Some(lines(pipe)) }
    }

    /// Waits for a line that was not waited for yet and that holds these words.
    pub fn wait(&mut self, words: &str) -> Result<String> {
        self.wait_for(PATIENCE, words)
    }

    /// The same of a program that takes its time.
    pub fn wait_for(&mut self, patience: Duration, words: &str) -> Result<String> {
        let deadline = Instant::now() + patience;
        while let Ok(line) = self.next(deadline) {
            if line.contains(words) {
                return Ok(line);
            }
        }
        bail!("no line with '{words}' came; what came was {:#?}", self.seen)
    }

    /// The same, with the lines that came before it and that were not waited for.
    pub fn until(&mut self, words: &str) -> Result<Vec<String>> {
        let from = self.seen.len();
        self.wait(words)?;
        Ok(self.seen[from..].to_vec())
    }

    /// Everything until the pipe is closed.
    fn rest(&mut self) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        while self.next(deadline).is_ok() {}
        std::mem::take(&mut self.seen)
    }

    fn next(&mut self, deadline: Instant) -> Result<String, RecvTimeoutError> {
        let more = self.more.as_ref().ok_or(RecvTimeoutError::Disconnected)?;
        let line = more.recv_timeout(deadline.saturating_duration_since(Instant::now()))?;
        self.seen.push(line.clone());
        Ok(line)
    }
}

/// A process, whose end can be waited for by anyone and which no later one is mistaken for.
#[derive(Debug)]
pub struct Process(OwnedFd);

impl Process {
    /// A process by its id.
    pub fn of(pid: Pid) -> io::Result<Self> {
        // SAFETY: takes and returns numbers only.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    /// Waits for its end, at most so long. Says whether it came.
    pub fn ends_within(&self, patience: Duration) -> io::Result<bool> {
        let patience = PollTimeout::try_from(patience).map_err(io::Error::other)?;
        let mut end = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        Ok(poll(&mut end, patience)? > 0)
    }
}

/// `fixer run` with these arguments, in a namespace, once it is attached.
pub fn attached(netns: &NetNs, arguments: &[&str]) -> Result<Running> {
    let mut running = Running::start(netns, fixer(&[&["run"], arguments].concat())?)?;
    running.stderr.wait("attached to")?;
    Ok(running)
}

/// `fixer run` on the scene's bridge, without metrics, once it is attached.
pub fn on_bridge(netns: &NetNs, arguments: &[&str]) -> Result<Running> {
    attached(netns, &[&["-i", BRIDGE, "--metrics", "off"], arguments].concat())
}

/// Runs another program in a namespace, and hands over its standard output.
pub fn output(netns: &NetNs, name: &str, arguments: &[&str]) -> Result<String> {
    let ended = Running::start(netns, program(name, arguments))?.end()?;
    ensure!(ended.status.success(), "{name} {}: {}", arguments.join(" "), ended.stderr.join("; "));
    Ok(ended.stdout.join("\n"))
}

/// Turns a feature of an interface off, such as `tx`: its checksum offload.
pub fn turn_off(netns: &NetNs, interface: &str, feature: &str) -> Result<()> {
    output(netns, "ethtool", &["-K", interface, feature, "off"]).map(drop)
}

/// The names of a namespace's interfaces.
pub fn interfaces(netns: &NetNs) -> Result<Vec<String>> {
    // sysfs shows the namespace of whoever mounted it; procfs, that of the thread.
    let table = netns.run(|| fs::read_to_string("/proc/thread-self/net/dev"))??;
    let rows = table.lines().filter_map(|line| line.split_once(':'));
    Ok(rows.map(|(name, _)| name.trim().to_owned()).collect())
}

/// What there is at the hooks of an interface: the programs of tcx by name, the filters of tc, and
/// the clsact qdisc.
pub fn hooks(netns: &NetNs, interface: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for hook in [TcAttachType::Egress, TcAttachType::Ingress] {
        let programs = match netns.run(|| SchedClassifier::query_tcx(interface, hook))? {
            Ok((_, programs)) => programs,
            Err(error) if is_unknown(&error) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        found.extend(
            programs.iter().map(|program| format!("tcx {}", program.name_as_str().unwrap_or("?"))),
        );
    }
    for direction in ["egress", "ingress"] {
        let filters = output(netns, "tc", &["filter", "show", "dev", interface, direction])?;
        // A filter has more lines than this one: for its group, its keys, its actions.
        let is_filter = |line: &&str| line.contains(" handle ") || line.contains(" order 2048 ");
        found.extend(filters.lines().filter(is_filter).map(str::to_owned));
    }
    let qdiscs = output(netns, "tc", &["qdisc", "show", "dev", interface])?;
    found.extend(qdiscs.lines().filter(|line| line.contains("clsact")).map(str::to_owned));
    Ok(found)
}

/// Kernels before 6.6 have no tcx.
fn is_unknown(error: &ProgramError) -> bool {
    errno(error) == Some(libc::EINVAL)
}

/// For [`Running::start_as`]: gives a namespace a name, as `ip netns` does, that only the started
/// program sees and that is gone with it.
pub fn naming(
    name: &str,
    netns: &NetNs,
) -> Result<impl FnMut() -> io::Result<()> + Send + Sync + use<>> {
    const NONE: Option<&std::ffi::CStr> = None;
    let netns = netns.clone();
    let source = CString::new(format!("/proc/self/fd/{}", netns.file().as_raw_fd()))?;
    let path = CString::new(PathBuf::from("/run/netns").join(name).to_string_lossy().as_bytes())?;
    Ok(move || {
        let _alive = &netns;
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(NONE, c"/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
        mount(Some(c"tmpfs"), c"/run", Some(c"tmpfs"), MsFlags::empty(), NONE)?;
        mkdir(c"/run/netns", Mode::S_IRWXU)?;
        // SAFETY: the path ends in NUL; the descriptor is left to the end of the program's start.
        if unsafe { libc::open(path.as_ptr(), libc::O_CREAT | libc::O_CLOEXEC, 0o400) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(mount(Some(&*source), &*path, NONE, MsFlags::MS_BIND, NONE)?)
    })
}
