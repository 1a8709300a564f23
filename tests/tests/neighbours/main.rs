//! Others at the same bridge: whatever they have there works on as if fixer were not there, is untouched
//! when it has gone, and a reply that both mend is right.

mod bridged;
mod chain;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fixer_tests::{
    command::{self, Running, fixer, hooks, output, turn_off},
    mounts::private_mounts,
};
use fixer_user::lab::{
    packet::{PacketSocket, wait_until_open},
    reply::{self, PARTIAL},
    scene::{BRIDGE, Dnsmasq, GUEST, PORT, Scene},
    strict,
};
use nix::sys::signal::Signal;

const PATIENCE: Duration = Duration::from_secs(10);

/// How many replies are sent raw.
const REPLIES: u64 = 5;

/// Every way to be attached.
const WAYS: [(&str, &str); 4] =
    [("run", "tcx"), ("run", "clsact"), ("attach", "tcx"), ("attach", "clsact")];

/// Acts while fixer is attached to the bridge in one of these ways.
fn attached(scene: &Scene, way: (&str, &str), act: impl FnOnce() -> Result<()>) -> Result<()> {
    attached_at(scene, (BRIDGE, "egress"), way, act)
}

/// The same at a hook of some interface.
fn attached_at(
    scene: &Scene,
    (interface, hook): (&str, &str),
    (verb, mode): (&str, &str),
    act: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let how = ["-i", interface, "--hook", hook, "--attach-mode", mode, "--skip-selftest"];
    if verb == "run" {
        let more = ["--metrics", "off", "--events", "none"];
        let running = command::attached(&scene.host, &[&how[..], &more].concat())?;
        act()?;
        running.stop(Signal::SIGTERM)?.ok()?;
    } else {
        let attach = [&["attach"], &how[..]].concat();
        command(scene, &attach)?;
        // The second one is an upgrade.
        command(scene, &attach)?;
        act()?;
        command(scene, &["detach", "-i", interface])?;
    }
    Ok(())
}

/// Runs `fixer` to its good end.
fn command(scene: &Scene, arguments: &[&str]) -> Result<()> {
    Running::start(&scene.host, fixer(arguments)?)?.end()?.ok().map(drop)
}

/// Somebody at the bridge, by the commands that bring them there.
struct Neighbour {
    name: &'static str,
    commands: &'static [&'static str],
}

impl Neighbour {
    fn comes(&self, scene: &Scene) -> Result<()> {
        let Self { name, commands } = self;
        for command in *commands {
            let words: Vec<_> = command.split_whitespace().collect();
            output(&scene.host, words[0], &words[1..]).with_context(|| name.to_string())?;
        }
        Ok(())
    }
}

/// They count the replies, and pass them on.
const FILTERS: Neighbour = Neighbour {
    name: "filters of tc",
    commands: &[
        "tc qdisc add dev br0 clsact",
        "tc filter add dev br0 egress pref 1 protocol ip u32 match ip dport 68 0xffff \
         action mirred egress mirror dev lo continue",
        "tc filter add dev br0 egress pref 2 protocol ip u32 match ip dport 68 0xffff \
         action mirred egress mirror dev lo continue",
        "tc filter add dev br0 egress pref 60000 protocol ip u32 match ip dport 68 0xffff \
         action mirred egress mirror dev lo",
    ],
};

/// libvirt's arrangement, but for the action `csum`, which not every kernel has: that one is in the suite
/// `csum_filter`.
const SHAPER: Neighbour = Neighbour {
    name: "a root htb with a filter",
    commands: &[
        "tc qdisc add dev br0 root handle 1: htb default 2",
        "tc class add dev br0 parent 1: classid 1:2 htb rate 1gbit",
        "tc filter add dev br0 parent 1: prio 2 protocol ip u32 match ip dport 68 0xffff \
         action mirred egress mirror dev lo",
    ],
};

/// What libvirt and others did before, for datagrams that go through netfilter.
const RULE: Neighbour = Neighbour {
    name: "iptables",
    commands: &["iptables-nft -t mangle -A POSTROUTING -o br0 -p udp --dport 68 \
                 -j CHECKSUM --checksum-fill"],
};

/// The same for all that goes through the bridge, from port to port.
const BRIDGED: Neighbour = Neighbour {
    name: "iptables for what is bridged",
    commands: &[
        "sysctl -q -w net.bridge.bridge-nf-call-iptables=1",
        "iptables-nft -t mangle -A POSTROUTING -p udp --dport 68 -j CHECKSUM --checksum-fill",
    ],
};

#[test]
fn filters_at_several_priorities_count_on() -> Result<()> {
    beside(&[FILTERS])
}

#[test]
fn a_shaper_with_a_filter_goes_on() -> Result<()> {
    beside(&[SHAPER])
}

#[test]
fn a_rule_of_iptables_may_mend_the_same_replies() -> Result<()> {
    beside(&[RULE])
}

#[test]
fn all_of_them_at_once_are_no_trouble() -> Result<()> {
    beside(&[FILTERS, SHAPER, RULE, BRIDGED])
}

/// In each way, and with checksum offload at the port and without: replies are right, those of others
/// see each of them, and nothing of theirs changes.
fn beside(neighbours: &[Neighbour]) -> Result<()> {
    private_mounts(true)?;
    for has_offload in [true, false] {
        let scene = Scene::new()?;
        if !has_offload {
            turn_off(&scene.host, PORT, "tx")?;
        }
        neighbours.iter().try_for_each(|neighbour| neighbour.comes(&scene))?;
        let dnsmasq = Dnsmasq::start(&scene)?;
        let before = state(&scene)?;
        for way in WAYS {
            attached(&scene, way, || {
                untouched(&before, &state(&scene)?)?;
                mended(&scene)?;
                untouched(&before, &state(&scene)?)
            })
            .with_context(|| format!("{way:?}, offload at the port: {has_offload}"))?;
            let after = state(&scene)?;
            ensure!(after == before, "{way:?}: {before:#?}, then {after:#?}");
        }
        drop(dnsmasq);
    }
    Ok(())
}

/// All that others have there.
fn state(scene: &Scene) -> Result<Vec<String>> {
    let mut state = hooks(&scene.host, BRIDGE)?;
    for command in [
        "tc qdisc show dev br0",
        "tc class show dev br0",
        "tc filter show dev br0",
        "iptables-nft -t mangle -S",
    ] {
        let words: Vec<_> = command.split(' ').collect();
        state.extend(output(&scene.host, words[0], &words[1..])?.lines().map(str::to_owned));
    }
    Ok(state)
}

/// All that was there is, in the same order, and what came is ours.
fn untouched(before: &[String], now: &[String]) -> Result<()> {
    let mut rest = before.iter().peekable();
    for line in now {
        if rest.next_if(|theirs| *theirs == line).is_none() {
            let is_ours = ["fixer", "clsact"].iter().any(|word| line.contains(word));
            ensure!(is_ours, "{line} is new among {now:#?}, not {before:#?}");
        }
    }
    ensure!(rest.peek().is_none(), "{rest:?} are gone from {now:#?}");
    Ok(())
}

/// A real server's replies get the strict client a lease, raw ones arrive complete, and all the filters
/// of others see each of them. So do rules of iptables, but for raw ones, which do not come that way.
fn mended(scene: &Scene) -> Result<()> {
    let (before, rules) = (counted(scene)?, ruled(scene)?);
    let asked = strict::ask(&scene.guest, GUEST, [2, 0, 0, 0, 0, 0x91], PATIENCE)?;
    ensure!(asked.lease.is_some() && asked.bad.is_empty(), "no lease: {asked:?}");
    let sender = PacketSocket::open(&scene.host, BRIDGE)?;
    let receiver = PacketSocket::open(&scene.guest, GUEST)?;
    wait_until_open(&sender, &receiver)?;
    for number in 0..REPLIES {
        arrives_mended(&sender, &receiver, number as u8)?;
    }
    let wanted = asked.replies as u64 + REPLIES;
    for (before, now) in before.iter().zip(counted(scene)?) {
        ensure!(now == before + wanted, "a filter saw {} of {wanted} replies", now - before);
    }
    saw_each(&rules, &ruled(scene)?, asked.replies as u64)
}

/// Every rule has seen so many replies more.
fn saw_each(before: &[u64], now: &[u64], wanted: u64) -> Result<()> {
    ensure!(before.len() == now.len());
    for (before, now) in before.iter().zip(now) {
        ensure!(*now == before + wanted, "a rule saw {} of {wanted} replies", now - before);
    }
    Ok(())
}

/// Packets that rules of iptables with the target CHECKSUM have seen, the first number of their lines.
fn ruled(scene: &Scene) -> Result<Vec<u64>> {
    let list = ["-t", "mangle", "-L", "POSTROUTING", "-v", "-n", "-x"];
    let shown = output(&scene.host, "iptables-nft", &list)?;
    let rules = shown.lines().filter(|line| line.contains(" CHECKSUM "));
    rules.map(|line| Ok(line.split_whitespace().next().unwrap_or_default().parse()?)).collect()
}

/// A partial reply arrives right, and nobody is to finish it again.
fn arrives_mended(sender: &PacketSocket, receiver: &PacketSocket, number: u8) -> Result<()> {
    let right = reply::frame(&[number; 301]);
    let mut frame = right.clone();
    reply::make_partial(&mut frame);
    sender.send(&frame, Some(PARTIAL))?;
    let got = receiver.receive(PATIENCE, |frame| frame.bytes.len() == right.len())?;
    let got = got.context("a reply did not arrive")?;
    ensure!(!got.partial && got.bytes == right, "reply {number} was not mended");
    Ok(())
}

/// Packets that the actions of others have seen: `Sent 684 bytes 2 pkt (dropped 0, …`.
fn counted(scene: &Scene) -> Result<Vec<u64>> {
    let mut counted = Vec::new();
    for place in [&["egress"][..], &[]] {
        let show = [&["-s", "filter", "show", "dev", BRIDGE], place].concat();
        let shown = output(&scene.host, "tc", &show)?;
        let sent = shown.lines().filter_map(|line| line.split_once("Sent ")?.1.split_once(" pkt"));
        let numbers = sent.filter_map(|(counts, _)| counts.split_whitespace().last()?.parse().ok());
        counted.extend(numbers.collect::<Vec<u64>>());
    }
    Ok(counted)
}
