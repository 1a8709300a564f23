//! The host that guests boot from: a bridge, and dnsmasq with DHCP and TFTP on it.

use std::{
    fs,
    net::{IpAddr, Ipv6Addr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::Receiver,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use fixer_user::{
    lab::{
        link,
        sandbox::Sandboxed,
        scene::{BRIDGE, SERVER, lines},
    },
    net::netns::NetNs,
};
use tempfile::TempDir;

use super::guest::GREETING;

/// The boot file's name.
const FILE: &str = "boot.ipxe";

/// The host's IPv6 address on the bridge. iPXE asks for a router as well, and waits 16 seconds for
/// one that does not answer.
const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd03, 0, 0, 0, 0, 0, 0, 1);

/// What dnsmasq says when it is ready.
const LAST_OF_START: &str = "TFTP root is";

/// How long the server may take to start.
const PATIENCE: Duration = Duration::from_secs(10);

/// A bridge with its servers, gone when this is dropped.
#[derive(Debug)]
pub struct Server {
    /// Where the bridge is.
    pub host: NetNs,
    log: Receiver<String>,
    _process: Sandboxed,
    _directory: TempDir,
}

impl Server {
    /// Makes the bridge and starts dnsmasq, which gives every guest a boot file of `len` bytes at
    /// least.
    pub fn start(len: usize) -> Result<Self> {
        let host = NetNs::scratch("host")?;
        link::up(&host, "lo")?;
        link::bridge(&host, BRIDGE)?;
        link::address(&host, BRIDGE, IpAddr::V4(SERVER), 24)?;
        link::address(&host, BRIDGE, IpAddr::V6(SERVER_V6), 64)
            .context("the bridge takes no IPv6 address: start the kernel without ipv6.disable")?;
        let directory = tempfile::tempdir()?;
        fs::write(directory.path().join(FILE), boot_file(len))?;

        let mut command = Command::new("dnsmasq");
        command
            .args(["--keep-in-foreground", "--log-facility=-", "--conf-file=/dev/null"])
            .args(["--port=0", "--no-resolv", "--no-hosts", "--no-ping", "--leasefile-ro"])
            .args(["--user=root", "--group=root", "--pid-file", "--bind-interfaces"])
            .arg(format!("--interface={BRIDGE}"))
            .arg("--dhcp-range=10.0.3.100,10.0.3.199,255.255.255.0,1h")
            .arg("--dhcp-authoritative")
            .args(["--enable-ra", "--dhcp-range=fd03::,ra-only"])
            // ipxe.no-pxedhcp = 1: there is no second server to wait for.
            .arg("--dhcp-option=175,b0:01:01")
            .arg(format!("--dhcp-boot={FILE}"))
            .arg("--enable-tftp")
            .arg(format!("--tftp-root={}", seen_from_sandbox(directory.path()).display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut process = Sandboxed::spawn(&host, command)
            .context("cannot start dnsmasq; `cargo xtask pxe` installs what it needs")?;
        let log = process.child().stderr.take().context("dnsmasq has no log")?;
        let server = Self { host, log: lines(log), _process: process, _directory: directory };
        server.wait(LAST_OF_START)?;
        Ok(server)
    }

    fn wait(&self, words: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let left = || deadline.saturating_duration_since(Instant::now());
        let mut said = Vec::new();
        while let Ok(line) = self.log.recv_timeout(left()) {
            if line.contains(words) {
                return Ok(());
            }
            said.push(line);
        }
        bail!("dnsmasq did not start: {}", said.join("; "))
    }

    /// What it has said since its start about DHCP and files, line by line.
    pub fn told(&self) -> Vec<String> {
        let lines = self.log.try_iter();
        // The name of the program and its process stand before each.
        lines
            .filter_map(|line| line.split_once("]: ").map(|(_, text)| text.trim_end().to_owned()))
            .filter(|text| !text.starts_with("RTR-"))
            .collect()
    }
}

/// A path of ours for those who have mounts of their own: the sandbox's `/tmp` is another one.
fn seen_from_sandbox(path: &Path) -> PathBuf {
    let ours = PathBuf::from(format!("/proc/{}/root", std::process::id()));
    ours.join(path.strip_prefix("/").unwrap_or(path))
}

/// A script for iPXE whose last line greets: it shows that all of it arrived.
pub fn boot_file(len: usize) -> String {
    let comment = format!("#{}\n", "x".repeat(99));
    let mut script = "#!ipxe\n".to_owned();
    while script.len() < len {
        script.push_str(&comment);
    }
    script + &format!("echo {GREETING}\n")
}
