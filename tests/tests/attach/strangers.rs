//! Other users in the same network namespace: what they bind and lock changes nothing.

use std::{io, time::Instant};

use anyhow::{Result, ensure};
use fixer_tests::command::{Running, attached, fixer, hooks, on_bridge, program};
use fixer_user::{
    lab::{link, scene::BRIDGE},
    net::netns::NetNs,
};
use nix::{
    fcntl::{OFlag, open},
    sched::{CloneFlags, unshare},
    sys::{prctl, signal::Signal, stat::Mode},
    unistd::{Gid, Uid, setgid, setgroups, setuid, write},
};

use crate::{PATIENCE, entries, nothing_is_left, private_mounts, run};

/// Somebody without any privilege.
const NOBODY: u32 = 65534;

/// The same with every capability in a user namespace of his own, which is anybody's to have.
fn root_of_nothing() -> io::Result<()> {
    nobody()?;
    // Who changed his user may not write to his own files in procfs.
    prctl::set_dumpable(true)?;
    unshare(CloneFlags::CLONE_NEWUSER)?;
    let map = open(c"/proc/self/uid_map", OFlag::O_WRONLY, Mode::empty())?;
    write(map, b"0 65534 1")?;
    Ok(())
}

fn nobody() -> io::Result<()> {
    setgroups(&[])?;
    setgid(Gid::from_raw(NOBODY))?;
    Ok(setuid(Uid::from_raw(NOBODY))?)
}

/// Runs Perl as nobody, and goes on once it says that it is ready.
fn perl(netns: &NetNs, script: &str) -> Result<Running> {
    perl_as(netns, script, nobody)
}

fn perl_as(netns: &NetNs, script: &str, who: fn() -> io::Result<()>) -> Result<Running> {
    let whole = format!("$| = 1; use Socket; {script}; print \"ready\\n\"; sleep 1000");
    let mut running = Running::start_as(netns, program("perl", &["-e", &whole]), who)?;
    running.stdout.wait("ready")?;
    Ok(running)
}

/// A socket with this abstract name, as Perl writes it.
pub(crate) fn bound(netns: &NetNs, name: &str) -> Result<Running> {
    bound_by(netns, name, nobody)
}

fn bound_by(netns: &NetNs, name: &str, who: fn() -> io::Result<()>) -> Result<Running> {
    let script = format!(
        "socket(my $s, AF_UNIX, SOCK_DGRAM, 0) or die; bind($s, pack('Sa*', AF_UNIX, \"\\0{name}\")) \
         or die $!; our $keep = $s"
    );
    perl_as(netns, &script, who)
}

#[test]
fn a_name_that_is_no_text_is_none_of_ours() -> Result<()> {
    private_mounts(true)?;
    let netns = NetNs::scratch("host")?;
    link::bridge(&netns, BRIDGE)?;
    let _stranger = bound(&netns, "\\xff\\xfe")?;
    run(&netns, &["attach", "-i", BRIDGE])?.ok()?;
    ensure!(entries(&netns)?.len() == 1);
    run(&netns, &["detach", "--all"])?.ok()?;
    nothing_is_left(&netns, BRIDGE)
}

/// The id of the program in the filter at the bridge.
pub(crate) fn program_id(netns: &NetNs) -> Result<u32> {
    let filters = hooks(netns, BRIDGE)?;
    let id = filters.iter().find_map(|hook| hook.split(" id ").nth(1)?.split(' ').next());
    Ok(id.ok_or_else(|| anyhow::anyhow!("no id in {filters:?}"))?.parse()?)
}

/// A killed run's filter is reclaimed, whoever says that he holds it; a live one's is not, though its
/// name was bound by somebody else before.
#[test]
fn a_claim_of_somebody_who_may_change_nothing_is_not_believed() -> Result<()> {
    private_mounts(true)?;
    let netns = NetNs::scratch("host")?;
    link::bridge(&netns, BRIDGE)?;
    let killed = on_bridge(&netns, &["--attach-mode", "clsact"])?;
    let there = entries(&netns)?;
    ensure!(there.len() == 1 && there[0]["held_by"] == "run", "{there:?}");
    let pid = killed.pid();
    killed.signal(Signal::SIGKILL)?;
    ensure!(!killed.end()?.status.success());
    let id = program_id(&netns)?;
    let _strangers = [
        bound(&netns, &format!("fixer-run-{id}-1-0"))?,
        bound(&netns, &format!("fixer-run-{id}-{pid}-0"))?,
        bound_by(&netns, &format!("fixer-run-{id}-{pid}-1"), root_of_nothing)?,
    ];
    let there = entries(&netns)?;
    ensure!(there.len() == 1 && there[0]["held_by"] == "nobody", "{there:?}");
    run(&netns, &["attach", "-i", BRIDGE, "--attach-mode", "clsact"])?.ok()?;
    run(&netns, &["detach", "--all"])?.ok()?;
    nothing_is_left(&netns, BRIDGE)
}

/// The lock is one that any user can hold. It is waited for, but not for ever.
#[test]
fn a_lock_that_is_never_given_back_keeps_nothing_from_being_attached() -> Result<()> {
    private_mounts(true)?;
    let netns = NetNs::scratch("host")?;
    link::bridge(&netns, BRIDGE)?;
    let mut fixer = attached(&netns, &["--auto", "--metrics", "off", "--events", "none"])?;
    let lock = "open(our $f, '<', '/proc/self/ns/net') or die; flock($f, 2) or die";
    let _stranger = perl(&netns, lock)?;
    let began = Instant::now();
    link::bridge(&netns, "later")?;
    fixer.stderr.wait("attached to egress of later")?;
    ensure!(began.elapsed() < PATIENCE, "it took {:?}", began.elapsed());
    fixer.stop(Signal::SIGTERM)?.ok()?;
    ensure!(hooks(&netns, BRIDGE)?.is_empty() && hooks(&netns, "later")?.is_empty());
    Ok(())
}

/// What is attached while another command works is not taken for something that is gone.
#[test]
fn an_attach_leaves_what_came_while_it_was_at_work() -> Result<()> {
    private_mounts(true)?;
    let netns = NetNs::scratch("host")?;
    link::bridge(&netns, BRIDGE)?;
    for mode in ["tcx", "clsact"] {
        // The self-test takes its time.
        let slow = Running::start(&netns, fixer(&["attach", "-i", BRIDGE])?)?;
        link::bridge(&netns, "br1")?;
        let quick = ["attach", "-i", "br1", "--skip-selftest", "--attach-mode", mode];
        run(&netns, &quick)?.ok()?;
        slow.end()?.ok()?;
        let there = entries(&netns)?;
        ensure!(there.len() == 2, "{mode}: {there:?}");
        run(&netns, &["detach", "--all"])?.ok()?;
        link::delete(&netns, "br1")?;
        nothing_is_left(&netns, BRIDGE)?;
    }
    Ok(())
}

/// What is new is attached before anything is replaced, so a refusal leaves the old program at work.
#[test]
fn a_refusal_leaves_what_was_there() -> Result<()> {
    private_mounts(true)?;
    let netns = NetNs::scratch("host")?;
    link::bridge(&netns, BRIDGE)?;
    link::bridge(&netns, "br9")?;
    let attach = ["attach", "-i", BRIDGE, "--attach-mode", "clsact", "--skip-selftest"];
    run(&netns, &attach)?.ok()?;
    let before = hooks(&netns, BRIDGE)?;
    fixer_tests::command::output(&netns, "tc", &["qdisc", "add", "dev", "br9", "ingress"])?;
    let ended = run(&netns, &[&attach[..], &["-i", "br9", "--observe-only"]].concat())?;
    ensure!(ended.status.code() == Some(1), "{ended:?}");
    ensure!(hooks(&netns, BRIDGE)? == before, "{:?}, not {before:?}", hooks(&netns, BRIDGE)?);
    run(&netns, &["detach", "--all"])?.ok()?;
    nothing_is_left(&netns, BRIDGE)
}
