//! The whole: everything at once, without privileges, and nothing changed.

use std::{
    ffi::CStr,
    io,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use fixer_tests::{
    command::{Process, Running, fixer, output, program, turn_off},
    faults,
};
use fixer_user::{
    lab::{
        link,
        packet::PacketSocket,
        scene::{BRIDGE, GUEST},
    },
    net::netns::NetNs,
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};

use super::{
    Diagnosis, Host, PROBLEM,
    bridge::shorten,
    checksum::dnsmasq,
    contains,
    message::{read_request, request},
    switch::{UNSERVED, beside},
};

/// The client.
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x77];

/// Everything of a namespace that a look could have changed.
fn state(host: &Host) -> Result<String> {
    let listings = [
        "ip addr",
        "ip route show table all",
        "ip neigh",
        "bridge link",
        "bridge vlan",
        "bridge fdb",
        "tc qdisc",
        "tc filter show dev br0 egress",
        "nft list ruleset",
        "ethtool -k br0",
        "ethtool -k guest0",
        "sysctl -a -r ^net.(ipv4|ipv6|bridge|core).",
        "cat /proc/thread-self/net/ip_tables_names",
        "cat /proc/thread-self/net/udp",
    ];
    let mut state = String::new();
    for listing in listings {
        let words: Vec<_> = listing.split(' ').collect();
        // The kernel finds out by itself, and in its own time, that the bridge is in use.
        let said = output(&host.scene.host, words[0], &words[1..])?.replace("UNKNOWN", "UP");
        state.push_str(&format!("== {listing}\n{said}\n"));
    }
    Ok(state)
}

#[test]
fn nothing_is_changed() -> Result<()> {
    let host = Host::partial()?;
    host.host("nft", "add table inet f")?;
    // The guest says what it has to say when it starts before the first look.
    host.host("sysctl", "-w net.ipv6.conf.all.disable_ipv6=1")?;
    let before = state(&host)?;
    for arguments in [&["-i", BRIDGE][..], &["-i", BRIDGE, "--listen", "1"], &["--auto"]] {
        Diagnosis::of(&host.scene.host, arguments)?;
    }
    let after = state(&host)?;
    ensure!(before == after, "{before}\nthen\n{after}");
    Ok(())
}

#[test]
fn it_takes_seconds() -> Result<()> {
    let host = Host::new()?;
    let begun = Instant::now();
    host.diagnosis()?.is_healthy()?;
    ensure!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    Ok(())
}

fn become_nobody() -> io::Result<()> {
    const NOBODY: u32 = 65534;
    setgroups(&[])?;
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    setresgid(gid, gid, gid)?;
    Ok(setresuid(uid, uid, uid)?)
}

#[test]
fn without_root_it_says_what_it_could_not_see_and_reports_the_rest() -> Result<()> {
    let host = Host::partial()?;
    host.host("ip", "link set br0 type bridge stp_state 1 forward_delay 1500")?;
    let arguments = ["-i", BRIDGE, "--listen", "1"];
    let diagnosis = Diagnosis::prepared(&host.scene.host, &arguments, become_nobody)?;
    diagnosis.names("stp", "likely")?;
    let finding = diagnosis.names("checksum", "possible")?;
    contains(&finding, &["somebody on br0", "could not be seen"])?;
    let unseen = diagnosis.report["unseen"].to_string();
    contains(&unseen, &["the firewall of", "whether fixer is attached", "other users' processes"])?;
    contains(&unseen, &["what passes on the bridges", "whether fixer works on this kernel"])?;
    contains(&unseen, &["run as root"])?;
    let fine = diagnosis.report["fine"].to_string();
    ensure!(!fine.contains("firewall") && fine.contains("MTUs"), "{diagnosis:#?}");
    Ok(())
}

/// Containers come and go while the doctor looks.
#[test]
fn an_interface_that_goes_away_meanwhile_hides_nothing() -> Result<()> {
    let host = Host::new()?;
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let churn = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                link::veth(&host.scene.host, "come0", &host.scene.host, "come1")?;
                link::delete(&host.scene.host, "come0")?;
            }
            Ok::<_, anyhow::Error>(())
        });
        let looks = (0..20).try_for_each(|_| {
            let diagnosis = host.diagnosis()?;
            let unseen = diagnosis.report["unseen"].as_array();
            ensure!(unseen.is_some_and(Vec::is_empty), "{diagnosis:#?}");
            Ok(())
        });
        is_over.store(true, Ordering::Relaxed);
        let churned = churn.join().map_err(|_| anyhow::anyhow!("the churn panicked"))?;
        looks.and(churned)
    })
}

#[test]
fn what_is_not_there_is_a_mistake() -> Result<()> {
    let host = Host::new()?;
    for (arguments, status, words) in [
        (&["-i", "br9"][..], 1, "no interface 'br9'"),
        (&["-i", "ns-*", "-i", "tap*"], 1, "no interface matches 'ns-*' or 'tap*'"),
        (&["--netns", "nowhere"], 1, "ip netns list"),
        (&["--listen", "0"], 2, "0 is not in"),
    ] {
        let command = fixer(&[&["doctor"], arguments].concat())?;
        let ended = Running::start(&host.scene.host, command)?.end()?;
        ensure!(ended.status.code() == Some(status), "{ended:?}");
        contains(&ended.stderr.join("\n"), &[words])?;
    }
    Ok(())
}

#[test]
fn a_host_without_bridges_is_told_so() -> Result<()> {
    let netns = NetNs::scratch("bare")?;
    let ended = Running::start(&netns, fixer(&["doctor"])?)?.end()?.ok()?;
    contains(&ended.stdout.join("\n"), &["There is no bridge here to look at", "--netns"])
}

/// No kernel of ours has vhost-net: a file of its name, held open by a program with the arguments of
/// a hypervisor, is all that procfs shows of one.
fn with_vhost() -> io::Result<()> {
    const NONE: Option<&CStr> = None;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(NONE, c"/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    Ok(mount(Some(c"tmpfs"), c"/dev", Some(c"tmpfs"), MsFlags::empty(), NONE)?)
}

#[test]
fn guests_with_vhost_net_are_named() -> Result<()> {
    let host = Host::new()?;
    let mut command = Command::new("bash");
    // It stops, and keeps what it has open.
    let script = "exec 9>/dev/vhost-net; echo ready; kill -STOP $$";
    command.args(["-c", script, "qemu", "-name", "guest=web,debug-threads=on"]);
    let mut guest = Running::start_as(&host.scene.host, command, with_vhost)?;
    guest.stdout.wait("ready")?;
    let diagnosis = host.diagnosis()?;
    let finding = diagnosis.names("vhost", "note")?;
    contains(&finding, &["guests use vhost-net", &format!("'web' (pid {})", guest.pid())])?;
    ensure!(diagnosis.status == Some(0), "{diagnosis:#?}");
    Ok(())
}

/// The kernel refuses what the fix takes.
#[test]
fn a_kernel_on_which_the_fix_does_not_hold() -> Result<()> {
    let host = Host::new()?;
    let mut shrinks = faults::calls()?;
    shrinks.retain(|call| call.helper == "bpf_skb_adjust_room");
    let refused = faults::fixer_with(&faults::refusing_all(&shrinks))?;
    let refused = refused.to_str().context("a path in UTF-8")?;
    let netns = &host.scene.host;
    let command = program(refused, &["doctor", "--json", "-i", BRIDGE]);
    let diagnosis = Diagnosis::read(&Running::start(netns, command)?.end()?)?;
    let finding = diagnosis.names("kernel", "possible")?;
    contains(&finding, &["fixer does not work on Linux", "not true that a partial reply"])?;
    let selftest = Running::start(netns, program(refused, &["selftest"]))?.end()?;
    ensure!(selftest.status.code() == Some(3), "{selftest:?}");
    Ok(())
}

/// A host on which almost everything is wrong.
struct Ruin {
    host: Host,
    _behind: NetNs,
    _servers: [Running; 3],
}

/// One fault of each kind.
fn ruin() -> Result<Ruin> {
    let host = Host::partial()?;
    let netns = &host.scene.host;
    // A second server, behind a port, with the same addresses, and rules that act on what is bridged.
    let behind = NetNs::scratch("behind")?;
    link::veth(netns, "tap-dhcp", &behind, "ns-dhcp")?;
    link::enslave(netns, "tap-dhcp", BRIDGE)?;
    link::address(&behind, "ns-dhcp", [10, 0, 3, 2].into(), 24)?;
    turn_off(&behind, "ns-dhcp", "tx")?;
    let other = dnsmasq(&behind, "ns-dhcp", "10.0.3", &[])?;
    host.host("iptables", "-P FORWARD DROP")?;
    host.host("sysctl", "-w net.bridge.bridge-nf-call-iptables=1")?;
    // Ports that are down, spared broadcasts, and too short; and a spanning tree.
    host.host("bridge", "link set dev guest0 bcast_flood off")?;
    link::veth(netns, "guest1", &host.scene.guest, "eth1")?;
    link::enslave(netns, "guest1", BRIDGE)?;
    host.host("ip", "link set guest1 down")?;
    host.host("ip", "link set br0 type bridge stp_state 1 forward_delay 1500")?;
    shorten(&host)?;
    // A server whose interface is gone, one that has nothing for its own, and a bridge that has none.
    let bridge = |name: &str, address: [u8; 4]| {
        link::bridge(netns, name)?;
        link::address(netns, name, address.into(), 24)
    };
    bridge("old0", [10, 0, 9, 1])?;
    let left = dnsmasq(netns, "old0", "10.0.9", &[])?;
    link::delete(netns, "old0")?;
    bridge("br1", [10, 0, 4, 1])?;
    turn_off(netns, "br1", "tx")?;
    let idle = dnsmasq(netns, "br1", "10.99.0", &[])?;
    host.host("ip", "link add br2 type bridge")?;
    host.host("ip", "addr add 10.0.3.2/24 dev lo")?;
    host.host("sysctl", "-w net.ipv4.conf.br0.rp_filter=1")?;
    output(
        netns,
        "nft",
        &["add table inet f; add chain inet f in { type filter hook input priority 0; }; \
         add rule inet f in udp dport 67 drop"],
    )?;
    Ok(Ruin { host, _behind: behind, _servers: [other, left, idle] })
}

#[test]
fn a_tired_operator_reads_the_most_likely_cause_first() -> Result<()> {
    let ruin = ruin()?;
    let scene = &ruin.host.scene;
    let arguments = ["doctor", "-i", BRIDGE, "-i", "br1", "-i", "br2", "--listen", "2"];
    let mut doctor = beside(&scene.host, &fixer(&arguments)?, UNSERVED)?;
    doctor.stderr.wait("listening for 2 s")?;
    // A guest asks in vain, for a lease and for a file.
    let client = PacketSocket::open(&scene.guest, GUEST)?;
    let asked = [request(1, 7, MAC, &[]), read_request(MAC)];
    let pid = Process::of(doctor.pid())?;
    while !pid.ends_within(Duration::from_millis(100))? {
        asked.iter().try_for_each(|frame| client.send(frame, None))?;
    }
    let ended = doctor.end()?;
    ensure!(ended.status.code() == Some(PROBLEM), "{ended:?}");
    let text = ended.stdout.join("\n");
    println!("{text}");
    ensure!(ended.stdout.len() <= 100, "{} lines:\n{text}", ended.stdout.len());
    for line in &ended.stdout {
        ensure!(line.chars().count() <= 100, "too long: {line}");
    }
    // A comment that goes on is one on each line.
    contains(&text, &["\n          # --dhcp-range=10.0.4.128", "\n          # port 69"])?;
    let order = [
        "br2 is down (certain)",
        "nobody on this host serves DHCP to br2 (certain)",
        "on br1 has no address to give (certain)",
        "the firewall drops what guests ask of br",
        "clients on br0 ask, and nobody answers (certain)",
        "replies that leave br0 have unfinished UDP checksums (likely)",
        "ports of br0 forward only after 30 s (likely)",
        "guest1, a port of br0, does not forward (likely)",
        "iptables' rules for routed packets drop DHCP between the ports of br0 (likely)",
        "Open vSwitch does not do what it was asked to (likely)",
        "nobody answers TFTP requests on br0 (likely)",
        "replies to everybody do not get to the guest behind guest0 (possible)",
        "is left over (possible)",
        "2 servers answer on br0 (possible)",
        "rp_filter may drop what guests on br0 send from their addresses (possible)",
        "br0 sends longer frames than its ports carry (possible)",
    ];
    let places: Vec<_> = order.iter().map(|headline| text.find(headline)).collect();
    ensure!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?}\n{text}");
    Ok(())
}
