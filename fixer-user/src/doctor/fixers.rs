//! What of fixer's is attached in a namespace, and whether it finishes sums.

use std::{fmt, io};

use fixer_common::{abi::Hook, verdict::Verdict};
use nix::net::if_::if_indextoname;

use crate::{
    bpf::{
        baked::{self, Baked},
        resident::{Holder, Resident, attached, residents},
    },
    net::{inspect::Interface, netns::NetNs},
};

/// A program of fixer's at a hook.
#[derive(Clone, Copy, Debug)]
pub struct Fixer {
    /// The interface's index.
    pub ifindex: u32,
    /// The hook.
    pub hook: Hook,
    /// Who holds it.
    pub holder: Holder,
    /// What it does to DHCP replies.
    pub effect: Effect,
}

/// What a program does to the sums of DHCP replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It finishes them.
    Fixes,
    /// It counts them (`--observe-only`).
    Observes,
    /// It looks at other packets only (`--match`).
    Ignores,
    /// This could not be read, and it has counted nothing that would tell.
    Unknown,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fixes => "it finishes sums",
            Self::Observes => "it changes nothing (--observe-only)",
            Self::Ignores => "it does not match DHCP (--match)",
            Self::Unknown => "whether it finishes sums is not known",
        })
    }
}

impl Fixer {
    /// Who holds it, in findings.
    pub fn label(&self) -> String {
        match self.holder {
            Holder::Attach(_) => "fixer attach".to_owned(),
            Holder::Run(pid) => format!("fixer run (pid {pid})"),
            Holder::Elsewhere | Holder::Unknown => "a fixer whose process is not seen".to_owned(),
            Holder::Nobody => "what a killed fixer left".to_owned(),
        }
    }
}

/// Every program of fixer's at these interfaces. An interface that goes away meanwhile has none.
pub fn read(netns: &NetNs, interfaces: &[Interface]) -> io::Result<Vec<Fixer>> {
    netns.run(|| {
        let mut found = Vec::new();
        for interface in interfaces {
            for hook in [Hook::Egress, Hook::Ingress] {
                match attached(&interface.name, hook) {
                    Ok(Some(_)) => found.push(unknown(interface.ifindex, hook)),
                    Ok(None) => {}
                    Err(_) if is_gone(interface) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        let is_there = |one: &&Interface| found.iter().any(|it| it.ifindex == one.ifindex);
        let links = interfaces.iter().filter(is_there).map(|it| (it.ifindex, it.name.as_str()));
        // Who may not see more than that it is there, or is too late for it, knows no more.
        let residents = residents(links).unwrap_or_default();
        for fixer in &mut found {
            let is_it = |it: &&Resident| (it.ifindex, it.hook) == (fixer.ifindex, fixer.hook);
            if let Some(resident) = residents.iter().find(is_it) {
                (fixer.holder, fixer.effect) = (resident.holder, effect(resident));
            }
        }
        Ok(found)
    })?
}

fn unknown(ifindex: u32, hook: Hook) -> Fixer {
    Fixer { ifindex, hook, holder: Holder::Unknown, effect: Effect::Unknown }
}

/// Whether an interface is no longer what it was when it was listed.
fn is_gone(interface: &Interface) -> bool {
    if_indextoname(interface.ifindex)
        .map_or(true, |name| name.to_bytes() != interface.name.as_bytes())
}

/// What a program was told when it was loaded tells what it does, and else what it has counted.
fn effect(resident: &Resident) -> Effect {
    match baked::of(resident.program) {
        Some(Baked { observes: true, .. }) => return Effect::Observes,
        Some(Baked { matches_dhcp, .. }) => {
            return if matches_dhcp { Effect::Fixes } else { Effect::Ignores };
        }
        None => {}
    }
    let Ok(Some(row)) = resident.counted() else { return Effect::Unknown };
    match (row.count(Verdict::Fixed), row.count(Verdict::Partial)) {
        (0, 0) => Effect::Unknown,
        (0, _) => Effect::Observes,
        _ => Effect::Fixes,
    }
}
