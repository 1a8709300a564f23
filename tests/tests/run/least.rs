//! What a run may still do once it is attached: what it needs, and nothing else.

use std::{fs, io::Write as _, time::Instant};

use anyhow::{Context as _, Result, bail, ensure};
use caps::Capability::{self, CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, CAP_SYS_ADMIN};
use fixer_tests::command::{PATIENCE, Running, fixer, hooks, naming, on_bridge};
use fixer_user::{
    lab::{link, scene::BRIDGE},
    net::netns::NetNs,
};
use nix::sys::signal::Signal;

use crate::{scene, send_partial};

/// What every thread of a process must say in its `status`, in the end.
pub fn comes_to(run: &Running, lines: &[(&str, String)]) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let statuses = statuses(run)?;
        let says = |status: &String, (name, value): &(&str, String)| {
            let mut lines = status.lines().filter_map(|line| line.split_once(":\t"));
            lines.any(|(key, found)| key == *name && found.trim() == value)
        };
        if statuses.iter().all(|status| lines.iter().all(|line| says(status, line))) {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("not {lines:?} but {statuses:#?}");
        }
    }
}

fn statuses(run: &Running) -> Result<Vec<String>> {
    let mut statuses = Vec::new();
    for task in fs::read_dir(format!("/proc/{}/task", run.pid()))? {
        // A thread may have ended since it was listed.
        statuses.extend(fs::read_to_string(task?.path().join("status")).ok());
    }
    Ok(statuses)
}

/// Only these, and no way to others.
pub fn only(capabilities: &[Capability]) -> Vec<(&'static str, String)> {
    let set = |capabilities: &[Capability]| {
        format!(
            "{:016x}",
            capabilities.iter().fold(0, |set, capability| set | capability.bitmask())
        )
    };
    let (some, none) = (set(capabilities), set(&[]));
    let mut lines: Vec<_> = ["CapEff", "CapPrm", "CapBnd"].map(|name| (name, some.clone())).into();
    lines.extend(["CapInh", "CapAmb"].map(|name| (name, none.clone())));
    lines.push(("NoNewPrivs", "1".to_owned()));
    lines
}

#[test]
fn a_run_keeps_what_it_needs() -> Result<()> {
    let scene = scene()?;
    let run = on_bridge(&scene.host, &[])?;
    comes_to(&run, &only(&[CAP_NET_ADMIN, CAP_BPF]))?;
    run.stop(Signal::SIGTERM)?.ok()?;

    // It will load programs again.
    let mut file = tempfile::NamedTempFile::new()?;
    writeln!(file, "events = 'none'")?;
    let path = file.path().to_str().context("a path in UTF-8")?;
    let run = on_bridge(&scene.host, &["--config", path])?;
    comes_to(&run, &only(&[CAP_NET_ADMIN, CAP_BPF, CAP_PERFMON]))?;
    run.stop(Signal::SIGTERM)?.ok()?;

    // It will enter another namespace.
    let elsewhere = NetNs::scratch("elsewhere")?;
    let arguments = ["run", "-i", BRIDGE, "--metrics", "off", "--netns", "blue"];
    let naming = naming("blue", &scene.host)?;
    let mut run = Running::start_as(&elsewhere, fixer(&arguments)?, naming)?;
    run.stderr.wait("attached to egress of blue/br0")?;
    comes_to(&run, &only(&[CAP_NET_ADMIN, CAP_BPF, CAP_SYS_ADMIN]))?;
    run.stop(Signal::SIGTERM)?.ok()?;
    ensure!(hooks(&scene.host, BRIDGE)?.is_empty());
    Ok(())
}

/// As somebody else it does all that it did as root: it takes what appears, serves, writes to the file
/// that root opened, reads its configuration, and detaches.
#[test]
fn as_another_user_a_run_does_all_that_it_did() -> Result<()> {
    for mode in ["tcx", "clsact"] {
        let scene = scene()?;
        let directory = tempfile::tempdir()?;
        let capture = directory.path().join("dhcp.pcapng");
        let mut file = tempfile::NamedTempFile::new()?;
        fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        writeln!(file, "user = 'nobody'\ninterface = ['br*']\nattach-mode = '{mode}'")?;
        let config = file.path().to_str().context("a path in UTF-8")?;
        let pcapng = capture.to_str().context("a path in UTF-8")?;
        let arguments = ["run", "--config", config, "--pcapng", pcapng, "--events", "none"];
        let mut run = Running::start(&scene.host, fixer(&arguments)?)?;
        run.stderr.wait("attached to egress of br0")?;
        let mut lines = only(&[CAP_NET_ADMIN, CAP_BPF, CAP_PERFMON]);
        let nobody = "65534\t65534\t65534\t65534".to_owned();
        lines.extend([("Uid", nobody.clone()), ("Gid", nobody), ("Groups", "65534".to_owned())]);
        comes_to(&run, &lines)?;

        link::bridge(&scene.host, "br1")?;
        run.stderr.wait("attached to egress of br1")?;
        send_partial(&scene, BRIDGE, 3)?;
        let healthy = crate::metrics::is_healthy(&scene)?;
        ensure!(healthy, "{mode}: /healthz");
        writeln!(file, "hook = 'both'")?;
        run.signal(Signal::SIGHUP)?;
        run.stderr.wait("attached to ingress of br1")?;
        link::delete(&scene.host, "br1")?;
        run.stderr.wait("br1 is gone")?;
        let ended = run.stop(Signal::SIGTERM)?.ok()?;
        ensure!(ended.stdout == ["br0 egress: 3 fixed"], "{mode}: {ended:?}");
        ensure!(hooks(&scene.host, BRIDGE)?.is_empty(), "{mode}");
        let capture = fs::read(capture)?;
        let packets = capture.windows(5).filter(|bytes| *bytes == b"fixed").count();
        ensure!(packets == 3, "{mode}: {packets} packets in the capture");
    }
    Ok(())
}

#[test]
fn a_user_that_is_not_there() -> Result<()> {
    let scene = scene()?;
    let arguments = ["run", "-i", BRIDGE, "--user", "nobody-at-all"];
    let ended = Running::start(&scene.host, fixer(&arguments)?)?.end()?;
    ensure!(ended.status.code() == Some(1), "{ended:?}");
    ensure!(
        ended.stderr
            == ["fixer: there is no user 'nobody-at-all'; --user takes a name of /etc/passwd"],
        "{ended:?}"
    );
    ensure!(hooks(&scene.host, BRIDGE)?.is_empty());
    Ok(())
}
