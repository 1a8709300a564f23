//! The unit in `dist/systemd`, under a real systemd: the first process of a namespace of its own, with
//! a root of its own, in the network namespace of a scene.
//!
//! What it needs of the machine is `/usr`, which it sees through an overlay. Its cgroups are below one
//! that was made for it; all of it is gone when it is.

use std::{
    ffi::CStr,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};
use caps::Capability::{CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON};
use fixer_tests::{
    command::{
        PATIENCE, Running, built, built_with_otlp, fixer, fixer_with_otlp, hooks, output, program,
    },
    http::{self, METRICS},
    kernel::require_root,
    receiver,
    scenario::cgroup::remove,
};
use fixer_user::lab::{
    packet::PacketSocket,
    reply::{self, PARTIAL},
    scene::{BRIDGE, GUEST, SERVER, Scene},
};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::{Pid, gettid},
};

/// The units that are shipped, and the overall exposure that their documents quote, in tenths.
const EXPOSURES: [(&str, u32); 2] =
    [("systemd/fixer.service", 15), ("openstack/fixer-qdhcp.service", 19)];

/// What the unit is installed as.
const UNIT: &str = "fixer.service";

/// Where this puts the cgroups of the machine into one of its own: systemd takes the uppermost that it
/// sees for its own, with all that is in it.
const CGROUPS: &CStr = c"/mnt";

/// The way to the first process. `$DIST` is the unit's directory, `$FIXER` the program, `$CGROUP` the
/// name of the cgroup.
const BOOT: &str = r#"
set -e
mount --make-rprivate /
echo $$ > "/mnt/$CGROUP/cgroup.procs"
exec unshare --cgroup --uts --ipc --pid --fork --kill-child sh -c '
    set -e
    mount -t tmpfs root /mnt
    cd /mnt
    mkdir -p usr etc/fixer var run proc sys dev upper work units/fixer.service.d old
    mount -t overlay overlay usr -o lowerdir=/usr,upperdir=upper,workdir=work
    for link in bin sbin lib lib64; do ln -s usr/$link $link; done
    cp "$FIXER" usr/bin/fixer
    cp "$DIST/fixer.service" units
    cp "$DIST/fixer.toml" etc/fixer
    printf "[Service]\nWatchdogSec=5\n$MORE\n" > units/fixer.service.d/soon.conf
    # All that comes before the unit is not what is tried here.
    for target in sysinit basic shutdown network-pre; do
        printf "[Unit]\nDefaultDependencies=no\n" > units/$target.target
    done
    echo root:x:0:0:root:/:/bin/sh > etc/passwd
    echo root:x:0: > etc/group
    echo 0123456789abcdef0123456789abcdef > etc/machine-id
    mount -t proc proc proc
    mount -t sysfs sysfs sys
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    # As systemd mounts it, where it takes itself for the first of a machine.
    mount -t bpf -o mode=0700 bpf sys/fs/bpf
    mount --rbind /dev dev
    mount -t tmpfs run run
    pivot_root . old
    umount -l old
    # As systemd does where it takes itself for the first of a machine: what is mounted later is seen.
    mount --make-rshared /
    export container=fixer SYSTEMD_UNIT_PATH=/units
    exec /lib/systemd/systemd --unit=fixer.service --log-target=null --show-status=no
'
"#;

/// Where the unit and its configuration are.
fn dist() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/systemd")
}

/// A systemd, gone with all that it started when this is dropped.
struct Machine<'a> {
    scene: &'a Scene,
    running: Option<Running>,
    cgroup: String,
}

impl<'a> Machine<'a> {
    /// Boots it with this program as the unit's, and with these lines more in the unit.
    fn boot(scene: &'a Scene, fixer: PathBuf, more: &str) -> Result<Self> {
        const NONE: Option<&CStr> = None;
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(NONE, c"/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
        mount(Some(c"cgroup2"), CGROUPS, Some(c"cgroup2"), MsFlags::empty(), NONE)?;
        let cgroup = format!("fixer-test-{}", gettid());
        fs::create_dir(Path::new("/mnt").join(&cgroup))?;
        let mut machine = Self { scene, running: None, cgroup };
        let mut boot = program("unshare", &["--mount", "sh", "-c", BOOT]);
        boot.env("DIST", dist()).env("FIXER", fixer).env("CGROUP", &machine.cgroup);
        boot.env("MORE", more);
        machine.running = Some(Running::start(&scene.host, boot)?);
        Ok(machine)
    }

    /// Its first process.
    fn first(&self) -> Result<Pid> {
        let unshare = self.running.as_ref().context("it runs")?.pid();
        let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children"))?;
        Ok(Pid::from_raw(children.trim().parse().context("it has no first process yet")?))
    }

    /// Runs a program there.
    fn output(&self, command: &[&str]) -> Result<String> {
        let target = self.first()?.to_string();
        let enter = ["--target", &target, "--all"];
        output(&self.scene.host, "nsenter", &[&enter[..], command].concat())
    }

    /// Runs a program of systemd's there.
    fn systemctl(&self, arguments: &[&str]) -> Result<String> {
        self.output(&[&["systemctl"], arguments].concat())
    }

    /// A property of the unit.
    fn show(&self, property: &str) -> Result<String> {
        self.systemctl(&["show", UNIT, "--value", "--property", property])
    }

    /// The main process of the unit, by the id that it has here.
    fn main(&self) -> Result<Pid> {
        let inside = self.show("MainPID")?;
        let cgroup = Path::new("/mnt").join(&self.cgroup).join("system.slice").join(UNIT);
        for pid in fs::read_to_string(cgroup.join("cgroup.procs"))?.lines() {
            let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
            let is_inside = |line: &str| {
                line.starts_with("NSpid:") && line.split_whitespace().last() == Some(&inside)
            };
            if status.lines().any(is_inside) {
                return Ok(Pid::from_raw(pid.parse()?));
            }
        }
        bail!("the unit has no main process {inside}")
    }

    /// Waits until this holds.
    fn until(&self, what: &str, holds: impl Fn() -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match holds() {
                Ok(true) => return Ok(()),
                outcome if Instant::now() > deadline => {
                    let status = self.systemctl(&["show", UNIT]).unwrap_or_default();
                    bail!("not {what}: {outcome:?}\n{status}");
                }
                _ => {}
            }
        }
    }

    fn attached(&self, count: usize) -> Result<bool> {
        Ok(hooks(&self.scene.host, BRIDGE)?.len() == count)
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        self.running = None;
        let cgroup = Path::new("/mnt").join(&self.cgroup);
        let deadline = Instant::now() + PATIENCE;
        // Its processes end in their own time.
        while remove(&cgroup).is_err() && Instant::now() < deadline {}
        let _ = umount2(CGROUPS, MntFlags::MNT_DETACH);
    }
}

/// A partial reply that leaves through the bridge reaches the guest right and no longer partial.
fn fixes(scene: &Scene) -> Result<()> {
    let guest = PacketSocket::open(&scene.guest, GUEST)?;
    let whole = reply::frame(&[7; 300]);
    let mut frame = whole.clone();
    reply::make_partial(&mut frame);
    PacketSocket::open(&scene.host, BRIDGE)?.send(&frame, Some(PARTIAL))?;
    let arrived = guest.receive(PATIENCE, |received| received.bytes.len() == whole.len())?;
    let is_good =
        arrived.as_ref().is_some_and(|arrived| !arrived.partial && arrived.bytes == whole);
    ensure!(is_good, "what arrived is {arrived:?}, behind {:?}", hooks(&scene.host, BRIDGE));
    Ok(())
}

/// From outside, where the unit's process has another number, and whatever user it is.
fn events_are_seen(scene: &Scene) -> Result<()> {
    let mut watcher = Running::start(&scene.host, fixer(&["watch"])?)?;
    watcher.stderr.wait("watching egress of br0")?;
    fixes(scene)?;
    watcher.stdout.wait("! fixed")?;
    watcher.stop(Signal::SIGTERM)?.ok().map(drop)
}

#[test]
fn the_unit_serves_reloads_is_watched_and_stops() -> Result<()> {
    require_root()?;
    let scene = Scene::new()?;
    let machine = Machine::boot(&scene, built()?, "")?;
    machine.until("active", || Ok(machine.show("ActiveState")? == "active"))?;
    ensure!(machine.attached(1)?, "{:?}", hooks(&scene.host, BRIDGE)?);
    fixes(&scene)?;
    ensure!(machine.show("StatusText")? == "attached to br0", "{}", machine.show("StatusText")?);
    events_are_seen(&scene)?;

    // It is nobody, and can do no more than it has to.
    let status = fs::read_to_string(format!("/proc/{}/status", machine.main()?))?;
    let needed = [CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN];
    let needed = needed.iter().fold(0, |set, capability| set | capability.bitmask());
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        ensure!(status.contains(&format!("{set}:\t{needed:016x}")), "{status}");
    }
    ensure!(!status.contains("Uid:\t0") && status.contains("NoNewPrivs:\t1"), "{status}");

    // A reload changes it in place.
    let main = machine.main()?;
    let config = format!("/proc/{}/root/etc/fixer/fixer.toml", machine.first()?);
    fs::write(&config, "auto = true\nhook = 'both'\nevents = 'none'\n")?;
    machine.systemctl(&["reload", UNIT])?;
    machine.until("at both hooks", || machine.attached(2))?;
    ensure!(machine.main()? == main);
    fixes(&scene)?;

    // It tells that it is alive; if it is stuck it is started anew.
    let kicked = || -> Result<u64> { Ok(machine.show("WatchdogTimestampMonotonic")?.parse()?) };
    let (before, longer) = (kicked()?, 6_000_000);
    machine.until("kicked", || Ok(kicked()? > before + longer))?;
    ensure!(machine.main()? == main && machine.show("NRestarts")? == "0", "it was not alive");
    kill(main, Signal::SIGSTOP)?;
    machine.until("started anew", || {
        Ok(machine.show("ActiveState")? == "active" && machine.main()? != main)
    })?;
    ensure!(machine.attached(2)?);
    fixes(&scene)?;

    machine.systemctl(&["stop", UNIT])?;
    ensure!(machine.show("ActiveState")? == "inactive" && machine.show("Result")? == "success");
    ensure!(machine.attached(0)?, "{:?}", hooks(&scene.host, BRIDGE)?);
    Ok(())
}

/// A filter of a clsact qdisc outlives the process. The next one, whose user may not see the pins, takes it
/// for what it is.
#[test]
fn the_unit_that_was_killed_starts_again_where_its_filter_is() -> Result<()> {
    require_root()?;
    let scene = Scene::new()?;
    let machine = Machine::boot(&scene, built()?, "")?;
    machine.until("active", || Ok(machine.show("ActiveState")? == "active"))?;
    let config = format!("/proc/{}/root/etc/fixer/fixer.toml", machine.first()?);
    fs::write(&config, "auto = true\nattach-mode = 'clsact'\nevents = 'none'\n")?;
    machine.systemctl(&["restart", UNIT])?;
    // One filter, and its qdisc.
    ensure!(machine.attached(2)?, "{:?}", hooks(&scene.host, BRIDGE)?);
    let main = machine.main()?;
    kill(main, Signal::SIGKILL)?;
    machine.until("started anew", || {
        Ok(machine.show("ActiveState")? == "active" && machine.main()? != main)
    })?;
    ensure!(machine.show("NRestarts")? == "1", "{}", machine.show("NRestarts")?);
    ensure!(machine.attached(2)?, "{:?}", hooks(&scene.host, BRIDGE)?);
    fixes(&scene)?;
    machine.systemctl(&["stop", UNIT])?;
    ensure!(machine.attached(0)?, "{:?}", hooks(&scene.host, BRIDGE)?);
    Ok(())
}

/// Metrics reach a receiver on this host, and another one once the unit may talk to it.
#[test]
fn the_unit_pushes_over_otlp_to_whom_it_may() -> Result<()> {
    require_root()?;
    let scene = Scene::new()?;
    let receiver = receiver::start(&scene.host)?;
    let machine = Machine::boot(&scene, built_with_otlp()?, "")?;
    machine.until("active", || Ok(machine.show("ActiveState")? == "active"))?;
    let root = PathBuf::from(format!("/proc/{}/root", machine.first()?));
    let begin = |address: &str, drop_in: &str| -> Result<()> {
        let otlp = receiver::url(address);
        let config = format!("auto = true\nevents = 'none'\notlp = '{otlp}'\notlp-interval = 1\n");
        fs::write(root.join("etc/fixer/fixer.toml"), config)?;
        let drop_in = format!("[Service]\nStandardError=truncate:/run/said\n{drop_in}");
        fs::write(root.join("units/fixer.service.d/otlp.conf"), drop_in)?;
        machine.systemctl(&["daemon-reload"])?;
        machine.systemctl(&["restart", UNIT])?;
        fixes(&scene)?;
        Ok(())
    };
    let is_told = |count| {
        let fixed = "sum(last_over_time(fixer_packets_total{verdict='fixed'}[1h]))";
        receiver.wait(&format!("{fixed} == {count}"), |found| found.len() == 1)
    };
    begin("127.0.0.1", "")?;
    is_told(1)?;

    let other = SERVER.to_string();
    begin(&other, "")?;
    // What is sent there is dropped.
    let refused = format!("cannot push metrics to {}: no answer", receiver::url(&other));
    let said = || fs::read_to_string(root.join("run/said"));
    machine.until("refused", || Ok(said()?.contains(&refused)))?;
    fixes(&scene)?;
    is_told(1)?;

    begin(&other, &format!("IPAddressAllow={other}\n"))?;
    fixes(&scene)?;
    fixes(&scene)?;
    is_told(3)?;
    ensure!(!said()?.contains("cannot push"), "{}", said()?);
    Ok(())
}

/// What the unit says of other namespaces is enough: those that are named while it runs are seen behind
/// its own mounts, and let go.
#[test]
fn the_unit_takes_namespaces_as_they_are_named() -> Result<()> {
    require_root()?;
    let scene = Scene::new()?;
    let more = "RestrictNamespaces=\nRestrictNamespaces=net\n\
                AmbientCapabilities=CAP_SYS_ADMIN\nCapabilityBoundingSet=CAP_SYS_ADMIN";
    let machine = Machine::boot(&scene, built()?, more)?;
    machine.until("active", || Ok(machine.show("ActiveState")? == "active"))?;
    let config = format!("/proc/{}/root/etc/fixer/fixer.toml", machine.first()?);
    let text = "auto = true\nnetns = 'ns-*'\nevents = 'none'\n";
    fs::write(&config, text)?;
    machine.systemctl(&["restart", UNIT])?;
    machine.until("waiting", || Ok(machine.show("StatusText")? == "waiting for an interface"))?;
    for round in ["first", "second"] {
        machine.output(&["ip", "netns", "add", "ns-blue"])?;
        machine.output(&["ip", "-n", "ns-blue", "link", "add", "br5", "type", "bridge"])?;
        let there = || -> Result<bool> {
            let body = http::get(&scene.host, METRICS, "/metrics")?.body;
            Ok(body.contains("fixer_interface_attached{netns=\"ns-blue\",interface=\"br5\""))
        };
        machine.until(round, there)?;
        machine.output(&["ip", "netns", "del", "ns-blue"])?;
        machine.until("let go", || Ok(!there()?))?;
    }
    machine.systemctl(&["stop", UNIT])?;
    ensure!(machine.show("Result")? == "success");
    Ok(())
}

/// What the analysis of systemd finds is as little as the documents say.
#[test]
fn the_units_are_not_exposed() -> Result<()> {
    require_root()?;
    let scene = Scene::new()?;
    for (unit, most) in EXPOSURES {
        let unit = dist().join("..").join(unit);
        let unit = unit.to_str().context("a path in UTF-8")?;
        let analysis = ["security", "--offline=true", "--no-pager", unit];
        let text = output(&scene.host, "systemd-analyze", &analysis)?;
        let level = text.lines().find_map(|line| line.split_once("Overall exposure level for "));
        let (_, level) =
            level.and_then(|(_, level)| level.split_once(": ")).context(text.clone())?;
        let figure: f64 = level.split(' ').next().unwrap_or_default().parse()?;
        ensure!((figure * 10.0).round() as u32 <= most, "{text}");
    }
    Ok(())
}

/// The example is a configuration: also with every line that is commented out.
#[test]
fn the_example_is_understood() -> Result<()> {
    require_root()?;
    let scene = Scene::new()?;
    let text = fs::read_to_string(dist().join("fixer.toml"))?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("fixer.toml");
    let is_option = |line: &&str| line.contains(" = ");
    let lines: Vec<_> =
        text.lines().filter(is_option).map(|line| line.trim_start_matches("# ")).collect();
    ensure!(lines.len() > 6, "{lines:?}");
    fs::write(&path, lines.join("\n").replace("virbr0", BRIDGE))?;
    let config = path.to_str().context("a path in UTF-8")?;
    let mut run = Running::start(&scene.host, fixer_with_otlp(&["run", "--config", config])?)?;
    run.stderr.wait("attached to")?;
    run.stop(Signal::SIGTERM)?.ok()?;
    Ok(())
}
