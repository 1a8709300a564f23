//! A thousand interfaces, news faster than it is read, and the switch that makes the kernel hurry.

use std::{
    fs, io,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use fixer_tests::{
    command::{PATIENCE, Running, fixer, hooks, on_bridge, output},
    kernel::require_root,
    mounts::private_mounts,
};
use fixer_user::{
    lab::{link, scene::BRIDGE},
    net::netns::NetNs,
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::signal::Signal,
};

use crate::scene;

/// Turned on, the kernel waits for no processor.
const SWITCH: &str = "/sys/kernel/rcu_expedited";

/// Makes so many interfaces, an even number, from `tap1` on. They are veth pairs: the kernel takes
/// bridges down one by one, and lets nobody change an interface anywhere meanwhile.
pub fn many(netns: &NetNs, count: usize) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("interfaces");
    let pairs = (1..=count).step_by(2);
    let lines = pairs.map(|one| format!("link add tap{one} type veth peer tap{}\n", one + 1));
    fs::write(&path, lines.collect::<String>())?;
    output(netns, "ip", &["-batch", path.to_str().context("the path is text")?]).map(drop)
}

/// The switch is one for the whole machine: who looks at it, or at how fast the kernel is, is alone.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn a_thousand_interfaces_are_attached_and_detached_in_two_seconds() -> Result<()> {
    const ALL: usize = 1000;
    const LIMIT: Duration = Duration::from_secs(2);
    const ROUNDS: usize = 4;
    let _alone = alone();
    private_mounts(true)?;
    let host = NetNs::scratch("host")?;
    many(&host, ALL)?;
    let before = fs::read_to_string(SWITCH)?;
    let run = ["run", "-i", "tap*", "--events", "none", "--metrics", "off", "--skip-selftest"];
    let attach = ["attach", "-i", "tap*", "--skip-selftest"];
    let mut took = Vec::new();
    // A machine may be busy at one moment or another.
    while took.last().is_none_or(|all: &[_; 4]| all.iter().any(|it| *it >= LIMIT)) {
        ensure!(took.len() < ROUNDS, "attaching and detaching took {took:?}");
        let began = Instant::now();
        let mut started = Running::start(&host, fixer(&run)?)?;
        for _ in 0..ALL {
            started.stderr.wait("attached to egress of tap")?;
        }
        let attaching = began.elapsed();
        ensure!(hooks(&host, "tap1000")?.len() == 1);
        ensure!(fs::read_to_string(SWITCH)? == before, "the switch was not put back");
        let began = Instant::now();
        started.stop(Signal::SIGTERM)?.ok()?;
        let detaching = began.elapsed();
        let none_is_there = || -> Result<()> {
            for name in ["tap1", "tap1000"] {
                ensure!(hooks(&host, name)?.is_empty(), "{name}");
            }
            ensure!(fs::read_to_string(SWITCH)? == before, "the switch was not put back");
            Ok(())
        };
        none_is_there()?;
        let verb = |arguments: &[&str]| -> Result<Duration> {
            let began = Instant::now();
            Running::start(&host, fixer(arguments)?)?.end()?.ok()?;
            Ok(began.elapsed())
        };
        let pinning = verb(&attach)?;
        ensure!(hooks(&host, "tap1000")?.len() == 1);
        took.push([attaching, detaching, pinning, verb(&["detach", "--all"])?]);
        none_is_there()?;
    }
    Ok(())
}

/// For [`Running::start_as`]: another file in the place of the switch, for the started program only.
/// The kernel knows nothing of it, and takes its time.
fn switched(
    file: &Path,
    flags: MsFlags,
) -> Result<impl FnMut() -> io::Result<()> + Send + Sync + use<>> {
    const NONE: Option<&str> = None;
    let file = file.to_owned();
    Ok(move || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
        mount(Some(&file), SWITCH, NONE, MsFlags::MS_BIND, NONE)?;
        let flags = flags | MsFlags::MS_BIND | MsFlags::MS_REMOUNT;
        Ok(mount(NONE, SWITCH, NONE, flags, NONE)?)
    })
}

/// The number in a file in the place of the switch.
fn number(file: &Path) -> Result<u32> {
    let text = fs::read_to_string(file)?;
    Ok(text.lines().next().unwrap_or_default().parse()?)
}

fn wait_for(file: &Path, wanted: impl Fn(u32) -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !wanted(number(file)?) {
        ensure!(Instant::now() < deadline, "it is {}", number(file)?);
    }
    Ok(())
}

/// The switch is borrowed: put back when the batch is done, also by a fixer that was killed, and left
/// alone if it is somebody else's or becomes so.
#[test]
fn the_switch_is_put_back_in_any_case() -> Result<()> {
    const MANY: usize = 40;
    let _alone = alone();
    require_root()?;
    let host = NetNs::scratch("host")?;
    many(&host, MANY)?;
    let file = tempfile::NamedTempFile::new()?;
    let start = |before: &str, flags| -> Result<Running> {
        fs::write(file.path(), before)?;
        let run = ["run", "-i", "tap*", "--events", "none", "--metrics", "off", "--skip-selftest"];
        Running::start_as(&host, fixer(&run)?, switched(file.path(), flags)?)
    };
    let all_attached = |fixer: &mut Running| -> Result<()> {
        (0..MANY).try_for_each(|_| fixer.stderr.wait("attached to egress of tap").map(drop))
    };
    // Also what two processes left that were killed at once is ours.
    for before in ["0\n", "1174405121\n"] {
        let mut fixer = start(before, MsFlags::empty())?;
        wait_for(file.path(), |number| number > 1 && number.to_string() != before.trim())?;
        all_attached(&mut fixer)?;
        ensure!(number(file.path())? == 0);
        fixer.signal(Signal::SIGTERM)?;
        wait_for(file.path(), |number| number > 1)?;
        fixer.end()?.ok()?;
        ensure!(number(file.path())? == 0);
    }
    let fixer = start("0\n", MsFlags::empty())?;
    wait_for(file.path(), |number| number > 1)?;
    fixer.stop(Signal::SIGKILL)?;
    wait_for(file.path(), |number| number == 0)?;

    for (before, flags) in [("1\n", MsFlags::empty()), ("0\n", MsFlags::MS_RDONLY)] {
        let mut fixer = start(before, flags)?;
        all_attached(&mut fixer)?;
        fixer.stop(Signal::SIGTERM)?.ok()?;
        ensure!(fs::read_to_string(file.path())? == before);
    }
    let mut fixer = start("0\n", MsFlags::empty())?;
    wait_for(file.path(), |number| number > 1)?;
    fs::write(file.path(), "1\n")?;
    all_attached(&mut fixer)?;
    ensure!(number(file.path())? == 1, "somebody else's number is lost");
    Ok(())
}

/// While it does not read, more happens than the kernel keeps for it.
#[test]
fn what_was_not_heard_is_found_by_looking_again() -> Result<()> {
    // It may turn the switch, for all that it finds at once.
    let _alone = alone();
    let scene = scene()?;
    let mut fixer = on_bridge(&scene.host, &["-i", "x*", "--events", "none"])?;
    link::bridge(&scene.host, "x0")?;
    fixer.stderr.wait("attached to egress of x0")?;
    fixer.signal(Signal::SIGSTOP)?;
    many(&scene.host, 600)?;
    // Of these it is told nothing any more.
    link::delete(&scene.host, "x0")?;
    link::bridge(&scene.host, "x1")?;
    output(&scene.host, "ip", &["link", "set", BRIDGE, "name", "x2"])?;
    fixer.signal(Signal::SIGCONT)?;
    fixer.stderr.wait("x0 is gone")?;
    fixer.stderr.wait("attached to egress of x1")?;
    ensure!(hooks(&scene.host, "x1")?.len() == 1);
    let ended = fixer.stop(Signal::SIGTERM)?.ok()?;
    ensure!(ended.stderr.iter().any(|line| line == "fixer: br0 is called x2 now"), "{ended:?}");
    for name in ["x1", "x2"] {
        ensure!(hooks(&scene.host, name)?.is_empty(), "{name}");
    }
    Ok(())
}
