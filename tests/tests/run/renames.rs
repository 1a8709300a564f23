//! Interfaces that get another name, or other packets, while `fixer run` looks.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::{
    maps::MapData,
    programs::{SchedClassifier, TcAttachType},
};
use fixer_common::{
    abi::{Hook, map},
    rule::Rule,
};
use fixer_tests::{
    command::{attached, hooks, on_bridge, output},
    kernel::load,
    tap::Tap,
};
use fixer_user::{
    bpf::{
        attach::{Batch, Wish},
        load::Object,
    },
    lab::{
        link,
        scene::{BRIDGE, Scene},
    },
    net::{links::list, netns::NetNs},
};
use nix::sys::signal::Signal;

use crate::{
    metrics::{get, has},
    scene, send_partial,
};

/// How soon an interface is taken or given back.
const SOON: Duration = Duration::from_millis(100);

/// How many steps there are in a round of measuring, and how many rounds there are at most.
const EACH: usize = 20;
const ROUNDS: usize = 4;

fn rename(scene: &Scene, from: &str, to: &str) -> Result<()> {
    output(&scene.host, "ip", &["link", "set", from, "down", "name", to])?;
    Ok(link::up(&scene.host, to)?)
}

/// A counter of an interface, as it is served.
fn fixed(interface: &str, count: u64) -> String {
    let at = format!("netns=\"host\",interface=\"{interface}\",hook=\"egress\"");
    format!("fixer_packets_total{{{at},verdict=\"fixed\"}} {count}")
}

#[test]
fn a_name_decides_what_is_attached_and_keeps_its_counters() -> Result<()> {
    let scene = scene()?;
    let mut fixer = attached(&scene.host, &["-i", "tap*", "-i", BRIDGE])?;
    let other = NetNs::scratch("other")?;
    link::veth(&scene.host, "vif0", &other, "peer")?;
    rename(&scene, "vif0", "tap0")?;
    fixer.stderr.wait("attached to egress of tap0")?;
    send_partial(&scene, "tap0", 2)?;

    rename(&scene, "tap0", "tap1")?;
    fixer.stderr.wait("tap0 is called tap1 now")?;
    let body = get(&scene.host, "/metrics")?.body;
    has(&body, &fixed("tap0", 2))?;
    ensure!(body.contains("fixer_interface_attached{netns=\"host\",interface=\"tap1\""), "{body}");
    send_partial(&scene, "tap1", 3)?;
    let event = fixer.stdout.wait(" tap1 egress IP ")?;
    ensure!(event.contains("fixed"), "{event}");

    rename(&scene, "tap1", "vif1")?;
    fixer.stderr.wait("detached from vif1: its name is none of those that were selected")?;
    ensure!(hooks(&scene.host, "vif1")?.is_empty());
    let body = get(&scene.host, "/metrics")?.body;
    ensure!(!body.contains("vif1") && !body.contains("interface=\"tap1\",hook=\"egress\",mode"));

    rename(&scene, "vif1", "tap0")?;
    fixer.stderr.wait("attached to egress of tap0")?;
    send_partial(&scene, "tap0", 4)?;
    let body = get(&scene.host, "/metrics")?.body;
    has(&body, &fixed("tap0", 6))?;
    has(&body, &fixed("tap1", 3))?;
    let ended = fixer.stop(Signal::SIGTERM)?.ok()?;
    let summary = ["tap0 egress: 6 fixed", "tap1 egress: 3 fixed"];
    ensure!(ended.stdout[ended.stdout.len() - 2..] == summary, "{ended:?}");
    Ok(())
}

#[test]
fn what_comes_and_goes_is_noticed_at_once() -> Result<()> {
    let scene = scene()?;
    let mut fixer = attached(&scene.host, &["-i", BRIDGE, "-i", "tap*", "--metrics", "off"])?;
    let other = NetNs::scratch("other")?;
    let (mut took, mut medians) = (Vec::new(), Vec::new());
    // A machine may be busy at one moment or another, and the commands take their time too.
    while medians.last().is_none_or(|median| *median >= SOON) && medians.len() < ROUNDS {
        let mut step = |what: &dyn Fn() -> Result<()>, words: &str| -> Result<()> {
            let began = Instant::now();
            what()?;
            fixer.stderr.wait(words)?;
            took.push(began.elapsed());
            Ok(())
        };
        step(
            &|| Ok(link::veth(&scene.host, "tap0", &other, "peer")?),
            "attached to egress of tap0",
        )?;
        step(&|| rename(&scene, "tap0", "vif0"), "detached from vif0")?;
        step(&|| rename(&scene, "vif0", "tap0"), "attached to egress of tap0")?;
        step(&|| Ok(link::delete(&scene.host, "tap0")?), "tap0 is gone")?;
        if took.len() >= EACH {
            took.sort_unstable();
            medians.push(took[took.len() / 2]);
            took.clear();
        }
    }
    ensure!(medians.last().is_some_and(|median| *median < SOON), "{medians:?}");
    Ok(())
}

/// The map of the programs at an interface has a row for each hook that counted something.
fn rows(scene: &Scene) -> Result<usize> {
    let query = || SchedClassifier::query_tcx(BRIDGE, TcAttachType::Egress);
    let (_, programs) = scene.host.run(query)??;
    let maps = programs.first().context("no program")?.map_ids()?.context("no maps")?;
    for id in maps {
        let data = MapData::from_id(id)?;
        if data.info()?.name_as_str() == Some(map::COUNTERS) {
            let map = aya::maps::Map::PerCpuHashMap(data);
            let map = aya::maps::PerCpuHashMap::<_, [u32; 2], [u64; 16]>::try_from(&map)?;
            return Ok(map.keys().count());
        }
    }
    anyhow::bail!("no map of counters")
}

#[test]
fn rows_of_interfaces_that_are_gone_leave_the_map() -> Result<()> {
    let scene = scene()?;
    let arguments = ["-i", BRIDGE, "-i", "tap*", "--events", "none", "--metrics", "off"];
    let mut fixer = attached(&scene.host, &arguments)?;
    send_partial(&scene, BRIDGE, 1)?;
    let other = NetNs::scratch("other")?;
    for _ in 0..3 {
        link::veth(&scene.host, "tap0", &other, "peer")?;
        fixer.stderr.wait("attached to egress of tap0")?;
        send_partial(&scene, "tap0", 1)?;
        ensure!(rows(&scene)? == 2, "{}", rows(&scene)?);
        link::delete(&scene.host, "tap0")?;
        fixer.stderr.wait("tap0 is gone")?;
    }
    // What is said is said after it was done.
    ensure!(rows(&scene)? == 1, "{}", rows(&scene)?);
    let ended = fixer.stop(Signal::SIGTERM)?.ok()?;
    ensure!(ended.stdout == ["br0 egress: 1 fixed", "tap0 egress: 3 fixed"], "{ended:?}");
    Ok(())
}

/// Attaching is by name, and the name may have gone to another interface since it was read.
#[test]
fn a_name_that_went_to_another_is_not_mistaken() -> Result<()> {
    let scene = scene()?;
    let mut object = load(&[Rule::DHCP])?;
    link::bridge(&scene.host, "tap0")?;
    let mut links = list(&scene.host)?;
    let position = links.iter().position(|link| link.name == "tap0").context("no tap0")?;
    let meant = links.swap_remove(position);
    let attach = |object: &mut Object| {
        let act = || {
            let batch = Batch::begin([(meant.ifindex, &*meant.name)].into_iter())?;
            object.attach_link(&batch, &meant, Hook::Egress, Wish::Auto)
        };
        Ok::<_, anyhow::Error>(scene.host.run(act)??)
    };
    rename(&scene, "tap0", "tap1")?;
    ensure!(attach(&mut object)?.is_none(), "nobody has the name");
    link::bridge(&scene.host, "tap0")?;
    ensure!(attach(&mut object)?.is_none(), "another has the name");
    ensure!(hooks(&scene.host, "tap0")?.is_empty());
    link::delete(&scene.host, "tap0")?;
    rename(&scene, "tap1", "tap0")?;
    ensure!(attach(&mut object)?.is_some(), "it has its name again");
    ensure!(hooks(&scene.host, "tap0")?.len() == 1);
    Ok(())
}

/// Of all the names that it had while nobody read the news, the last is what counts.
#[test]
fn old_news_is_overtaken_by_what_came_after_it() -> Result<()> {
    let scene = scene()?;
    for mode in ["tcx", "clsact"] {
        let arguments = ["-i", "tap*", "--attach-mode", mode, "--events", "none"];
        let mut fixer = on_bridge(&scene.host, &arguments)?;
        fixer.signal(Signal::SIGSTOP)?;
        link::bridge(&scene.host, "tap0")?;
        rename(&scene, "tap0", "tap1")?;
        link::bridge(&scene.host, "tap0")?;
        fixer.signal(Signal::SIGCONT)?;
        for _ in 0..2 {
            fixer.stderr.wait("attached to egress of tap")?;
        }
        for (name, count) in [("tap0", 1), ("tap1", 2)] {
            send_partial(&scene, name, count)?;
        }
        let ended = fixer.stop(Signal::SIGTERM)?.ok()?;
        let counted = ["tap0 egress: 1 fixed", "tap1 egress: 2 fixed"];
        ensure!(ended.stdout == counted, "{mode}: {ended:?}");
        let told = |line: &&String| line.contains("cannot");
        ensure!(ended.stderr.iter().find(told).is_none(), "{mode}: {ended:?}");
        for name in ["tap0", "tap1"] {
            let left = hooks(&scene.host, name)?;
            ensure!(left.is_empty(), "{mode}: {left:?}");
            link::delete(&scene.host, name)?;
        }
    }
    Ok(())
}

/// A bond takes over the sort of its first port; a tap can be told.
#[test]
fn what_loses_its_ethernet_header_is_given_back() -> Result<()> {
    let scene = scene()?;
    let tap = Tap::open(&scene.host, "tap0", false)?;
    let mut fixer = on_bridge(&scene.host, &["-i", "tap*", "--events", "none"])?;
    fixer.stderr.wait("attached to egress of tap0")?;
    output(&scene.host, "ip", &["link", "set", "tap0", "down"])?;
    tap.set_link_type(libc::ARPHRD_PPP)?;
    fixer.stderr.wait("detached from tap0: its packets have no Ethernet header any more")?;
    ensure!(hooks(&scene.host, "tap0")?.is_empty());
    tap.set_link_type(libc::ARPHRD_ETHER)?;
    fixer.stderr.wait("attached to egress of tap0")?;
    fixer.stop(Signal::SIGTERM)?.ok()?;
    Ok(())
}
