//! Two that cannot see each other's process: procfs hides it, or it is in another pid namespace. Nor does
//! everybody see the programs of others.

use std::{ffi::CStr, io};

use anyhow::{Context as _, Result, ensure};
use caps::{
    CapSet,
    Capability::{CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON},
};
use fixer_tests::command::{Ended, Running, built, fixer, hooks, on_bridge, program};
use fixer_user::{
    lab::{link, scene::BRIDGE},
    net::netns::NetNs,
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::{prctl, signal::Signal},
    unistd::{Gid, Uid, setgid, setgroups, setuid},
};

use crate::{
    entries, nothing_is_left, private_mounts, run,
    strangers::{bound, program_id},
};

/// Whoever this is, it is not the user of any other process.
const SERVICE: u32 = 65533;

const RUN: [&str; 7] =
    ["run", "-i", BRIDGE, "--metrics", "off", "--skip-selftest", "--attach-mode"];

/// For [`Running::start_as`]: a service with a user and the capabilities of its own, which sees no process
/// but its own.
fn service() -> io::Result<()> {
    const NONE: Option<&CStr> = None;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(NONE, c"/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    mount(Some(c"proc"), c"/proc", Some(c"proc"), MsFlags::empty(), Some(c"hidepid=2"))?;
    prctl::set_keepcaps(true)?;
    setgroups(&[])?;
    setgid(Gid::from_raw(SERVICE))?;
    setuid(Uid::from_raw(SERVICE))?;
    for set in [CapSet::Permitted, CapSet::Effective, CapSet::Inheritable, CapSet::Ambient] {
        let all = [CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON].into_iter().collect();
        caps::set(None, set, &all).map_err(io::Error::other)?;
    }
    Ok(())
}

fn as_a_service(netns: &NetNs, mode: &str) -> Result<Running> {
    Running::start_as(netns, fixer(&[&RUN[..], &[mode]].concat())?, service)
}

/// `fixer` in a pid namespace of its own.
fn apart(netns: &NetNs, arguments: &[&str]) -> Result<Running> {
    let path = built()?;
    let path = path.to_str().context("a path in UTF-8")?;
    let unshare = ["--pid", "--fork", "--kill-child", "--mount-proc", path];
    Running::start(netns, program("unshare", &[&unshare[..], arguments].concat()))
}

fn bridge() -> Result<NetNs> {
    private_mounts(true)?;
    let netns = NetNs::scratch("host")?;
    link::bridge(&netns, BRIDGE)?;
    Ok(netns)
}

/// It did not attach, and says why in its last line.
fn is_refused(ended: &Ended, words: &str) -> Result<()> {
    let told = ended.stderr.join("\n");
    ensure!(ended.status.code() == Some(1) && told.contains(words), "no '{words}' in: {ended:?}");
    ensure!(!told.contains("removed what a killed fixer left"), "{told}");
    Ok(())
}

/// Neither a second run, nor an `attach`, nor `detach` touches what a live one in another container holds.
#[test]
fn a_run_in_another_pid_namespace_is_left_alone() -> Result<()> {
    let netns = bridge()?;
    for mode in ["tcx", "clsact"] {
        let mut first = apart(&netns, &[&RUN[..], &[mode]].concat())?;
        first.stderr.wait("attached to egress of br0")?;
        let before = hooks(&netns, BRIDGE)?;
        let elsewhere = "`fixer run` in another pid namespace";
        is_refused(&apart(&netns, &[&RUN[..], &[mode]].concat())?.end()?, elsewhere)?;
        let attach = ["attach", "-i", BRIDGE, "--skip-selftest"];
        is_refused(&apart(&netns, &attach)?.end()?, elsewhere)?;
        let ended = apart(&netns, &["detach", "--all"])?.end()?.ok()?;
        ensure!(ended.stdout == ["nothing was attached"], "{ended:?}");
        let table = apart(&netns, &["status"])?.end()?.ok()?.stdout.join("\n");
        ensure!(table.contains("run (in another pid namespace)"), "{table}");
        // From above it has a number.
        let [entry] = &entries(&netns)?[..] else { anyhow::bail!("not one entry") };
        ensure!(entry["held_by"] == "run" && entry["pid"].is_u64(), "{entry}");
        ensure!(hooks(&netns, BRIDGE)? == before, "{:?}, not {before:?}", hooks(&netns, BRIDGE)?);
        let pid = entry["pid"].as_i64().context("a number")?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), Signal::SIGTERM)?;
        first.end()?.ok()?;
        nothing_is_left(&netns, BRIDGE)?;
    }
    Ok(())
}

/// A service that sees no other process, and may not look at other programs either.
#[test]
fn a_service_stops_before_what_it_does_not_see() -> Result<()> {
    let netns = bridge()?;
    for mode in ["tcx", "clsact"] {
        let first = on_bridge(&netns, &["--attach-mode", mode])?;
        let held = format!("by {mode} (program ");
        let ended = as_a_service(&netns, mode)?.end()?;
        is_refused(&ended, &held)?;
        is_refused(&ended, &format!("held by the `fixer run` with process id {}", first.pid()))?;
        first.stop(Signal::SIGTERM)?.ok()?;
        nothing_is_left(&netns, BRIDGE)?;

        // And the other way round, in a container.
        let mut first = as_a_service(&netns, mode)?;
        first.stderr.wait("attached to egress of br0")?;
        let ended = apart(&netns, &[&RUN[..], &[mode]].concat())?.end()?;
        is_refused(&ended, "`fixer run` in another pid namespace")?;
        first.stop(Signal::SIGTERM)?.ok()?;
        nothing_is_left(&netns, BRIDGE)?;
    }
    Ok(())
}

/// Beside what `fixer attach` left by a filter, whose pins it may not see.
#[test]
fn a_service_stops_before_a_filter_that_stays() -> Result<()> {
    let netns = bridge()?;
    // As systemd mounts it.
    std::fs::set_permissions("/sys/fs/bpf", std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    run(&netns, &["attach", "-i", BRIDGE, "--skip-selftest", "--attach-mode", "clsact"])?.ok()?;
    is_refused(&as_a_service(&netns, "clsact")?.end()?, "put there by `fixer attach`")?;
    run(&netns, &["detach", "--all"])?.ok()?;
    nothing_is_left(&netns, BRIDGE)
}

/// Who cannot see them does not believe everybody either.
#[test]
fn a_claim_of_a_stranger_who_is_not_seen_is_not_believed() -> Result<()> {
    let netns = bridge()?;
    on_bridge(&netns, &["--attach-mode", "clsact"])?.stop(Signal::SIGKILL)?;
    let id = program_id(&netns)?;
    let _stranger = bound(&netns, &format!("fixer-run-{id}-1-0"))?;
    let mut second = as_a_service(&netns, "clsact")?;
    second.stderr.wait("removed what a killed fixer left at egress of br0")?;
    second.stderr.wait("attached to egress of br0")?;
    second.stop(Signal::SIGKILL)?;
    let id = program_id(&netns)?;
    let _stranger = bound(&netns, &format!("fixer-run-{id}-1-0"))?;
    let ended = apart(&netns, &["detach", "--all"])?.end()?.ok()?;
    ensure!(ended.stdout == ["removed what a killed fixer left at egress of br0"], "{ended:?}");
    nothing_is_left(&netns, BRIDGE)
}
