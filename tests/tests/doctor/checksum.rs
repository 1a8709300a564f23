//! Checksums that nobody finishes, and those who do.

use std::{
    ffi::{CStr, CString},
    fs::{self, Permissions},
    io,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::Path,
};

use anyhow::{Context as _, Result};
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
    let fixed = [
        "--keep-in-foreground",
        "--log-facility=-",
        "--conf-file=/dev/null",
        "--port=0",
        "--no-resolv",
        "--no-hosts",
        "--no-ping",
        "--leasefile-ro",
        "--user=root",
        "--group=root",
        "--pid-file",
        "--bind-interfaces",
        &interface,
        &range,
    ];
    let mut running = Running::start(netns, program("dnsmasq", &[&fixed, more].concat()))?;
    running.stderr.wait("sockets bound exclusively to interface")?;
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
