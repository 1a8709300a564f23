//! What changes under `fixer attach`.

use std::os::fd::OwnedFd;

use anyhow::{Result, ensure};
use fastrand::Rng;
use fixer_user::{lab::link, net::netns::NetNs};
use nix::net::if_::if_nametoindex;

use super::{Fault, Soak, killed, line::Line, well};
use crate::{
    bpf::{self, Place},
    command::{Running, program},
};

const MODES: [&str; 2] = ["tcx", "clsact"];

/// What may become of a reply: of one in 65,536 the half sum is the whole one.
const EXPECTED: [&str; 2] = ["fixed", "valid"];

/// Upgrades without end, some of them killed, among other programs that come and go. The bridge is
/// attached all the time.
pub(super) fn upgrades(soak: &Soak, mut rng: Rng, line: &Line, mode: &str) -> Result<()> {
    let attach = soak.attach(line, mode);
    if soak.plan.fault != Some(Fault::NeverAttached) {
        well(line, &attach)?;
    }
    line.mean(true);
    let mut others = Vec::new();
    while !soak.is_over() {
        match rng.u8(..8) {
            _ if soak.plan.fault == Some(Fault::NeverAttached) => {}
            0..3 => {
                let ended = well(line, &attach)?;
                ensure!(ended.stdout[0].starts_with("replaced at"), "no upgrade: {ended:?}");
                soak.did("upgrades");
            }
            3..6 => {
                if killed(line, &attach, &mut rng)?.is_continue() {
                    soak.did("upgrades killed");
                }
            }
            6 if others.len() < 4 => {
                others.push(other_program(line, mode, &mut rng)?);
                soak.did("other programs of tcx");
            }
            6 => others.clear(),
            _ => {
                other_filter(line, &mut rng)?;
                soak.did("other filters of tc");
            }
        }
    }
    line.mean(false);
    counted_well(soak, line)?;
    if soak.plan.fault != Some(Fault::NotDetached) {
        well(line, &detach(line))?;
    }
    Ok(())
}

/// What fixer itself has counted: partial replies were fixed, and nothing else came of any.
fn counted_well(soak: &Soak, line: &Line) -> Result<()> {
    let told = well(line, &["status", "--json", "-i", &line.bridge].map(str::to_owned))?;
    let entries: Vec<serde_json::Value> = serde_json::from_str(&told.stdout.join(""))?;
    for entry in entries {
        let packets = entry["packets"].as_object().into_iter().flatten();
        for (verdict, count) in packets.filter(|(verdict, _)| !EXPECTED.contains(&&***verdict)) {
            if count != 0 {
                soak.fault(format!("{} counted {count} packets as {verdict}", line.bridge));
            }
        }
    }
    Ok(())
}

fn detach(line: &Line) -> Vec<String> {
    ["detach", "-i", &line.bridge].map(str::to_owned).to_vec()
}

/// A program before ours that passes packets on, or one behind it that ends the chain. Filters come
/// behind the whole chain, and would not see what ends there.
fn other_program(line: &Line, mode: &str, rng: &mut Rng) -> Result<OwnedFd> {
    let (returned, place) =
        if mode == "clsact" || rng.bool() { (-1, Place::First) } else { (0, Place::Last) };
    let program = bpf::load_classifier(&bpf::returning(returned))?;
    line.host.run(|| {
        let ifindex = if_nametoindex(line.bridge.as_str())?;
        bpf::attach_to_egress(&program, ifindex, place)
    })?
}

/// A filter before or behind ours, for other packets than replies: the kernel itself may lose one that meets
/// a filter while that comes or goes. It comes and goes with its qdisc, unless that is in use; meanwhile
/// the kernel throws away what is sent, whoever is attached, so nothing is.
fn other_filter(line: &Line, rng: &mut Rng) -> Result<()> {
    let tc = |command: &str| {
        let arguments: Vec<_> = command.split(' ').collect();
        Running::start(&line.host, program("tc", &arguments))?.end()
    };
    let bridge = &line.bridge;
    // Where there is one already it is refused.
    let made = line.between_replies(|| tc(&format!("qdisc add dev {bridge} clsact")))?;
    let filter = format!("dev {bridge} egress pref {}", rng.u16(2..9000));
    tc(&format!(
        "filter add {filter} protocol ip u32 match ip dport 9 0xffff \
         action mirred egress mirror dev lo continue"
    ))?
    .ok()?;
    tc(&format!("filter del {filter}"))?.ok()?;
    if made.status.success() {
        line.between_replies(|| tc(&format!("qdisc del dev {bridge} clsact")))?.ok()?;
    }
    Ok(())
}

/// Attached to one bridge, detached, attached to the other; each of it killed now and then.
pub(super) fn moves(soak: &Soak, mut rng: Rng, lines: [&Line; 2]) -> Result<()> {
    let all = ["detach".to_owned(), "--all".to_owned()];
    for line in lines.into_iter().cycle() {
        if soak.is_over() {
            break;
        }
        let attach = soak.attach(line, MODES[rng.usize(..2)]);
        if rng.bool() && killed(line, &attach, &mut rng)?.is_continue() {
            soak.did("attaches killed");
        }
        let ended = well(line, &attach)?;
        ensure!(ended.stdout[0].contains(" egress of "), "{ended:?}");
        soak.did("attaches");
        line.mean(true);
        well(line, &["status".to_owned()])?;
        line.mean(false);
        if rng.bool() && killed(line, &detach(line), &mut rng)?.is_continue() {
            soak.did("detaches killed");
        }
        well(line, &all)?;
        soak.did("detaches");
    }
    well(lines[0], &all).map(drop)
}

/// Namespaces with a bridge come and go, and so does fixer in them.
pub(super) fn namespaces(soak: &Soak, mut rng: Rng) -> Result<()> {
    while !soak.is_over() {
        let host = NetNs::scratch("passing")?;
        link::up(&host, "lo")?;
        let mut line = Line::new(&host, 0)?;
        well(&line, &soak.attach(&line, MODES[rng.usize(..2)]))?;
        line.mean(true);
        line.send(&mut line.open()?, &soak.tally)?;
        // What is attached stays with the interface, whatever that is called.
        line.rename("renamed")?;
        line.send(&mut line.open()?, &soak.tally)?;
        if rng.bool() {
            link::delete(&host, "renamed")?;
        }
        well(&line, &["detach".to_owned(), "--all".to_owned()])?;
        soak.did("namespaces");
    }
    Ok(())
}
