//! A whole host for a scenario: the machine's files with packages unpacked over them, and a network,
//! mounts and processes of its own.
//!
//! Real daemons write where they are used to, start others that outlive them, and expect users and
//! directories that a package makes. Here all that happens in a file system in memory, and everything
//! ends with the process that made the host, however that ends.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use fixer_user::{lab::link, net::netns::NetNs};
use nix::{
    sched::{CloneFlags, setns, unshare},
    sys::{
        prctl,
        signal::{Signal, kill},
    },
    unistd::Pid,
};

use super::cgroup::Cgroup;
use crate::command::{Ended, PATIENCE, Running, built};

/// Where packages are unpacked, from the root of the repository.
const UNPACKED: &str = "target/scenario/root";

/// Where `fixer` is in every host.
const FIXER: &str = "/usr/local/sbin/fixer";

/// Makes the file system: the packages of `$1` lie over the machine's own, changes go to memory, and `$2`
/// is `fixer` at `$3`. `/var` begins with nothing but what the packages have there. `$4` is what the first
/// process does then, that all others are left to.
///
/// Each directory is laid over by itself: the packages are below the machine's root, and the kernel lays
/// nothing over a place that it is in.
const PREPARE: &str = r#"
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
mkdir /mnt/root
mount -t tmpfs tmpfs /mnt/root
cd /mnt/root
for name in usr etc; do
    mkdir -p "$1/$name" "/mnt/$name/upper" "/mnt/$name/work" "$name"
    mount -t overlay overlay "$name" \
        -o "lowerdir=$1/$name:/$name,upperdir=/mnt/$name/upper,workdir=/mnt/$name/work"
done
for name in bin lib lib32 lib64 sbin; do ln -s "usr/$name" "$name"; done
mkdir dev mnt proc root run sys tmp
mkdir -p "$1/var"
cp -a "$1/var" var
mkdir -p var/cache var/lib var/log var/tmp
ln -s /run var/run
mount --rbind /dev dev
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
echo $$ > sys/fs/cgroup/cgroup.procs
mount -t bpf bpf sys/fs/bpf
mkdir -p run/netns usr/local/sbin
touch "./$3"
mount --bind "$2" "./$3"
pivot_root . mnt
umount -l /mnt
eval "$4"
"#;

/// A first process that does nothing but to wait for those that are left to it.
const WAIT: &str = "
echo ready
sleep infinity &
wait
";

/// systemd as the first process. Of the machine's units those are there that a package brings, but nothing
/// of what the machine starts by itself.
const SYSTEMD: &str = "
rm -rf /etc/systemd/system /usr/lib/systemd/system/*.wants /usr/lib/systemd/system-generators
mkdir /etc/systemd/system
: > /etc/fstab
mount -t tmpfs tmpfs /run
mkdir /run/lock /run/netns
# What is mounted here is seen by services, whose mounts are their own: a container has to see to that.
mount --make-rshared /
echo ready
export container=fixer
exec /lib/systemd/systemd --unit=basic.target --show-status=no --log-target=null
";

/// A running host. Its processes end when it is dropped.
#[derive(Debug)]
pub struct Host {
    /// Its network; no other process is in it.
    pub netns: NetNs,
    first: Child,
    cgroup: Cgroup,
}

impl Host {
    /// Starts a host with nothing but a loopback interface.
    pub fn start(name: &str) -> Result<Self> {
        Self::start_with(name, WAIT)
    }

    /// The same with systemd, which has started nothing yet.
    pub fn boot(name: &str) -> Result<Self> {
        let host = Self::start_with(name, SYSTEMD)?;
        until("systemd has started", || {
            let state = host.run("systemctl", &["is-system-running", "--wait"])?;
            Ok(state.status.success())
        })?;
        Ok(host)
    }

    fn start_with(name: &str, first: &str) -> Result<Self> {
        let netns = NetNs::scratch(name)?;
        link::up(&netns, "lo")?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child"]);
        command
            .args(["sh", "-c", PREPARE, "sh"])
            .args([unpacked()?, built()?])
            .args([FIXER, first]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let cgroup = Cgroup::new()?;
        let (network, own, visitors) = (netns.clone(), cgroup.door()?, cgroup.visitors()?);
        let enter = move || {
            // What it sees as the uppermost cgroup is the one that it is in at that moment.
            own.enter()?;
            unshare(CloneFlags::CLONE_NEWCGROUP)?;
            visitors.enter()?;
            setns(network.file(), CloneFlags::CLONE_NEWNET)?;
            Ok(prctl::set_pdeathsig(Signal::SIGKILL)?)
        };
        // SAFETY: between fork and exec `enter` makes system calls only.
        unsafe { command.pre_exec(enter) };
        let first = command.spawn().context("cannot start unshare")?;
        let mut host = Self { netns, first, cgroup };
        host.wait_until_ready()?;
        Ok(host)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let stdout = self.first.stdout.take().context("it was piped above")?;
        let stderr = self.first.stderr.take().context("it was piped above")?;
        let ready = BufReader::new(stdout).lines().next().transpose()?;
        if ready.as_deref() != Some("ready") {
            let said = BufReader::new(stderr).lines().collect::<Result<Vec<_>, _>>()?;
            ensure!(false, "the host cannot be made: {}", said.join("; "));
        }
        Ok(())
    }

    /// A program in the host, with these arguments, as its superuser would start it.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Result<Command> {
        let first = format!("/proc/{}/ns", self.first.id());
        let mut command = Command::new("nsenter");
        for (option, namespace) in [
            ("mount", "mnt"),
            ("net", "net"),
            ("ipc", "ipc"),
            ("uts", "uts"),
            ("cgroup", "cgroup"),
            ("pid", "pid_for_children"),
        ] {
            command.arg(format!("--{option}={first}/{namespace}"));
        }
        command.arg("--").arg(program).args(arguments);
        command.env("LC_ALL", "C").env("HOME", "/root");
        let visitors = self.cgroup.visitors()?;
        // SAFETY: between fork and exec this makes a system call only.
        unsafe { command.pre_exec(move || visitors.enter()) };
        Ok(command)
    }

    /// Starts a program in the host. What it leaves to others ends with the host.
    pub fn spawn(&self, program: &str, arguments: &[&str]) -> Result<Running> {
        Running::start(&self.netns, self.command(program, arguments)?)
    }

    /// Asks a program of the host's to end, and waits until it has.
    pub fn stop(&self, running: Running) -> Result<Ended> {
        // What runs there was started by what runs here.
        let starter = running.pid();
        let children = fs::read_to_string(format!("/proc/{starter}/task/{starter}/children"))?;
        let program = children.trim().parse().context("it has ended already")?;
        kill(Pid::from_raw(program), Signal::SIGTERM)?;
        running.end()
    }

    /// Runs a program in the host to its end.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<Ended> {
        self.spawn(program, arguments)?.end()
    }

    /// Runs a command of a shell in the host, which has to succeed, and hands over what it printed.
    pub fn sh(&self, command: &str) -> Result<String> {
        let ended = self.run("sh", &["-ec", command])?;
        ensure!(ended.status.success(), "`{command}` failed: {}", ended.stderr.join("; "));
        Ok(ended.stdout.join("\n"))
    }

    /// A network of the host that has a name there, as `ip netns` gives it.
    pub fn named(&self, name: &str) -> Result<NetNs> {
        let path = self.path("/run/netns").join(name);
        let path = path.to_str().context("a name of a namespace is text")?;
        Ok(NetNs::open(&path.parse().map_err(anyhow::Error::msg)?)?)
    }

    /// Writes a file of the host, and the directories above it.
    pub fn write(&self, path: &str, content: &str) -> Result<()> {
        let outside = self.path(path);
        if let Some(directory) = outside.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(&outside, content).with_context(|| format!("{path} cannot be written"))
    }

    /// Where a file of the host is for those outside.
    pub fn path(&self, inside: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.first.id()));
        root.join(inside.trim_start_matches('/'))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Both fail only if it has ended already. The kernel ends all others with the first.
        let _ = self.first.kill();
        let _ = self.first.wait();
    }
}

/// Waits until this holds.
pub fn until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !holds()? {
        ensure!(Instant::now() < deadline, "in vain was waited until {what}");
    }
    Ok(())
}

/// Where the packages of all scenarios are. It is laid over the machine's files also where there are none.
pub fn unpacked() -> Result<PathBuf> {
    let here = env::var_os("CARGO_MANIFEST_DIR")
        .context("the repository is not known; start this with cargo")?;
    let directory = Path::new(&here).join("..").join(UNPACKED);
    let made = fs::create_dir_all(&directory).and_then(|()| directory.canonicalize());
    made.with_context(|| format!("cannot make {}", directory.display()))
}
