//! Hosts leave nothing behind, and two of the scenarios: the one that takes no other packages than these
//! suites, and the one in which no checksum is wrong, which is to be read from the stream alone.
//!
//! `cargo xtask scenario all` plays every one.

use std::{fs, path::Path, time::Duration};

use anyhow::{Result, ensure};
use fixer_tests::{
    command::Process,
    kernel::require_root,
    scenario::{
        cgroup, failover,
        host::{Host, until},
        qdhcp,
    },
};
use nix::unistd::Pid;

/// What a daemon of the host's writes.
const WRITTEN: [&str; 3] = ["/etc/fixer-scenario", "/usr/fixer-scenario", "/run/fixer-scenario"];

/// Starts a daemon that outlives whoever started it, in a cgroup of its own as a container would, and
/// says by which id it is known outside.
fn daemon(host: &Host) -> Result<Process> {
    for path in WRITTEN {
        host.sh(&format!("echo written > {path}"))?;
    }
    host.sh("mkdir /sys/fs/cgroup/daemon\n\
         setsid sh -c 'echo $$ > /sys/fs/cgroup/daemon/cgroup.procs; exec sleep infinity' \
         > /dev/null 2>&1 &")?;
    let mut pid = None;
    until("the daemon is in its cgroup", || {
        for cgroup in cgroup::own()? {
            let procs = fs::read_to_string(cgroup.join("daemon/cgroup.procs")).unwrap_or_default();
            pid = procs.trim().parse().ok();
        }
        Ok(pid.is_some())
    })?;
    Ok(Process::of(Pid::from_raw(pid.unwrap_or_default()))?)
}

fn leaves_nothing(host: Host) -> Result<()> {
    let daemon = daemon(&host)?;
    ensure!(cgroup::none_is_left().is_err(), "the host has no cgroup");
    drop(host);
    cgroup::none_is_left()?;
    ensure!(daemon.ends_within(Duration::ZERO)?, "the daemon still runs");
    for path in WRITTEN {
        ensure!(!Path::new(path).exists(), "{path} was written on the machine");
    }
    Ok(())
}

/// One test for all, for each looks for the cgroups of the others.
#[test]
fn hosts_leave_nothing_behind_and_systems_are_cured() -> Result<()> {
    require_root()?;
    leaves_nothing(Host::start("host")?)?;
    leaves_nothing(Host::boot("host")?)?;

    for scenario in [qdhcp::SCENARIO, failover::SCENARIO] {
        let lacking: Vec<_> = scenario.lacking().collect();
        ensure!(lacking.is_empty(), "{lacking:?} are not here; `cargo xtask test` fetches them");
        let story = scenario.tell();
        println!("{story}");
        ensure!(story.is_good(), "{story}");
    }
    Ok(())
}
