//! `fixer doctor` on hosts on which one thing is wrong, on one on which everything is, and on healthy
//! ones.

mod bridge;
mod checksum;
mod firewall;
mod firewalls;
mod host;
mod matches;
mod message;
mod nobody;
mod programs;
mod reverse;
mod role;
mod server;
mod switch;
mod traffic;

use std::{io, process::Command};

use anyhow::{Context as _, Result, ensure};
use fixer_tests::{
    command::{Ended, Running, fixer, output},
    kernel::require_root,
};
use fixer_user::{
    lab::scene::{BRIDGE, Dnsmasq, Scene},
    net::netns::NetNs,
};
use serde_json::Value;

/// What the doctor exits with when it found a problem.
const PROBLEM: i32 = 3;

/// What the doctor said.
#[derive(Debug)]
struct Diagnosis {
    status: Option<i32>,
    report: Value,
}

impl Diagnosis {
    /// `fixer doctor --json` with these arguments, in a namespace.
    fn of(netns: &NetNs, arguments: &[&str]) -> Result<Self> {
        Self::prepared(netns, arguments, || Ok(()))
    }

    /// The same after `prepare`, which makes system calls only.
    fn prepared(
        netns: &NetNs,
        arguments: &[&str],
        prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<Self> {
        let command = fixer(&[&["doctor", "--json"], arguments].concat())?;
        Self::read(&Running::start_as(netns, command, prepare)?.end()?)
    }

    fn read(ended: &Ended) -> Result<Self> {
        let report = serde_json::from_str(&ended.stdout.concat());
        let report = report.with_context(|| format!("this is no report: {ended:?}"))?;
        let diagnosis = Self { status: ended.status.code(), report };
        diagnosis.can_be_done()?;
        Ok(diagnosis)
    }

    /// A shell understands everything that is to be done.
    fn can_be_done(&self) -> Result<()> {
        for finding in self.report["findings"].as_array().context("there are no findings")? {
            for line in finding["do"].as_array().context("nothing is to be done")? {
                let line = line.as_str().context("this is no line")?;
                let read = Command::new("bash").args(["-n", "-c", line]).output()?;
                ensure!(read.status.success(), "{line}: {read:?}");
            }
        }
        Ok(())
    }

    /// The finding of a check, as text. Fails if there is none, or if a problem is not told by the
    /// exit status.
    fn names(&self, check: &str, likelihood: &str) -> Result<String> {
        let findings = self.report["findings"].as_array().context("there are no findings")?;
        let found = findings
            .iter()
            .find(|finding| finding["check"] == check && finding["likelihood"] == likelihood);
        let found = found.with_context(|| format!("no {likelihood} {check}: {self:#?}"))?;
        ensure!(likelihood == "note" || self.status == Some(PROBLEM), "{self:#?}");
        for part in ["headline", "means"] {
            ensure!(found[part].as_str().is_some_and(|text| !text.is_empty()), "{found:#?}");
        }
        if ["firewall", "bridge-nf", "rp-filter"].contains(&check) {
            firewall::are_commands(&found["do"])?;
        }
        Ok(found.to_string())
    }

    /// The first command of a check's finding.
    fn remedy(&self, check: &str) -> Result<String> {
        let findings = self.report["findings"].as_array().context("there are no findings")?;
        let found = findings.iter().find(|finding| finding["check"] == check);
        let command = found.and_then(|finding| finding["do"][0].as_str());
        command.map(str::to_owned).with_context(|| format!("no command of {check}: {self:#?}"))
    }

    /// Nothing is wrong, and nothing was hidden.
    fn is_healthy(&self) -> Result<()> {
        let is_empty = |list: &str| self.report[list].as_array().is_some_and(Vec::is_empty);
        ensure!(self.status == Some(0) && self.report["healthy"] == true, "{self:#?}");
        ensure!(is_empty("findings") && is_empty("unseen"), "{self:#?}");
        Ok(())
    }

    /// A check found nothing.
    fn passes(&self, check: &str) -> Result<()> {
        let findings = self.report["findings"].as_array().context("there are no findings")?;
        ensure!(findings.iter().all(|finding| finding["check"] != check), "{self:#?}");
        Ok(())
    }
}

/// A host with a bridge, a guest and a server, whose replies iptables finishes: nothing is wrong.
struct Host {
    scene: Scene,
    _dnsmasq: Dnsmasq,
}

impl Host {
    /// A healthy one.
    fn new() -> Result<Self> {
        let host = Self::partial()?;
        host.finish_sums()?;
        Ok(host)
    }

    /// One whose replies stay partial.
    fn partial() -> Result<Self> {
        let scene = scene()?;
        let _dnsmasq = Dnsmasq::start(&scene)?;
        Ok(Self { scene, _dnsmasq })
    }

    fn finish_sums(&self) -> Result<()> {
        finish_sums(&self.scene)
    }

    /// Runs a program on it; arguments with spaces between them.
    fn host(&self, program: &str, arguments: &str) -> Result<String> {
        run(&self.scene.host, program, arguments)
    }

    /// What the doctor says of its bridge.
    fn diagnosis(&self) -> Result<Diagnosis> {
        Diagnosis::of(&self.scene.host, &["-i", BRIDGE])
    }
}

/// Has iptables finish the sums of replies.
fn finish_sums(scene: &Scene) -> Result<()> {
    let rule = "-t mangle -A POSTROUTING -p udp --dport 68 -j CHECKSUM --checksum-fill";
    run(&scene.host, "iptables", rule).map(drop)
}

fn scene() -> Result<Scene> {
    require_root()?;
    Scene::new().context("the scene cannot be made")
}

fn run(netns: &NetNs, program: &str, arguments: &str) -> Result<String> {
    output(netns, program, &arguments.split(' ').collect::<Vec<_>>())
}

/// Fails unless all of these words are in the text.
fn contains(text: &str, words: &[&str]) -> Result<()> {
    for word in words {
        ensure!(text.contains(word), "no '{word}' in {text}");
    }
    Ok(())
}
