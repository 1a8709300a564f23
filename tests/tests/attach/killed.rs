//! Killed at any moment: what comes next finds something whole, or nothing.
//!
//! A process is traced, and killed as it enters a system call that would change something: the first
//! one, then the second, and so on until it comes to its end. So it dies once at every place between two
//! changes.

use std::io;

use anyhow::{Context as _, Result, ensure};
use fixer_tests::command::{Running, fixer, hooks};
use fixer_user::lab::{
    packet::PacketSocket,
    reply::{self, PARTIAL},
    scene::{BRIDGE, GUEST, Scene},
};
use nix::{
    sys::{
        ptrace::{self, Options},
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use crate::{PATIENCE, nothing_is_left, private_mounts, run};

/// The commands of bpf(2) that change what is attached, pinned or counted (linux/bpf.h).
const BPF_CHANGES: [u64; 5] = [3, 6, 8, 28, 29];

/// The other system calls that do, and the end.
const CHANGES: [libc::c_long; 10] = [
    libc::SYS_sendto,
    libc::SYS_bind,
    libc::SYS_mkdirat,
    libc::SYS_symlinkat,
    libc::SYS_unlinkat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_symlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rmdir,
    libc::SYS_exit_group,
];

#[test]
fn an_attach_by_tcx() -> Result<()> {
    everywhere("attach", "tcx", false)
}

#[test]
fn an_attach_by_clsact() -> Result<()> {
    everywhere("attach", "clsact", false)
}

#[test]
fn an_upgrade_by_tcx() -> Result<()> {
    everywhere("attach", "tcx", true)
}

#[test]
fn an_upgrade_by_clsact() -> Result<()> {
    everywhere("attach", "clsact", true)
}

#[test]
fn a_detach_by_tcx() -> Result<()> {
    everywhere("detach", "tcx", true)
}

#[test]
fn a_detach_by_clsact() -> Result<()> {
    everywhere("detach", "clsact", true)
}

#[test]
fn a_run_by_tcx() -> Result<()> {
    everywhere("run", "tcx", false)
}

#[test]
fn a_run_by_clsact() -> Result<()> {
    everywhere("run", "clsact", false)
}

/// Kills the verb at its first change, then at its second, and so on; before each, fixer is attached
/// already or not.
fn everywhere(verb: &str, mode: &str, is_there: bool) -> Result<()> {
    private_mounts(true)?;
    let scene = Scene::new()?;
    let host = &scene.host;
    let how = ["-i", BRIDGE, "--attach-mode", mode, "--skip-selftest"];
    let attach = [&["attach"], &how[..]].concat();
    let arguments = match verb {
        "detach" => vec!["detach", "--all"],
        "run" => [&["run", "--metrics", "off"], &how[..]].concat(),
        _ => attach.clone(),
    };
    let mut changes = 0;
    loop {
        if is_there {
            run(host, &attach)?.ok()?;
        }
        let is_over = !killed_at(changes, &scene, &arguments)?;
        let looked = || -> Result<()> {
            run(host, &["status"])?.ok()?;
            if verb == "attach" && is_there {
                fixes(&scene).context("during the upgrade")?;
            }
            // Each of the next commands is once the first.
            match changes % 3 {
                0 => {
                    run(host, &["detach", "--all"])?.ok()?;
                    nothing_is_left(host, BRIDGE)?;
                }
                1 => runs_unless_attached(&scene, &how)?,
                _ => {}
            }
            run(host, &attach)?.ok()?;
            fixes(&scene)?;
            run(host, &["detach", "--all"])?.ok()?;
            nothing_is_left(host, BRIDGE)
        };
        looked().with_context(|| format!("{verb} by {mode}, killed at change {changes}"))?;
        if is_over {
            break;
        }
        changes += 1;
    }
    println!("{verb} by {mode}: killed at {changes} places");
    ensure!(changes > 4, "only {changes} changes were seen");
    Ok(())
}

/// A run begins where the dead one was, and ends; beside what an `attach` completed it is refused.
fn runs_unless_attached(scene: &Scene, how: &[&str]) -> Result<()> {
    let arguments = [&["run", "--metrics", "off"], how].concat();
    let mut running = Running::start(&scene.host, fixer(&arguments)?)?;
    let told = running.stderr.wait("attached to")?;
    if told.contains("already") {
        ensure!(told.contains("put there by `fixer attach`"), "{told}");
        return Ok(());
    }
    fixes(scene)?;
    running.stop(Signal::SIGTERM)?.ok()?;
    let left = hooks(&scene.host, BRIDGE)?;
    ensure!(left.is_empty(), "the run left {left:?}");
    Ok(())
}

/// A partial reply arrives complete.
pub(crate) fn fixes(scene: &Scene) -> Result<()> {
    let receiver = PacketSocket::open(&scene.guest, GUEST)?;
    let right = reply::frame(&[7; 300]);
    let mut frame = right.clone();
    reply::make_partial(&mut frame);
    PacketSocket::open(&scene.host, BRIDGE)?.send(&frame, Some(PARTIAL))?;
    let got = receiver.receive(PATIENCE, |frame| frame.bytes.len() == right.len())?;
    let got = got.context("the reply did not arrive")?;
    ensure!(!got.partial && got.bytes == right, "the reply was not fixed");
    Ok(())
}

/// Starts `fixer` and kills it as it enters the change with this number. Says whether it came so far;
/// one that runs for ever is asked to end when it says its first word.
pub(crate) fn killed_at(number: usize, scene: &Scene, arguments: &[&str]) -> Result<bool> {
    let trace = || ptrace::traceme().map_err(io::Error::from);
    let traced = Running::start_as(&scene.host, fixer(arguments)?, trace)?;
    let pid = traced.pid();
    // Nobody else may wait for it, and it waits for nobody else's children.
    let any = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
    waitpid(pid, Some(any))?;
    let options =
        Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(pid, options)?;
    ptrace::syscall(pid, None)?;
    let (mut seen, mut was_asked) = (0, false);
    loop {
        let (thread, signal) = match waitpid(None, Some(any))? {
            WaitStatus::Exited(thread, _) | WaitStatus::Signaled(thread, ..) if thread == pid => {
                return Ok(seen > number);
            }
            WaitStatus::PtraceSyscall(thread) => {
                let (nr, [first, second]) = entered(thread).unwrap_or_default();
                let speaks = nr == libc::SYS_write && first == 2;
                if speaks && arguments[0] == "run" && !std::mem::replace(&mut was_asked, true) {
                    kill(pid, Signal::SIGTERM)?;
                }
                let only_asks = nr == libc::SYS_sendto && is_question(thread, second);
                if is_change(nr, first) && !only_asks {
                    seen += 1;
                    if seen > number {
                        kill(pid, Signal::SIGKILL)?;
                        continue;
                    }
                }
                (thread, None)
            }
            // A new thread begins with a stop that nobody sent.
            WaitStatus::Stopped(thread, Signal::SIGSTOP) => (thread, None),
            WaitStatus::Stopped(thread, signal) => (thread, Some(signal)),
            WaitStatus::PtraceEvent(thread, ..) => (thread, None),
            _ => continue,
        };
        // It may have been killed in the meantime.
        let _ = ptrace::syscall(thread, signal);
    }
}

/// The system call that a thread enters, with its first arguments.
fn entered(thread: Pid) -> Option<(libc::c_long, [u64; 2])> {
    let info = ptrace::syscall_info(thread).ok()?;
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return None;
    }
    // SAFETY: the kernel says that it is this kind of stop.
    let entry = unsafe { info.u.entry };
    Some((entry.nr as libc::c_long, [entry.args[0], entry.args[1]]))
}

/// Whether the first message of rtnetlink at an address asks and changes nothing: of each four kinds the
/// third does (linux/rtnetlink.h).
fn is_question(thread: Pid, address: u64) -> bool {
    let header = ptrace::read(thread, address as ptrace::AddressType).unwrap_or_default();
    let [_, _, _, _, low, high, ..] = header.to_ne_bytes();
    u16::from_ne_bytes([low, high]) % 4 == 2
}

fn is_change(nr: libc::c_long, command: u64) -> bool {
    CHANGES.contains(&nr) || (nr == libc::SYS_bpf && BPF_CHANGES.contains(&command))
}
