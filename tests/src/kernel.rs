//! The object in the running kernel, for suites that look into it.

use std::ffi::CStr;

use anyhow::{Context as _, Result, ensure};
use fixer_common::{
    abi::Hook,
    rule::Rule,
    verdict::{TABLE, Verdict},
};
use fixer_user::bpf::load::{Config, Object};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// Stops a suite that needs root and is not, with the way to get it.
pub fn require_root() -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "this suite makes network namespaces and loads BPF programs: run it as root, with \
         `cargo xtask test`"
    );
    Ok(())
}

/// Gives this thread mounts of its own, with a file system of this kind in place of the host's pins.
pub fn mount_at_bpffs(kind: &CStr, flags: MsFlags) -> Result<()> {
    const NONE: Option<&CStr> = None;
    require_root()?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(NONE, c"/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    mount(Some(kind), c"/sys/fs/bpf", Some(kind), flags, NONE)?;
    Ok(())
}

/// The object with these rules.
pub fn load(rules: &[Rule]) -> Result<Object> {
    load_with(rules, false)
}

/// The object with these rules, made for a kernel that clears the mark at the second shrink or not.
pub fn load_with(rules: &[Rule], shrink_twice: bool) -> Result<Object> {
    require_root()?;
    let rules = rules.to_vec();
    Object::load(&Config { rules, shrink_twice, events: 0, ..Config::default() })
        .context("the kernel does not take the object")
}

/// Packets counted so far, by verdict, over all interfaces and hooks.
pub fn counted(object: &Object) -> Result<[u64; TABLE.len()]> {
    let mut counts = [0; _];
    for row in object.counters()? {
        for (sum, (_, count)) in counts.iter_mut().zip(row.counts()) {
            *sum += count;
        }
    }
    Ok(counts)
}

/// What was counted between two looks: the verdict of one packet, or nothing.
pub fn verdict_between(
    before: [u64; TABLE.len()],
    after: [u64; TABLE.len()],
) -> Result<Option<Verdict>> {
    let mut found = None;
    for (row, (before, after)) in TABLE.iter().zip(before.into_iter().zip(after)) {
        match after - before {
            0 => {}
            1 if found.is_none() => found = Some(row.verdict),
            _ => anyhow::bail!("more than one packet was counted: {before:?} then {after:?}"),
        }
    }
    Ok(found)
}

/// The hook that most suites use.
pub const HOOK: Hook = Hook::Egress;
