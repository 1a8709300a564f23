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
    say::print,
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
    print(format_args!(
        "A host with a bridge, {BRIDGE}, and a real dnsmasq on it. A guest behind a port of the\n\
         bridge, with a strict DHCP client (smoltcp) that verifies every checksum.\n\n\
         1. Without fixer: the client asks for {} seconds.\n",
        args.patience
    ))?;
    let asked = strict::ask(&scene.guest, GUEST, MAC, Duration::from_secs(args.patience))?;
    let offers = dnsmasq.offers();
    print(described(&asked, offers))?;
    if let Some(lease) = asked.lease {
        bail!(
            "the client got {} without fixer: on this kernel the fault does not show itself",
            lease.address
        );
    }
    if offers == 0 || asked.bad.is_empty() {
        bail!("the client got no lease, but not because of bad checksums: nothing is shown");
    }

    print(format_args!("\n2. With fixer: fixer run -i {BRIDGE}\n"))?;
    let fixer = Fixer::start(&scene.host)?;
    let began = Instant::now();
    let asked = strict::ask(&scene.guest, GUEST, MAC, PATIENCE)?;
    let took = began.elapsed();
    fixer.stop()?;
    let Some(lease) = asked.lease else {
        print(described(&asked, dnsmasq.offers()))?;
        bail!("no lease with fixer either: please report this with the output of `fixer selftest`");
    };
    print(format_args!(
        "   The client has a lease: {} from {}, after {:.1} seconds.\n\n\
         Nothing of this is left: the namespaces had no names, and everything was in them.\n",
        lease.address,
        lease.server,
        took.as_secs_f32()
    ))?;
    Ok(Outcome::Done)
}

fn described(asked: &Asked, offers: usize) -> String {
    let mut text =
        format!("   dnsmasq sent {offers} OFFERs; {} reached the guest.\n", asked.replies);
    text.extend(asked.bad.iter().map(|field| {
        let (stored, expected) = (field.stored, field.expected);
        format!("   dropped: bad udp cksum {stored:#06x} -> {expected:#06x}!\n")
    }));
    if asked.lease.is_none() {
        text += "   The client has no lease.\n";
    }
    text
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
            thread::spawn(move || indent_all(stdout));
        }
        let said = process.child().stderr.take().context("`fixer run` has no standard error")?;
        let said = lines(said);
        let deadline = Instant::now() + PATIENCE;
        while let Ok(line) = said.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            indent(&line);
            if line.contains("attached to") {
                thread::spawn(move || said.iter().for_each(|line| indent(&line)));
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

fn indent_all(pipe: impl io::Read) {
    BufReader::new(pipe).lines().map_while(Result::ok).for_each(|line| indent(&line));
}

/// Shows a line of another program. Whether that works is seen with the next line of this one.
fn indent(line: &str) {
    let _ = print(format_args!("   {line}\n"));
}
