//! Hosts on which not every program is there that could tell the rules, or change them.

use std::{
    ffi::{CStr, CString},
    fs,
    os::unix::{ffi::OsStrExt as _, fs::symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use fixer_tests::command::{Ended, Running, fixer, output, program};
use fixer_user::lab::scene::BRIDGE;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use super::{Diagnosis, Host, contains};

/// Where the programs of administrators are.
const PLACE: &CStr = c"/usr/sbin";

/// Programs of a host that has no others of those that only administrators need.
struct Programs {
    directory: tempfile::TempDir,
    /// Where the machine's are seen on that host.
    machine: PathBuf,
}

impl Programs {
    fn new() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let machine = directory.path().join("machine");
        fs::create_dir(&machine)?;
        Ok(Self { directory, machine })
    }

    /// One of the machine's, under some name.
    fn with(self, name: &str, program: &str) -> Result<Self> {
        let found = fs::canonicalize(Path::new("/usr/sbin").join(program))?;
        let file = found.file_name().context("a file has a name")?;
        // iptables looks at the name that it is started by.
        symlink(self.machine.join(file), self.directory.path().join(name))?;
        Ok(self)
    }

    /// Runs a command there.
    fn ended(&self, host: &Host, mut command: Command) -> Result<Ended> {
        const NONE: Option<&CStr> = None;
        command.env("PATH", self.directory.path());
        let machine = CString::new(self.machine.as_os_str().as_bytes())?;
        let hide = move || {
            unshare(CloneFlags::CLONE_NEWNS)?;
            mount(NONE, c"/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
            mount(Some(PLACE), &*machine, NONE, MsFlags::MS_BIND, NONE)?;
            Ok(mount(Some(c"tmpfs"), PLACE, Some(c"tmpfs"), MsFlags::empty(), NONE)?)
        };
        Running::start_as(&host.scene.host, command, hide)?.end()
    }

    /// What the doctor says on a host that has these.
    fn diagnosis(&self, host: &Host) -> Result<Diagnosis> {
        Diagnosis::read(&self.ended(host, fixer(&["doctor", "--json", "-i", BRIDGE])?)?)
    }

    /// Runs a command on it.
    fn run(&self, host: &Host, command: &str) -> Result<()> {
        self.ended(host, program("/bin/sh", &["-c", command]))?.ok().map(drop)
    }
}

/// The kernel has rules that nobody here can tell.
#[test]
fn rules_without_a_program() -> Result<()> {
    let none = Programs::new()?;
    let is_unseen = |host: &Host, programs: &Programs, words: &[&str]| {
        let diagnosis = programs.diagnosis(host)?;
        contains(&diagnosis.report["unseen"].to_string(), words)?;
        let fine = diagnosis.report["fine"].to_string();
        ensure!(!fine.contains("firewall") && !fine.contains("checksums"), "{diagnosis:#?}");
        Ok(diagnosis)
    };
    let input = "add table inet f; \
        add chain inet f in { type filter hook input priority 0; policy drop; }";
    let host = Host::partial()?;
    // Nobody can have made any.
    let diagnosis = none.diagnosis(&host)?;
    diagnosis.names("checksum", "likely")?;
    ensure!(diagnosis.report["unseen"].as_array().is_some_and(Vec::is_empty), "{diagnosis:#?}");
    output(&host.scene.host, "nft", &[input])?;
    let words = ["the tables of nftables (inet f)", "install nftables"];
    is_unseen(&host, &none, &words)?.names("checksum", "possible")?;
    // iptables tells its own tables, and no others.
    host.finish_sums()?;
    let iptables = Programs::new()?
        .with("iptables", "iptables-nft")?
        .with("iptables-save", "iptables-nft-save")?;
    is_unseen(&host, &iptables, &words)?.passes("checksum")?;
    host.host("nft", "delete table inet f")?;
    iptables.diagnosis(&host)?.is_healthy()?;
    is_unseen(&host, &none, &["ip mangle"]).map(drop)
}

#[test]
fn rules_of_the_old_iptables_without_a_program() -> Result<()> {
    let host = Host::partial()?;
    host.host(
        "iptables-legacy",
        "-t mangle -A POSTROUTING -p udp --dport 68 -j CHECKSUM --checksum-fill",
    )?;
    let nft = Programs::new()?.with("nft", "nft")?;
    let diagnosis = nft.diagnosis(&host)?;
    diagnosis.names("checksum", "possible")?;
    let words = ["the tables of the old iptables (mangle)", "install iptables"];
    contains(&diagnosis.report["unseen"].to_string(), &words)?;
    // One that has another name than where both are, and one that is the other.
    let legacy = |programs: Programs| {
        programs.with("iptables", "iptables-legacy")?.with("iptables-save", "iptables-legacy-save")
    };
    legacy(nft)?.diagnosis(&host)?.is_healthy()?;
    let other = Programs::new()?
        .with("nft", "nft")?
        .with("iptables", "iptables-nft")?
        .with("iptables-save", "iptables-nft-save")?;
    other.diagnosis(&host)?.names("checksum", "possible").map(drop)
}

/// nft tells that there is a match of iptables, and not what it matches.
#[test]
fn rules_of_the_new_iptables_without_it() -> Result<()> {
    let host = Host::new()?;
    host.host("iptables-nft", "-A INPUT -p udp -m multiport --dports 67,68 -j DROP")?;
    let nft = Programs::new()?.with("nft", "nft")?;
    let diagnosis = nft.diagnosis(&host)?;
    contains(&diagnosis.report["unseen"].to_string(), &["nft does not tell", "install iptables"])?;
    ensure!(!diagnosis.report["fine"].to_string().contains("firewall"), "{diagnosis:#?}");
    Ok(())
}

/// The command is the one that is here and that knows the rule.
#[test]
fn the_command_is_one_that_knows_the_rule() -> Result<()> {
    let rule = "-A INPUT -i br0 -p udp --dport 67 -j DROP";
    for (made_by, plain, specific, command) in [
        ("iptables-nft", "iptables-nft", "iptables-legacy", "iptables -t"),
        ("iptables-nft", "iptables-legacy", "iptables-nft", "iptables-nft -t"),
        ("iptables-legacy", "iptables-nft", "iptables-legacy", "iptables-legacy -t"),
        ("iptables-legacy", "iptables-legacy", "iptables-nft", "iptables -t"),
    ] {
        let host = Host::new()?;
        host.host(made_by, rule)?;
        let programs = Programs::new()?
            .with("nft", "nft")?
            .with("iptables", plain)?
            .with("iptables-save", &format!("{plain}-save"))?
            .with(specific, specific)?
            .with(&format!("{specific}-save"), &format!("{specific}-save"))?;
        let diagnosis = programs.diagnosis(&host)?;
        diagnosis.names("firewall", "certain")?;
        let said = diagnosis.remedy("firewall")?;
        ensure!(said.starts_with(command), "{made_by}, {plain}: {said}");
        programs.run(&host, &said)?;
        programs.diagnosis(&host)?.passes("firewall")?;
    }
    // Without iptables it is nft that can change what is in nftables.
    let host = Host::new()?;
    host.host("iptables-nft", rule)?;
    let nft = Programs::new()?.with("nft", "nft")?;
    let said = nft.diagnosis(&host)?.remedy("firewall")?;
    nft.run(&host, &said)?;
    nft.diagnosis(&host)?.passes("firewall")
}
