//! Every verb works with the capabilities that the table names for it, and with none of the others;
//! without one of them it says in a line which, and touches nothing.

use std::io;

use anyhow::{Result, ensure};
use caps::{
    CapSet,
    Capability::{self, CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN},
};
use fixer_tests::{
    command::{Ended, Running, fixer, hooks, naming, program},
    mounts::{mount_at_bpffs, name, private_names},
};
use fixer_user::{
    lab::link,
    net::netns::NetNs,
    privileges::{self, Act},
};
use nix::{mount::MsFlags, sys::signal::Signal};

const INTERFACE: &str = "br0";

/// A verb, and what the table says that it does.
struct Verb {
    arguments: &'static [&'static str],
    acts: &'static [&'static [Act]],
}

const RUN: &[&str] = &["run", "-i", INTERFACE, "--metrics", "off", "--events", "none"];
const RUN_UNPROVEN: &[&str] = &["run", "-i", INTERFACE, "--metrics", "off", "--skip-selftest"];
const RUN_AS: &[&str] = &["run", "-i", INTERFACE, "--metrics", "off", "--user", "nobody"];

/// The verbs that come to their end by themselves, in an order in which each finds something to do.
const VERBS: [Verb; 7] = [
    Verb { arguments: &["selftest"], acts: &[privileges::TO_PROVE] },
    Verb { arguments: &["demo", "--patience", "2"], acts: &[privileges::TO_PLAY] },
    Verb { arguments: &["attach", "-i", INTERFACE], acts: &[privileges::TO_PIN, &[Act::SelfTest]] },
    // It finds the one before it.
    Verb {
        arguments: &["attach", "-i", INTERFACE, "--skip-selftest"],
        acts: &[privileges::TO_PIN],
    },
    Verb { arguments: &["status"], acts: &[privileges::TO_LOOK] },
    Verb { arguments: &["top", "--once"], acts: &[privileges::TO_LOOK] },
    Verb { arguments: &["detach", "--all"], acts: &[privileges::TO_INSPECT] },
];

/// What `fixer run` does, with these arguments.
const RUNS: [Verb; 3] = [
    Verb { arguments: RUN, acts: &[privileges::TO_ATTACH, &[Act::SelfTest]] },
    Verb { arguments: RUN_UNPROVEN, acts: &[privileges::TO_ATTACH] },
    Verb { arguments: RUN_AS, acts: &[privileges::TO_ATTACH, &[Act::SelfTest, Act::Become]] },
];

const WATCH: Verb = Verb { arguments: &["watch"], acts: &[privileges::TO_WATCH] };

impl Verb {
    fn needs(&self) -> Vec<Capability> {
        privileges::needs(&self.acts.concat()).into_iter().map(|(need, _)| need).collect()
    }

    fn start(&self, netns: &NetNs, capabilities: Vec<Capability>) -> Result<Running> {
        Running::start_as(netns, fixer(self.arguments)?, with(capabilities))
    }

    /// Without any one of its capabilities, it says which.
    fn says_which(&self, netns: &NetNs) -> Result<()> {
        let needs = self.needs();
        for lacking in &needs {
            // The kernel takes the whole for these parts of it.
            let is_part = [CAP_BPF, CAP_PERFMON].contains(lacking);
            if is_part && needs.contains(&CAP_SYS_ADMIN) {
                continue;
            }
            let before = hooks(netns, INTERFACE)?;
            let rest = needs.iter().copied().filter(|need| need != lacking).collect();
            let Ended { status, stdout, stderr } = self.start(netns, rest)?.end()?;
            let told = format!("{:?} without {lacking}: {stdout:?}, {stderr:?}", self.arguments);
            ensure!(status.code() == Some(1) && stdout.is_empty(), "{told}");
            let [line] = &stderr[..] else { anyhow::bail!("not one line: {told}") };
            ensure!(line.ends_with(&format!("; run as root, or grant {lacking}")), "{told}");
            ensure!(hooks(netns, INTERFACE)? == before, "{told}");
        }
        Ok(())
    }
}

/// A root with these capabilities: what is not in the bounding set is not in the effective set of what
/// root starts.
fn with(capabilities: Vec<Capability>) -> impl FnMut() -> io::Result<()> + Send + Sync + 'static {
    let others: Vec<_> =
        caps::all().into_iter().filter(|capability| !capabilities.contains(capability)).collect();
    move || {
        for capability in &others {
            // The kernel may not know the newest ones.
            let _ = caps::drop(None, CapSet::Bounding, *capability);
        }
        Ok(())
    }
}

/// A namespace with an interface, and for this thread a BPF file system of its own.
fn ground() -> Result<NetNs> {
    mount_at_bpffs(c"bpf", MsFlags::empty())?;
    let netns = NetNs::scratch("ground")?;
    link::up(&netns, "lo")?;
    link::bridge(&netns, INTERFACE)?;
    Ok(netns)
}

#[test]
fn every_verb_works_with_what_the_table_names() -> Result<()> {
    let netns = ground()?;
    for verb in VERBS {
        verb.says_which(&netns)?;
        let ended = verb.start(&netns, verb.needs())?.end()?;
        ensure!(
            ended.status.success() && ended.stderr.is_empty(),
            "{:?}: {ended:?}",
            verb.arguments
        );
    }
    ensure!(hooks(&netns, INTERFACE)?.is_empty());
    Ok(())
}

#[test]
fn a_run_works_with_what_the_table_names() -> Result<()> {
    let netns = ground()?;
    for mode in ["tcx", "clsact"] {
        for verb in RUNS {
            verb.says_which(&netns)?;
            let arguments = [verb.arguments, &["--attach-mode", mode]].concat();
            let mut run = Running::start_as(&netns, fixer(&arguments)?, with(verb.needs()))?;
            run.stderr.wait("attached to egress of br0")?;
            ensure!(hooks(&netns, INTERFACE)?.len() == if mode == "tcx" { 1 } else { 2 });
            run.stop(Signal::SIGTERM)?.ok()?;
            ensure!(hooks(&netns, INTERFACE)?.is_empty(), "{arguments:?}");
        }
    }
    Ok(())
}

/// Of pinned maps with the process that it starts, and of a run.
#[test]
fn a_watch_works_with_what_the_table_names() -> Result<()> {
    let netns = ground()?;
    let watched = || -> Result<()> {
        WATCH.says_which(&netns)?;
        let mut watch = WATCH.start(&netns, WATCH.needs())?;
        watch.stderr.wait("watching egress of br0")?;
        let ended = watch.stop(Signal::SIGTERM)?.ok()?;
        ensure!(ended.stdout == ["no packet matched"] && ended.stderr.len() == 1, "{ended:?}");
        Ok(())
    };
    let attach = ["attach", "-i", INTERFACE, "--skip-selftest"];
    Running::start(&netns, fixer(&attach)?)?.end()?.ok()?;
    watched()?;
    Running::start(&netns, fixer(&["detach", "--all"])?)?.end()?.ok()?;
    let mut run = Running::start(&netns, fixer(RUN_UNPROVEN)?)?;
    run.stderr.wait("attached to")?;
    watched()?;
    run.stop(Signal::SIGTERM)?.ok().map(drop)
}

/// In another namespace it takes one more.
#[test]
fn another_namespace_takes_one_more() -> Result<()> {
    let (netns, elsewhere) = (ground()?, NetNs::scratch("elsewhere")?);
    let arguments = [RUN_UNPROVEN, &["--netns", "blue"]].concat();
    let start = |acts: &[Act]| -> Result<Running> {
        let needs = privileges::needs(acts).into_iter().map(|(need, _)| need).collect();
        let (mut naming, mut with) = (naming("blue", &netns)?, with(needs));
        Running::start_as(&elsewhere, fixer(&arguments)?, move || naming().and_then(|()| with()))
    };
    let ended = start(privileges::TO_ATTACH)?.end()?;
    let told = "CAP_SYS_ADMIN (to enter other network namespaces)";
    ensure!(ended.stderr.iter().any(|line| line.contains(told)), "{ended:?}");
    let mut run = start(&[privileges::TO_ATTACH, &[Act::Enter]].concat())?;
    run.stderr.wait("attached to egress of blue/br0")?;
    run.stop(Signal::SIGTERM)?.ok()?;
    ensure!(hooks(&netns, INTERFACE)?.is_empty());
    Ok(())
}

/// So do those that are named while it runs.
#[test]
fn a_glob_of_namespaces_takes_no_more() -> Result<()> {
    let netns = ground()?;
    private_names()?;
    let elsewhere = NetNs::scratch("elsewhere")?;
    let arguments = [RUN_UNPROVEN, &["--netns", "ns-*"]].concat();
    let start = |acts: &[Act]| -> Result<Running> {
        let needs = privileges::needs(acts).into_iter().map(|(need, _)| need).collect();
        Running::start_as(&elsewhere, fixer(&arguments)?, with(needs))
    };
    let ended = start(privileges::TO_ATTACH)?.end()?;
    let told = "CAP_SYS_ADMIN (to enter other network namespaces)";
    ensure!(ended.stderr.iter().any(|line| line.contains(told)), "{ended:?}");
    let mut run = start(&[privileges::TO_ATTACH, &[Act::Enter]].concat())?;
    run.stderr.wait("waiting")?;
    name(&netns, "ns-blue")?;
    run.stderr.wait("attached to egress of ns-blue/br0")?;
    run.stop(Signal::SIGTERM)?.ok()?;
    ensure!(hooks(&netns, INTERFACE)?.is_empty());
    Ok(())
}

/// Another's process shows its namespace to those only who may look into it.
#[test]
fn the_namespace_of_anothers_process_takes_another_one() -> Result<()> {
    let (netns, elsewhere) = (ground()?, NetNs::scratch("elsewhere")?);
    let process = Running::start(&netns, program("sleep", &["60"]))?;
    let spec = format!("pid:{}", process.pid());
    let arguments = [RUN_UNPROVEN, &["--netns", &spec]].concat();
    let start = |acts: &[Act]| -> Result<Running> {
        let needs = privileges::needs(acts).into_iter().map(|(need, _)| need).collect();
        Running::start_as(&elsewhere, fixer(&arguments)?, with(needs))
    };
    let mut acts = [privileges::TO_ATTACH, &[Act::Enter]].concat();
    let ended = start(&acts)?.end()?;
    let told = "for another's pid:N CAP_SYS_PTRACE";
    ensure!(ended.stderr.iter().any(|line| line.contains(told)), "{ended:?}");
    acts.push(Act::EnterProcess);
    let mut run = start(&acts)?;
    run.stderr.wait("attached to egress of pid:")?;
    run.stop(Signal::SIGTERM)?.ok()?;
    Ok(())
}

/// The help of each verb shows the same table.
#[test]
fn the_help_names_them() -> Result<()> {
    let netns = ground()?;
    for verb in VERBS.iter().chain(&RUNS).chain([&WATCH]) {
        let name = verb.arguments[0];
        let ended = Running::start(&netns, fixer(&[name, "--help"])?)?.end()?.ok()?;
        let help = ended.stdout.join("\n");
        for (capability, why) in privileges::needs(&verb.acts.concat()) {
            ensure!(
                help.contains(&capability.to_string()) && help.contains(why),
                "{capability} of {name}: {help}"
            );
        }
    }
    Ok(())
}
