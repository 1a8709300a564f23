//! `fixer demo`: both halves of the story, and nothing left of it however it ends.

use std::{
    ffi::OsString,
    fs::{self, File},
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use fixer_tests::{
    command::{PATIENCE, Process, Running, fixer, interfaces},
    kernel::require_root,
    machine::Machine,
};
use fixer_user::{lab::link, net::netns::NetNs};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// What the demo says when its second half begins.
const SECOND_HALF: &str = "2. With fixer: fixer run -i br0";

/// How soon what it started is gone after its own end.
const SOON: Duration = Duration::from_secs(5);

/// A namespace for the demo to be started in: what it takes for the host's.
fn home() -> Result<NetNs> {
    require_root()?;
    let netns = NetNs::scratch("home")?;
    link::up(&netns, "lo")?;
    Ok(netns)
}

fn demo() -> Result<Command> {
    fixer(&["demo", "--patience", "2"])
}

/// What a demo has started, and the network namespaces that it plays in.
struct Started {
    dnsmasq: Pid,
    processes: Vec<(String, Process)>,
    namespaces: Vec<PathBuf>,
    /// Held open, so that no later namespace gets the same number.
    _held: Vec<File>,
}

impl Started {
    /// Looks at a demo whose second half begins: dnsmasq runs, and `fixer run` starts.
    fn by(demo: &Running) -> Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        let mut found = children(demo.pid())?;
        while found.len() < 2 && Instant::now() < deadline {
            found = children(demo.pid())?;
        }
        let (mut dnsmasq, mut processes) = (None, Vec::new());
        for pid in found {
            let name = fs::read_to_string(format!("/proc/{pid}/comm"))?;
            if name.trim() == "dnsmasq" {
                dnsmasq = Some(pid);
            }
            processes.push((name.trim().to_owned(), Process::of(pid)?));
        }
        ensure!(processes.len() == 2, "{processes:?}");
        let (mut namespaces, mut held) = (Vec::new(), Vec::new());
        for fd in fs::read_dir(format!("/proc/{}/fd", demo.pid()))? {
            let path = fd?.path();
            // Those of a process that is just being started come and go; namespaces stay.
            let Ok(target) = fs::read_link(&path) else { continue };
            if target.to_string_lossy().starts_with("net:[") {
                held.push(File::open(&path)?);
                namespaces.push(target);
            }
        }
        ensure!(namespaces.len() == 2, "a host's and a guest's: {namespaces:?}");
        let dnsmasq = dnsmasq.context("no dnsmasq")?;
        Ok(Self { dnsmasq, processes, namespaces, _held: held })
    }

    /// Nothing runs any more, nobody but this test has the namespaces open, and no mount keeps them.
    fn has_gone(self) -> Result<()> {
        for (name, process) in &self.processes {
            ensure!(process.ends_within(SOON)?, "{name} is still there");
        }
        let me = std::process::id().to_string();
        let is_number = |name: &OsString| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
        let others = fs::read_dir("/proc")?.flatten();
        for process in others.filter(|entry| is_number(&entry.file_name())) {
            if process.file_name() == *me {
                continue;
            }
            let fds = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
            let held = fds.map(|fd| fd.path()).chain([process.path().join("ns/net")]);
            for target in held.filter_map(|link| fs::read_link(link).ok()) {
                let is_held = self.namespaces.contains(&target);
                ensure!(!is_held, "{:?} holds {}", process.file_name(), target.display());
            }
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        for namespace in &self.namespaces {
            ensure!(!mounts.contains(&*namespace.to_string_lossy()), "{mounts}");
        }
        Ok(())
    }
}

/// What a process's main thread has started.
fn children(pid: Pid) -> Result<Vec<Pid>> {
    let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .context("the demo has ended, or the kernel has no CONFIG_PROC_CHILDREN")?;
    listed.split_whitespace().map(|child| Ok(Pid::from_raw(child.parse()?))).collect()
}

#[test]
fn it_shows_both_halves_twice_and_leaves_nothing() -> Result<()> {
    let (home, machine) = (home()?, Machine::look()?);
    for _ in ["once", "and again"] {
        let mut demo = Running::start(&home, demo()?)?;
        for words in [
            "1. Without fixer",
            "dnsmasq sent ",
            "dropped: bad udp cksum 0x",
            "The client has no lease.",
            SECOND_HALF,
        ] {
            demo.stdout.wait(words)?;
        }
        let started = Started::by(&demo)?;
        // What `fixer run` says and what the demo says of it come side by side.
        let ended = demo.end()?.ok()?;
        let said = ended.stdout.join("\n");
        for words in [
            "! fixed, DHCP offer",
            "! fixed, DHCP ack",
            "br0 egress: 2 fixed",
            "The client has a lease: 10.0.3.",
            "Nothing of this is left",
        ] {
            ensure!(said.contains(words), "no '{words}' in:\n{said}");
        }
        ensure!(ended.stderr.is_empty(), "{ended:?}");
        started.has_gone()?;
        ensure!(interfaces(&home)? == ["lo"]);
    }
    let changed = Machine::look()?.changed(&machine);
    ensure!(changed.is_empty(), "files of the machine have changed: {changed:?}");
    Ok(())
}

#[test]
fn a_demo_that_is_cut_short_leaves_nothing() -> Result<()> {
    let (home, machine) = (home()?, Machine::look()?);
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        let mut demo = Running::start(&home, demo()?)?;
        demo.stdout.wait(SECOND_HALF)?;
        let started = Started::by(&demo)?;
        // Without a server there is no lease, and no end before the client's patience is over.
        kill(started.dnsmasq, Signal::SIGSTOP)?;
        demo.stdout.wait("attached to egress of br0")?;
        let ended = demo.stop(signal)?;
        ensure!(!ended.status.success(), "{signal}: {ended:?}");
        started.has_gone().with_context(|| format!("after {signal}"))?;
        ensure!(interfaces(&home)? == ["lo"]);
    }
    let changed = Machine::look()?.changed(&machine);
    ensure!(changed.is_empty(), "files of the machine have changed: {changed:?}");
    Ok(())
}

#[test]
fn a_machine_without_dnsmasq_is_told_how_to_get_it() -> Result<()> {
    let home = home()?;
    let nothing = tempfile::tempdir()?;
    let mut command = demo()?;
    command.env("PATH", nothing.path());
    let ended = Running::start(&home, command)?.end()?;
    ensure!(ended.status.code() == Some(1) && ended.stdout.is_empty(), "{ended:?}");
    ensure!(ended.stderr.len() == 1, "{ended:?}");
    let advice = "install it: apt-get install dnsmasq-base";
    ensure!(ended.stderr[0].starts_with("fixer: cannot start dnsmasq"), "{ended:?}");
    ensure!(ended.stderr[0].contains(advice), "{ended:?}");
    ensure!(interfaces(&home)? == ["lo"]);
    Ok(())
}
