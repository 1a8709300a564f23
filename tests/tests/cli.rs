//! What `fixer` says to bad input and on bad ground: one clear error, its exit status, and nothing
//! touched.

use std::{fs, io, net::IpAddr, os::unix::fs::PermissionsExt as _, process::Command};

use anyhow::{Result, ensure};
use caps::{CapSet, Capability};
use fixer_tests::{
    command::{Ended, Running, attached, fixer, hooks, interfaces, output},
    kernel::require_root,
    mounts::mount_at_bpffs,
};
use fixer_user::{lab::link, net::netns::NetNs};
use nix::{
    mount::MsFlags,
    sys::signal::Signal,
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};

/// The exit statuses of the interface's description.
const FAILED: i32 = 1;
const WRONG_USAGE: i32 = 2;

/// An interface of [`ground`].
const INTERFACE: &str = "br0";

/// A namespace with an interface that a run could attach to.
fn ground() -> Result<NetNs> {
    require_root()?;
    let netns = NetNs::scratch("ground")?;
    link::up(&netns, "lo")?;
    link::bridge(&netns, INTERFACE)?;
    Ok(netns)
}

/// What a program must say that cannot do what it was asked to do. Nothing is attached after it.
fn refusal(
    netns: &NetNs,
    command: Command,
    status: i32,
    prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) -> Result<String> {
    let before = interfaces(netns)?;
    let ended = Running::start_as(netns, command, prepare)?.end()?;
    let Ended { stderr, stdout, .. } = &ended;
    ensure!(ended.status.code() == Some(status), "{ended:?}");
    ensure!(stdout.is_empty(), "{ended:?}");
    let is_error = |line: &&String| line.starts_with("fixer: ") || line.starts_with("error: ");
    ensure!(stderr.first().is_some_and(|line| is_error(&line)), "{ended:?}");
    ensure!(stderr.iter().filter(is_error).count() == 1, "{ended:?}");
    // Only the parser of the command line adds a word on usage below its error.
    ensure!(stderr.len() == 1 || status == WRONG_USAGE, "{ended:?}");
    let text = stderr.join("\n");
    ensure!(!text.contains("panicked") && !text.contains("stack backtrace"), "{text}");
    for cause in text.split(": ") {
        ensure!(text.matches(cause).count() == 1 || cause.len() < 12, "'{cause}' twice: {text}");
    }
    ensure!(interfaces(netns)? == before, "the interfaces are others");
    let left = hooks(netns, INTERFACE)?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(text)
}

fn refused(netns: &NetNs, arguments: &[&str], status: i32) -> Result<String> {
    refusal(netns, fixer(arguments)?, status, || Ok(()))
}

/// Wrong usage says these words.
fn wrong(arguments: &[&str], words: &[&str]) -> Result<()> {
    let text = refused(&ground()?, arguments, WRONG_USAGE)?;
    contains(&text, words)
}

/// `fixer run` on the interface fails under these circumstances, with these words.
fn fails_under(
    prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
    words: &[&str],
) -> Result<()> {
    let command = fixer(&["run", "-i", INTERFACE, "--metrics", "off"])?;
    contains(&refusal(&ground()?, command, FAILED, prepare)?, words)
}

fn contains(text: &str, words: &[&str]) -> Result<()> {
    for word in words {
        ensure!(text.contains(word), "no '{word}' in: {text}");
    }
    Ok(())
}

#[test]
fn no_verb_gets_the_help_as_an_error() -> Result<()> {
    let ended = Running::start(&ground()?, fixer(&[])?)?.end()?;
    ensure!(ended.status.code() == Some(WRONG_USAGE) && ended.stdout.is_empty(), "{ended:?}");
    contains(&ended.stderr.join("\n"), &["Usage: fixer", "Examples:", "fixer run -i virbr0"])
}

#[test]
fn unknown_words_are_wrong_usage() -> Result<()> {
    wrong(&["fix"], &["unrecognized subcommand 'fix'", "Usage: fixer"])?;
    wrong(&["run", "-i", INTERFACE, "--speed"], &["unexpected argument '--speed'"])?;
    wrong(&["run", "-i", INTERFACE, INTERFACE], &["unexpected argument 'br0'"])?;
    wrong(&["run", "-i", INTERFACE, "--hook", "sideways"], &["'sideways'", "egress, ingress, both"])
}

#[test]
fn run_wants_to_know_where() -> Result<()> {
    wrong(&["run"], &["--interface <NAME|GLOB>", "--auto"])
}

#[test]
fn a_malformed_rule_is_told_the_right_form() -> Result<()> {
    let forms = "the rules are dhcp, ";
    for rule in ["dchp", "", "dhcp,,pxe", "udp:67", "udp:*", "udp:1:2:3", "DHCP", "67:68"] {
        wrong(&["run", "-i", INTERFACE, "--match", rule], &["--match", forms])?;
    }
    for rule in ["udp:0:68", "udp:67:65536", "udp:a:b", "udp:-1:68", "udp::68", "udp:67: 68"] {
        wrong(
            &["run", "-i", INTERFACE, "--match", rule],
            &["is no port: write a number from 1 to 65535, or *"],
        )?;
    }
    Ok(())
}

#[test]
fn more_rules_than_a_program_holds() -> Result<()> {
    let rules: Vec<_> = (1..=9).map(|port| format!("udp:{port}:*")).collect();
    let rules = rules.join(",");
    wrong(&["run", "-i", INTERFACE, "--match", &rules], &["9 rules", "give at most 8"])
}

#[test]
fn malformed_places_are_wrong_usage() -> Result<()> {
    for address in ["9767", "localhost:9767", "127.0.0.1", "127.0.0.1:99999", ""] {
        wrong(
            &["run", "-i", INTERFACE, "--metrics", address],
            &["--metrics", "write an address and a port", "or off"],
        )?;
    }
    for glob in ["br[", "br{0", ""] {
        wrong(&["run", "-i", glob], &["invalid value", "--interface"])?;
    }
    wrong(&["run", "-i", INTERFACE, "--netns", "pid:x"], &["'x' is no process id"])?;
    wrong(&["run", "-i", INTERFACE, "--netns", ""], &["write a name", "pid:N"])?;
    wrong(&["demo", "--patience", "1"], &["--patience", "2..=120"])
}

#[test]
fn an_interface_that_is_not_there() -> Result<()> {
    let netns = ground()?;
    let text = refused(&netns, &["run", "-i", "virbr0", "-i", INTERFACE], FAILED)?;
    contains(&text, &["no interface 'virbr0'", "there are: lo, br0"])?;
    let text = refused(&netns, &["run", "-i", "übr"], FAILED)?;
    contains(&text, &["no interface 'übr'"])
}

/// A program would take the IP header of its packets for an Ethernet header.
#[test]
fn the_status_of_an_interface_that_is_not_there() -> Result<()> {
    let netns = ground()?;
    for arguments in [&["status", "-i", "nosuch"][..], &["status", "--json", "-i", "nosuch"]] {
        let text = refused(&netns, arguments, FAILED)?;
        contains(&text, &["no interface 'nosuch'", "there are: ", INTERFACE])?;
    }
    Ok(())
}

#[test]
fn a_glob_that_takes_nothing_is_told_what_there_is() -> Result<()> {
    let netns = ground()?;
    let text = refused(&netns, &["attach", "-i", "zz*", "--skip-selftest"], FAILED)?;
    contains(&text, &["no interface matches 'zz*'", "nothing was attached", INTERFACE])?;
    link::delete(&netns, INTERFACE)?;
    let ended = Running::start(&netns, fixer(&["attach", "--auto", "--skip-selftest"])?)?.end()?;
    ensure!(ended.status.code() == Some(FAILED), "{ended:?}");
    contains(&ended.stderr.join("\n"), &["no bridge", "there are: lo"])
}

/// Colours are for terminals, whatever the environment asks for.
#[test]
fn what_goes_into_a_pipe_has_no_colours() -> Result<()> {
    let netns = ground()?;
    let mut doctor = fixer(&["doctor", "-i", INTERFACE])?;
    doctor.env("CLICOLOR_FORCE", "1").env("FORCE_COLOR", "1");
    let ended = Running::start(&netns, doctor)?.end()?;
    ensure!(ended.stdout.iter().any(|line| line.starts_with("1. ")), "{ended:?}");
    ensure!(!ended.stdout.concat().contains('\x1b'), "{ended:?}");
    Ok(())
}

/// What `attach` was given can be given to the verbs that look at it or undo it.
#[test]
fn the_arguments_of_attach_fit_other_verbs() -> Result<()> {
    mount_at_bpffs(c"bpf", MsFlags::empty())?;
    let netns = ground()?;
    let given = ["-i", INTERFACE, "--hook", "egress", "--match", "dhcp,pxe", "--observe-only"];
    let run = |verb: &[&str]| -> Result<Ended> {
        Running::start(&netns, fixer(&[verb, &given].concat())?)?.end()
    };
    run(&["attach"])?.ok()?;
    ensure!(run(&["status"])?.ok()?.stdout.iter().any(|line| line.contains(INTERFACE)));
    ensure!(run(&["doctor", "--json"])?.status.code() != Some(WRONG_USAGE));
    let arguments = [&["watch"], &given[..]].concat();
    let mut watch = Running::start(&netns, fixer(&arguments)?)?;
    watch.stderr.wait("watching egress of br0")?;
    watch.stop(Signal::SIGTERM)?.ok()?;
    run(&["detach"])?.ok()?;
    ensure!(hooks(&netns, INTERFACE)?.is_empty());
    Ok(())
}

#[test]
fn an_interface_without_an_ethernet_header() -> Result<()> {
    let netns = ground()?;
    output(&netns, "ip", &["tuntap", "add", "vpn0", "mode", "tun"])?;
    output(&netns, "ip", &["tuntap", "add", "vnet0", "mode", "tap"])?;
    for skip in [&[][..], &["--skip-selftest"]] {
        let run = [&["run", "-i", INTERFACE, "-i", "vpn0", "--metrics", "off"], skip].concat();
        let text = refused(&netns, &run, FAILED)?;
        let words = ["cannot attach to vpn0", "'tun'", "no Ethernet header", "name the bridge"];
        contains(&text, &words)?;
    }
    for ethernet in ["lo", "vnet0"] {
        attached(&netns, &["-i", ethernet, "--metrics", "off"])?.stop(Signal::SIGTERM)?.ok()?;
    }
    ensure!(hooks(&netns, "vpn0")?.is_empty());
    Ok(())
}

#[test]
fn a_network_namespace_that_is_not_there() -> Result<()> {
    let netns = ground()?;
    let run = |given| refused(&netns, &["run", "-i", INTERFACE, "--netns", given], FAILED);
    contains(&run("nowhere")?, &["'nowhere' at /run/netns/nowhere", "No such", "ip netns list"])?;
    contains(&run("/nowhere/net")?, &["at /nowhere/net", "No such", "pid:N"])?;
    // The largest id that a process can have is below 2^22.
    contains(&run("pid:4194304")?, &["at /proc/4194304/ns/net", "No such"])?;
    contains(&run("/proc/self/ns/uts")?, &["Invalid argument", "path of a namespace file"])?;
    contains(&run("/dev/null")?, &["cannot open the network namespace '/dev/null'"])
}

#[test]
fn a_user_without_privileges_is_told_which_he_lacks() -> Result<()> {
    const NOBODY: u32 = 65534;
    let become_nobody = || {
        setgroups(&[])?;
        let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        setresgid(gid, gid, gid)?;
        Ok(setresuid(uid, uid, uid)?)
    };
    let needed = ["run as root", "CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"];
    fails_under(become_nobody, &needed)?;
    for verb in ["selftest", "demo"] {
        let text = refusal(&ground()?, fixer(&[verb])?, FAILED, become_nobody)?;
        contains(&text, &["root"])?;
    }
    Ok(())
}

/// A root that lacks some capabilities, as in many containers: what is not in the bounding set is not
/// in the effective set of what root starts.
fn without(
    capabilities: &'static [Capability],
) -> impl FnMut() -> io::Result<()> + Send + Sync + 'static {
    move || {
        let drop = |capability: &Capability| caps::drop(None, CapSet::Bounding, *capability);
        capabilities.iter().try_for_each(drop).map_err(|_| io::ErrorKind::PermissionDenied.into())
    }
}

#[test]
fn a_root_without_a_capability_is_told_which() -> Result<()> {
    use Capability::{CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN};
    fails_under(without(&[CAP_NET_ADMIN]), &["grant CAP_NET_ADMIN"])?;
    fails_under(without(&[CAP_BPF, CAP_SYS_ADMIN]), &["grant CAP_BPF"])?;
    fails_under(without(&[CAP_SYS_ADMIN]), &["CAP_SYS_ADMIN"])?;
    fails_under(without(&[CAP_NET_RAW]), &["CAP_NET_RAW"])
}

/// A kernel that answers bpf(2) with an error, by a seccomp filter.
fn without_bpf(errno: i32) -> impl FnMut() -> io::Result<()> + Send + Sync + 'static {
    let code = |code: u32| code as u16;
    let statement =
        move |operation, k| libc::sock_filter { code: code(operation), jt: 0, jf: 0, k };
    let is_bpf = libc::sock_filter {
        code: code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K),
        jt: 0,
        jf: 1,
        k: libc::SYS_bpf as u32,
    };
    // The number of the system call is the first thing in `struct seccomp_data` (linux/seccomp.h).
    let mut filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        is_bpf,
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno as u32),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    move || {
        let len = filter.len() as u16;
        let program = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
        // SAFETY: the program points to as many instructions as it says, which are alive.
        let outcome = unsafe {
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
        };
        if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

#[test]
fn a_kernel_without_bpf_is_told_its_options() -> Result<()> {
    let words = ["this kernel has no bpf(2)", "CONFIG_BPF_SYSCALL", "CONFIG_NET_CLS_BPF"];
    fails_under(without_bpf(libc::ENOSYS), &words)?;
    let text = refusal(&ground()?, fixer(&["selftest"])?, FAILED, without_bpf(libc::ENOSYS))?;
    contains(&text, &words)
}

#[test]
fn a_kernel_that_forbids_bpf_says_so() -> Result<()> {
    fails_under(without_bpf(libc::EPERM), &["Operation not permitted"])
}

#[test]
fn a_port_for_metrics_that_is_in_use() -> Result<()> {
    let netns = ground()?;
    link::bridge(&netns, "br1")?;
    let first = attached(&netns, &["-i", "br1"])?;
    let text = refused(&netns, &["run", "-i", INTERFACE], FAILED)?;
    contains(&text, &["127.0.0.1:9767", "Address already in use", "--metrics off"])?;
    first.stop(Signal::SIGTERM)?.ok()?;
    Ok(())
}

#[test]
fn a_capture_file_that_cannot_be_written() -> Result<()> {
    let netns = ground()?;
    let run = |file| {
        refused(&netns, &["run", "-i", INTERFACE, "--metrics", "off", "--pcapng", file], FAILED)
    };
    contains(&run("/nowhere/dhcp.pcapng")?, &["/nowhere/dhcp.pcapng", "No such file"])?;
    contains(&run("/proc")?, &["cannot write the capture file /proc", "Is a directory"])?;
    contains(&run("/dev/full")?, &["cannot write", "No space left"])
}

/// A mistake in the command line costs nobody the capture of yesterday.
#[test]
fn a_run_that_is_refused_leaves_the_capture_file_alone() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("dhcp.pcapng");
    fs::write(&file, "yesterday")?;
    let name = file.to_string_lossy();
    let run = ["run", "-i", "virbr0", "--metrics", "off", "--pcapng", &name];
    refused(&ground()?, &run, FAILED)?;
    ensure!(fs::read_to_string(&file)? == "yesterday");
    ensure!(fs::metadata(&file)?.permissions().mode() & 0o200 != 0);
    Ok(())
}

/// What the self-test says holds for tagged frames and for IPv6 too.
#[test]
fn the_self_test_tries_tags_and_both_families() -> Result<()> {
    let ended = Running::start(&ground()?, fixer(&["selftest"])?)?.end()?.ok()?;
    let said = ended.stdout.join("\n");
    contains(&said, &["ok   so does one behind two VLAN tags", "ok   so does a DHCPv6 reply"])
}

#[test]
fn help_and_version_are_results() -> Result<()> {
    let netns = ground()?;
    let said = |arguments: &[&str]| -> Result<String> {
        let ended = Running::start(&netns, fixer(arguments)?)?.end()?.ok()?;
        ensure!(ended.stderr.is_empty(), "{ended:?}");
        Ok(ended.stdout.join("\n"))
    };
    contains(&said(&["--help"])?, &["Usage: fixer", "Examples:", "Exit status: 0 done"])?;
    let examples = ["Examples:", "fixer run -i virbr0", "--match", "--metrics", "--pcapng"];
    contains(&said(&["run", "--help"])?, &examples)?;
    contains(&said(&["--version"])?, &["fixer ", env!("CARGO_PKG_VERSION")])
}

/// `fixer demo | head -1`: who has read enough is no reason for an alarm.
#[test]
fn a_reader_that_goes_away_is_no_alarm() -> Result<()> {
    let netns = ground()?;
    for verb in [&["selftest"][..], &["demo", "--patience", "2"], &["--help"]] {
        let (reader, writer) = io::pipe()?;
        drop(reader);
        let running = Running::start_into(&netns, fixer(verb)?, writer)?;
        let ended = running.end()?;
        ensure!(ended.stderr.is_empty(), "{verb:?}: {ended:?}");
        ensure!(ended.status.code() != Some(101), "{verb:?}: {ended:?}");
    }
    Ok(())
}

#[test]
fn metrics_can_be_served_elsewhere() -> Result<()> {
    let netns = ground()?;
    link::address(&netns, INTERFACE, IpAddr::from([10, 9, 8, 7]), 24)?;
    let running = attached(&netns, &["-i", INTERFACE, "--metrics", "10.9.8.7:80"])?;
    running.stop(Signal::SIGTERM)?.ok()?;
    let text = refused(&netns, &["run", "-i", INTERFACE, "--metrics", "10.9.8.6:80"], FAILED)?;
    contains(&text, &["10.9.8.6:80", "Cannot assign requested address"])
}
