//! `fixer demo`: the fault and the cure, in scratch namespaces.

use std::{
    io::{self, BufRead as _, BufReader},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::Outcome;
use crate::{
    cli,
    lab::{
        sandbox::Sandboxed,
        scene::{BRIDGE, Dnsmasq, GUEST, Scene, lines},
        strict::{self, Outcome as Asked},
    },
    net::netns::NetNs,
    privileges,
    signals::end_with_the_reader,
};

/// How long fixer may take to attach, and the client to get a lease once it has.
const PATIENCE: Duration = Duration::from_secs(15);

/// The client's hardware address.
const MAC: [u8; 6] = [0x02, 0, 0, 0x0d, 0x4c, 0x01];

/// Shows both halves of the story.
pub fn run(args: &cli::Demo) -> Result<Outcome> {
    end_with_the_reader()?;
    privileges::require(privileges::TO_PLAY)?;
    let scene = Scene::new().context(
        "cannot make the scratch namespaces, the bridge and its port (this needs root, and the \
         kernel's veth and bridge)",
    )?;
    let mut dnsmasq = Dnsmasq::start(&scene)?;
    println!(
        "A host with a bridge, {BRIDGE}, and a real dnsmasq on it. A guest behind a port of the"
    );
    println!("bridge, with a strict DHCP client (smoltcp) that verifies every checksum.");

    println!("\n1. Without fixer: the client asks for {} seconds.", args.patience);
    let asked = strict::ask(&scene.guest, GUEST, MAC, Duration::from_secs(args.patience))?;
    let offers = dnsmasq.offers();
    describe(&asked, offers);
    if let Some(lease) = asked.lease {
        bail!(
            "the client got {} without fixer: on this kernel the fault does not show itself",
            lease.address
        );
    }
    if offers == 0 || asked.bad.is_empty() {
        bail!("the client got no lease, but not because of bad checksums: nothing is shown");
    }

    println!("\n2. With fixer: fixer run -i {BRIDGE}");
    let fixer = Fixer::start(&scene.host)?;
    let began = Instant::now();
    let asked = strict::ask(&scene.guest, GUEST, MAC, PATIENCE)?;
    let took = began.elapsed();
    fixer.stop()?;
    let Some(lease) = asked.lease else {
        describe(&asked, dnsmasq.offers());
        bail!("no lease with fixer either: please report this with the output of `fixer selftest`");
    };
    println!(
        "   The client has a lease: {} from {}, after {:.1} seconds.",
        lease.address,
        lease.server,
        took.as_secs_f32()
    );
    println!("\nNothing of this is left: the namespaces had no names, and everything was in them.");
    Ok(Outcome::Done)
}

fn describe(asked: &Asked, offers: usize) {
    println!("   dnsmasq sent {offers} OFFERs; {} reached the guest.", asked.replies);
    for field in &asked.bad {
        println!("   dropped: bad udp cksum {:#06x} -> {:#06x}!", field.stored, field.expected);
    }
    if asked.lease.is_none() {
        println!("   The client has no lease.");
    }
}

/// A `fixer run` on the bridge, as a user would start it.
struct Fixer(Sandboxed);

impl Fixer {
    /// Starts it, shows what it says, and waits until it is attached.
    fn start(host: &NetNs) -> Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command
            .args(["run", "-i", BRIDGE, "--metrics", "off"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = Sandboxed::spawn(host, command).context("cannot start `fixer run`")?;
        if let Some(stdout) = process.child().stdout.take() {
            thread::spawn(move || indent(stdout));
        }
        let said = process.child().stderr.take().context("`fixer run` has no standard error")?;
        let said = lines(said);
        let deadline = Instant::now() + PATIENCE;
        while let Ok(line) = said.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            println!("   {line}");
            if line.contains("attached to") {
                thread::spawn(move || said.iter().for_each(|line| println!("   {line}")));
                return Ok(Self(process));
            }
        }
        bail!("`fixer run` did not attach");
    }

    /// Ends it as Ctrl-C does, and waits for its summary.
    fn stop(mut self) -> Result<()> {
        let child = self.0.child();
        kill(Pid::from_raw(child.id() as i32), Signal::SIGINT)?;
        let status = child.wait()?;
        if !status.success() {
            bail!("`fixer run` ended with {status}");
        }
        Ok(())
    }
}

fn indent(pipe: impl io::Read) {
    for line in BufReader::new(pipe).lines().map_while(Result::ok) {
        println!("   {line}");
    }
}
