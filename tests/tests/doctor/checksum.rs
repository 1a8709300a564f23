//! Checksums that nobody finishes, and those who do.

use std::{
    ffi::{CStr, CString},
    fs::{self, Permissions},
    io,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use fixer_tests::command::{Running, on_bridge, program, turn_off};
use fixer_user::{lab::scene::BRIDGE, net::netns::NetNs};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use super::{Diagnosis, Host, contains};

/// A further dnsmasq on the bridge.
pub(super) fn serve(netns: &NetNs, more: &[&str]) -> Result<Running> {
    dnsmasq(netns, BRIDGE, "10.0.3", more)
}

/// A dnsmasq on an interface, once it listens.
pub(super) fn dnsmasq(netns: &NetNs, interface: &str, net: &str, more: &[&str]) -> Result<Running> {
    let range = format!("--dhcp-range={net}.100,{net}.199,255.255.255.0,1h");
    let interface = format!("--interface={interface}");
    let fixed = ["--conf-file=/dev/null", "--bind-interfaces", &interface, &range];
    started(netns, dnsmasq_told(&[&fixed, more].concat()))
}

/// A dnsmasq that is told these arguments, and nothing of where it serves.
pub(super) fn dnsmasq_told(arguments: &[&str]) -> Command {
    let fixed = [
        "--keep-in-foreground",
        "--log-facility=-",
        "--port=0",
        "--no-resolv",
        "--no-hosts",
        "--no-ping",
        "--leasefile-ro",
        "--user=root",
        "--group=root",
    ];
    let has_pid_file = arguments.iter().any(|argument| argument.starts_with("--pid-file"));
    let none: &[&str] = if has_pid_file { &[] } else { &["--pid-file"] };
    program("dnsmasq", &[&fixed, none, arguments].concat())
}

/// A dnsmasq in a namespace, once it listens.
pub(super) fn started(netns: &NetNs, dnsmasq: Command) -> Result<Running> {
    let mut running = Running::start(netns, dnsmasq)?;
    running.stderr.wait("DHCP, IP range")?;
    Ok(running)
}

#[test]
fn nobody_finishes_them() -> Result<()> {
    let host = Host::partial()?;
    let finding = host.diagnosis()?.names("checksum", "likely")?;
    let words = ["br0 promises checksums", "no CHECKSUM rule", "guest0", "fixer attach -i br0"];
    contains(&finding, &words)
}

#[test]
fn who_finishes_them_is_known() -> Result<()> {
    let host = Host::partial()?;
    {
        let _fixer = on_bridge(&host.scene.host, &[])?;
        host.diagnosis()?.is_healthy()?;
    }
    host.diagnosis()?.names("checksum", "likely")?;
    // A port without offload finishes them, and so does a bridge.
    for interface in ["guest0", BRIDGE] {
        host.diagnosis()?.names("checksum", "likely")?;
        turn_off(&host.scene.host, interface, "tx")?;
        host.diagnosis()?.is_healthy()?;
        host.host("ethtool", &format!("-K {interface} tx on"))?;
    }
    Ok(())
}

/// Who only counts finishes nothing, and neither does who looks at other packets.
#[test]
fn a_fixer_that_does_not_fix_is_not_taken_for_one_that_does() -> Result<()> {
    let host = Host::partial()?;
    for (arguments, words) in [
        (&["--observe-only"][..], "changes nothing"),
        (&["--match", "udp:1:2"], "does not match DHCP"),
    ] {
        let fixer = on_bridge(&host.scene.host, arguments)?;
        let finding = host.diagnosis()?.names("checksum", "likely")?;
        contains(&finding, &[words, &format!("fixer run (pid {})", fixer.pid())])?;
    }
    // Rules that hold more than DHCP hold DHCP.
    let _fixer = on_bridge(&host.scene.host, &["--match", "pxe,udp:*:*"])?;
    host.diagnosis()?.is_healthy()
}

/// What leaves the host is finished by its hardware, after packet sockets have seen it.
#[test]
fn a_port_to_other_hosts_finishes_them() -> Result<()> {
    let host = Host::partial()?;
    host.host("ip", "link add vx0 type vxlan id 5 dstport 4789 local 10.0.3.1")?;
    host.host("ip", "link set vx0 up master br0 mtu 1500")?;
    let finding = host.diagnosis()?.names("checksum", "likely")?;
    contains(&finding, &["ports that pass them on so: guest0"])?;
    ensure!(!finding.contains("vx0"), "{finding}");
    turn_off(&host.scene.host, "guest0", "tx")?;
    let diagnosis = host.diagnosis()?;
    diagnosis.passes("checksum")?;
    ensure!(diagnosis.status == Some(0), "{diagnosis:#?}");
    Ok(())
}

#[test]
fn a_rule_for_another_interface_finishes_nothing() -> Result<()> {
    let host = Host::partial()?;
    let rule = "-t mangle -A POSTROUTING -o other0 -p udp --dport 68 -j CHECKSUM --checksum-fill";
    for iptables in ["iptables-nft", "iptables-legacy"] {
        host.host(iptables, rule)?;
        host.diagnosis()?.names("checksum", "likely")?;
        host.host(iptables, &rule.replace("other0", "br0"))?;
        host.diagnosis()?.is_healthy()?;
        host.host(iptables, "-t mangle -F")?;
    }
    Ok(())
}

/// Hides a path behind something else, for one program.
fn behind(
    source: CString,
    path: CString,
) -> impl FnMut() -> io::Result<()> + Send + Sync + 'static {
    const NONE: Option<&CStr> = None;
    move || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(NONE, c"/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
        Ok(mount(Some(&*source), &*path, NONE, MsFlags::MS_BIND, NONE)?)
    }
}

#[test]
fn where_a_rule_is_not_possible_it_says_so() -> Result<()> {
    let host = Host::partial()?;
    let look = |source: &Path, path: &Path| {
        let text = |path: &Path| CString::new(path.as_os_str().as_bytes());
        let prepare = behind(text(source)?, text(path)?);
        Diagnosis::prepared(&host.scene.host, &["-i", BRIDGE], prepare)
    };
    // Here it is possible, or nobody can tell.
    host.diagnosis()?.passes("rule")?;
    let iptables = fs::canonicalize("/usr/sbin/iptables")?;
    // nftables alone: what is there cannot be run.
    let diagnosis = look(Path::new("/dev/null"), &iptables)?;
    contains(&diagnosis.names("rule", "note")?, &["there is no iptables here"])?;
    // An iptables of 2009, as far as it is asked.
    let old = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempfile()?;
    fs::write(old.path(), "#!/bin/sh\necho iptables v1.4.7\n")?;
    let old = old.into_temp_path();
    let diagnosis = look(&old, &iptables)?;
    contains(&diagnosis.names("rule", "note")?, &["iptables 1.4.7 is older than 1.4.10"])?;
    // One without the extension, for its directory is empty.
    let places = fs::read_dir("/usr/lib")?.flatten().map(|entry| entry.path().join("xtables"));
    let place = places.chain(["/usr/lib/xtables".into()]).find(|path| path.is_dir());
    let empty = tempfile::tempdir()?;
    let diagnosis = look(empty.path(), &place.context("iptables has no extensions")?)?;
    contains(&diagnosis.names("rule", "note")?, &["no libxt_CHECKSUM.so"]).map(drop)
}
