//! Which capabilities fixer needs and what for, and giving up those that it does not need any more.

use std::{fmt, fmt::Write as _};

use anyhow::{Context as _, Result, bail};
use caps::{
    CapSet::{Ambient, Bounding, Effective, Inheritable, Permitted},
    Capability, CapsHashSet,
};
use nix::{
    sys::prctl,
    unistd::{User, setgroups, setresgid, setresuid},
};

/// Something that the kernel lets nobody do without a capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Load the programs.
    Load,
    /// Read the programs' maps.
    Read,
    /// Put programs onto interfaces, and take them off.
    Attach,
    /// Look at programs that another process left.
    Inspect,
    /// Try the programs in a scratch network namespace.
    SelfTest,
    /// Play the demo.
    Demo,
    /// Enter another network namespace.
    Enter,
    /// Enter that of another's process.
    EnterProcess,
    /// Become another user.
    Become,
}

/// What each act takes, and why.
const TABLE: [(Act, Capability, &str); 14] = [
    (Act::Load, Capability::CAP_BPF, "to load eBPF programs"),
    (Act::Load, Capability::CAP_PERFMON, "to load eBPF programs that look into packets"),
    (Act::Load, Capability::CAP_NET_ADMIN, "to load eBPF programs that change packets"),
    (Act::Read, Capability::CAP_BPF, "to read counters and events"),
    (Act::Attach, Capability::CAP_NET_ADMIN, "to attach to interfaces"),
    (Act::Inspect, Capability::CAP_SYS_ADMIN, "to look at programs that are attached already"),
    (Act::SelfTest, Capability::CAP_SYS_ADMIN, "to make the self-test's network namespaces"),
    (Act::SelfTest, Capability::CAP_NET_RAW, "to send the self-test's packets"),
    (Act::Demo, Capability::CAP_NET_BIND_SERVICE, "to let dnsmasq serve DHCP"),
    (Act::Demo, Capability::CAP_SETGID, "to let dnsmasq give up its privileges"),
    (Act::Enter, Capability::CAP_SYS_ADMIN, "to enter other network namespaces"),
    (Act::EnterProcess, Capability::CAP_SYS_PTRACE, "to find the namespace of another's process"),
    (Act::Become, Capability::CAP_SETUID, "to become another user"),
    (Act::Become, Capability::CAP_SETGID, "to leave root's groups"),
];

/// What the start of `run` takes besides the self-test.
pub const TO_ATTACH: &[Act] = &[Act::Load, Act::Read, Act::Attach];

/// What `run` keeps once it is attached, besides what its options ask for.
pub const TO_STAY: &[Act] = &[Act::Read, Act::Attach];

/// What the verb `selftest` takes.
pub const TO_PROVE: &[Act] = &[Act::Load, Act::Read, Act::Attach, Act::SelfTest];

/// What `attach` takes besides the self-test: it looks for what is there already.
pub const TO_PIN: &[Act] = &[Act::Load, Act::Read, Act::Attach, Act::Inspect];

/// What `detach` takes.
pub const TO_INSPECT: &[Act] = &[Act::Read, Act::Attach, Act::Inspect];

/// What `status` and `top` take.
pub const TO_LOOK: &[Act] = &[Act::Read, Act::Inspect];

/// What `watch` takes.
pub const TO_WATCH: &[Act] = &[Act::Read, Act::Inspect];

/// What `demo` takes.
pub const TO_PLAY: &[Act] = &[Act::Load, Act::Read, Act::Attach, Act::SelfTest, Act::Demo];

/// What these acts take, each capability once and with its first reason.
pub fn needs(acts: &[Act]) -> Vec<(Capability, &'static str)> {
    let mut needs: Vec<(Capability, &str)> = Vec::new();
    for (_, capability, why) in TABLE.iter().filter(|(act, ..)| acts.contains(act)) {
        if !needs.iter().any(|(known, _)| known == capability) {
            needs.push((*capability, why));
        }
    }
    needs
}

/// The capability that serves here: the kernel takes CAP_SYS_ADMIN for those that were split off it.
fn held(capability: Capability) -> Option<Capability> {
    let is_held = |capability| caps::has_cap(None, Effective, capability).unwrap_or(false);
    let split = [Capability::CAP_BPF, Capability::CAP_PERFMON].contains(&capability);
    let whole = split.then_some(Capability::CAP_SYS_ADMIN);
    [Some(capability), whole].into_iter().flatten().find(|capability| is_held(*capability))
}

/// Capabilities that are lacking, each with what it is needed for.
#[derive(Debug)]
pub struct Lacking(Vec<(Capability, &'static str)>);

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(lacking) = self;
        let why: Vec<_> = lacking.iter().map(|(name, why)| format!("{name} ({why})")).collect();
        let names: Vec<_> = lacking.iter().map(|(name, _)| name.to_string()).collect();
        let (why, names) = (why.join(" and "), names.join(" and "));
        write!(f, "privileges are missing, {why}; run as root, or grant {names}")
    }
}

impl std::error::Error for Lacking {}

/// Fails before anything is begun that would fail half-way.
pub fn require(acts: &[Act]) -> Result<(), Lacking> {
    let lacking: Vec<_> = needs(acts).into_iter().filter(|(c, _)| held(*c).is_none()).collect();
    if lacking.is_empty() { Ok(()) } else { Err(Lacking(lacking)) }
}

/// The table for these acts, as the help shows it.
pub fn help(acts: &[Act]) -> String {
    needs(acts).into_iter().fold(String::new(), |mut text, (capability, why)| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {:<20} {why}", capability.to_string());
        text
    })
}

/// A user to become.
pub fn user(name: &str) -> Result<User> {
    match User::from_name(name).with_context(|| format!("cannot look up the user '{name}'"))? {
        Some(user) => Ok(user),
        None => bail!("there is no user '{name}'; --user takes a name of /etc/passwd"),
    }
}

/// Gives up, for ever, every capability but those of these acts, and becomes `user`. It must be called
/// while the process has one thread: threads that are there already keep what they have.
pub fn keep(acts: &[Act], user: Option<&User>) -> Result<()> {
    let kept: CapsHashSet = needs(acts).into_iter().filter_map(|(c, _)| held(c)).collect();
    // Without CAP_SETPCAP the bounding set stays; then no_new_privs makes it worthless all the same.
    if caps::has_cap(None, Effective, Capability::CAP_SETPCAP)? {
        for capability in caps::read(None, Bounding)?.difference(&kept) {
            caps::drop(None, Bounding, *capability)?;
        }
    }
    if let Some(user) = user {
        prctl::set_keepcaps(true)?;
        setgroups(&[user.gid])
            .and_then(|()| setresgid(user.gid, user.gid, user.gid))
            .and_then(|()| setresuid(user.uid, user.uid, user.uid))
            .with_context(|| format!("cannot become the user '{}'", user.name))?;
        prctl::set_keepcaps(false)?;
    }
    if caps::runtime::ambient_set_supported().is_ok() {
        caps::clear(None, Ambient)?;
    }
    caps::clear(None, Inheritable)?;
    caps::set(None, Effective, &kept)?;
    caps::set(None, Permitted, &kept)?;
    Ok(prctl::set_no_new_privs()?)
}
