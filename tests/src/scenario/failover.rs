//! Two ISC dhcpd in failover, with a pool for network boot that both say the other has the rest of.
//!
//! Each server of a pair may only give away its own half of a pool. When they lose sight of each other the
//! halves stay as they are, and each goes on believing that the other has what it had. A small pool for
//! PXE clients is used up first: then both refuse, with the words "peer holds all free leases", while
//! ordinary clients go on getting leases from their large one. No checksum is wrong there. What is wrong
//! on the same network is the answer to a client that renews its lease, the only one that dhcpd sends
//! through the kernel's UDP.

use anyhow::{Context as _, Result, ensure};
use fixer_user::lab::strict::{Lease, Outcome};

use super::{
    Scenario,
    guest::Guest,
    host::Host,
    story::{self, Act},
};
use crate::{
    command::Running,
    pxe::{
        card::Card,
        guest::{self, Boot, Got},
        server::boot_file,
    },
};

/// The bridge that everybody is on.
const BRIDGE: &str = "br0";

/// The port of the machine that boots, and its address, which is QEMU's default.
const MACHINE: &str = "vnet0";
const MAC: &str = "52:54:00:12:34:56";

/// The vendor class of clients that boot over the network.
const PXE: &str = "PXEClient";

/// What is played.
pub const SCENARIO: Scenario = Scenario {
    name: "failover",
    title: "two ISC dhcpd in failover that both refuse PXE clients",
    packages: &[
        ("isc-dhcp-server", "/usr/sbin/dhcpd"),
        ("dnsmasq-base", "/usr/sbin/dnsmasq"),
        ("iproute2", "/usr/bin/ip"),
        ("nftables", "/usr/sbin/nft"),
    ],
    play,
};

/// One of the two servers.
struct Server {
    name: &'static str,
    address: &'static str,
    peer: &'static str,
    /// What only one of the two says of the pair.
    role: &'static str,
    /// What it alone gives to PXE clients, once their pool is no longer shared.
    own: &'static str,
}

const SERVERS: [Server; 2] = [
    Server {
        name: "dhcp-a",
        address: "10.0.5.2",
        peer: "10.0.5.3",
        role: "primary; mclt 60; split 128;",
        own: "10.0.5.220 10.0.5.235",
    },
    Server {
        name: "dhcp-b",
        address: "10.0.5.3",
        peer: "10.0.5.2",
        role: "secondary;",
        own: "10.0.5.236 10.0.5.251",
    },
];

/// Who serves PXE clients.
#[derive(Clone, Copy)]
enum Pool {
    /// The pair together, out of two addresses.
    Shared,
    /// Each server by itself, out of sixteen.
    Own,
}

fn play(acts: &mut Vec<Act>) -> Result<()> {
    let host = Host::start("two servers")?;
    network(&host)?;
    let mut pair = both(|server| server.start(&host, Pool::Shared))?;
    for dhcpd in &mut pair {
        dhcpd.stderr.wait("Both servers normal")?;
    }
    let client = Guest::behind(&host.netns, BRIDGE, "client-0", 1)?;
    let lease = leased(&client.ask()?)?;
    client.settle(lease, 24)?;
    story::fault(&client.renew(lease)?).context("a renewal without fixer")?;
    for number in [11, 12] {
        let node = Guest::behind(&host.netns, BRIDGE, &format!("node-{number}"), number)?;
        leased(&node.ask_as(PXE)?).with_context(|| format!("the node {number}"))?;
    }
    part(&host, &mut pair)?;

    let mut fixer = host.spawn("fixer", &OBSERVER)?;
    for _ in SERVERS {
        fixer.stderr.wait("attached to")?;
    }
    let mut told = vec![format!("fixer {}", OBSERVER.join(" "))];
    told.extend(refused(&host, &mut pair, &mut fixer)?);
    told.extend(beside(&host, &mut fixer)?);
    let cured = cured(&host, pair, &mut fixer)?;
    acts.push(Act {
        setting: "the pair has lost sight of itself, and its PXE pool of two is used up".to_owned(),
        fault: "iPXE gets no offer; both servers log \"peer holds all free leases\"".to_owned(),
        fixer: told,
        client: cured,
    });
    acts.push(renewed(&client, lease, &mut fixer)?);
    Ok(())
}

/// How fixer is started: at the servers' ports, where it sees what each is asked and what it answers.
const OBSERVER: [&str; 8] =
    ["run", "-i", "srv-*", "--hook", "both", "--all", "--exchange-timeout", "15"];

/// How the doctor is asked, while clients ask for leases.
const DOCTOR: [&str; 5] = ["doctor", "-i", BRIDGE, "--listen", "8"];

/// A bridge with the servers behind two ports, and a boot file.
fn network(host: &Host) -> Result<()> {
    host.sh(&format!(
        "ip link add {BRIDGE} type bridge\n\
         ip address add 10.0.5.1/24 dev {BRIDGE}\n\
         ip link set {BRIDGE} up"
    ))?;
    for Server { name, address, .. } in &SERVERS {
        let port = name.replace("dhcp", "srv");
        host.sh(&format!(
            "ip netns add {name}\n\
             ip link add {port} type veth peer name eth0 netns {name}\n\
             ip link set {port} master {BRIDGE} up\n\
             ip -n {name} link set lo up\n\
             ip -n {name} address add {address}/24 dev eth0\n\
             ip -n {name} link set eth0 up"
        ))?;
    }
    host.write("/srv/tftp/boot.ipxe", &boot_file(0))?;
    host.sh(&format!(
        "dnsmasq --conf-file=/dev/null --port=0 --user=root --interface={BRIDGE} \
         --enable-tftp --tftp-root=/srv/tftp"
    ))
    .map(drop)
}

/// Does the same with each server.
fn both<T>(act: impl FnMut(&'static Server) -> Result<T>) -> Result<Vec<T>> {
    SERVERS.iter().map(act).collect()
}

impl Server {
    fn start(&self, host: &Host, pool: Pool) -> Result<Running> {
        let name = self.name;
        let [conf, leases, pid] =
            ["conf", "leases", "pid"].map(|kind| format!("/run/{name}.{kind}"));
        host.write(&conf, &self.configuration(pool))?;
        host.sh(&format!("touch {leases}"))?;
        let mut dhcpd = host.spawn(
            "ip",
            &["netns", "exec", name, "dhcpd", "-4", "-f", "-d", "-cf", &conf, "-lf", &leases]
                .into_iter()
                .chain(["-pf", &pid, "eth0"])
                .collect::<Vec<_>>(),
        )?;
        dhcpd.stderr.wait("Server starting service")?;
        Ok(dhcpd)
    }

    fn stop(&self, host: &Host) -> Result<()> {
        host.sh(&format!("kill $(cat /run/{}.pid)", self.name)).map(drop)
    }

    fn configuration(&self, pool: Pool) -> String {
        let Self { address, peer, role, own, .. } = self;
        let pool = match pool {
            Pool::Shared => "failover peer \"pair\"; range 10.0.5.250 10.0.5.251;".to_owned(),
            Pool::Own => format!("range {own};"),
        };
        format!(
            "authoritative; ping-check off; default-lease-time 600; max-lease-time 3600;\n\
             failover peer \"pair\" {{\n\
             \x20 {role}\n\
             \x20 address {address}; port 647; peer address {peer}; peer port 647;\n\
             \x20 max-response-delay 3; max-unacked-updates 10; load balance max seconds 3;\n\
             }}\n\
             class \"pxe\" {{\n\
             \x20 match if substring(option vendor-class-identifier, 0, 9) = \"PXEClient\";\n\
             \x20 next-server 10.0.5.1; filename \"boot.ipxe\";\n\
             }}\n\
             subnet 10.0.5.0 netmask 255.255.255.0 {{\n\
             \x20 pool {{ failover peer \"pair\"; deny members of \"pxe\"; range 10.0.5.100 10.0.5.199; }}\n\
             \x20 pool {{ allow members of \"pxe\"; {pool} }}\n\
             }}\n"
        )
    }
}

/// Somebody tightens a firewall, and the servers lose sight of each other.
fn part(host: &Host, pair: &mut [Running]) -> Result<()> {
    host.sh("ip netns exec dhcp-a nft 'add table inet tight; \
         add chain inet tight in { type filter hook input priority 0; }; \
         add rule inet tight in tcp dport 647 drop; add rule inet tight in tcp sport 647 drop'")?;
    for dhcpd in pair {
        dhcpd.stderr.wait("to communications-interrupted")?;
    }
    Ok(())
}

/// The machine boots from the network: behind a tap, where no sum stays partial.
fn boot(host: &Host) -> Result<Boot> {
    let card = Card::Tap.plug_in(&host.netns, BRIDGE, MACHINE)?;
    let boot = guest::boot(&host.netns, card)?;
    host.sh(&format!("ip link delete {MACHINE}"))?;
    Ok(boot)
}

/// A machine that both servers refuse, and what fixer shows of it.
fn refused(host: &Host, pair: &mut [Running], fixer: &mut Running) -> Result<Vec<String>> {
    let booted = boot(host)?;
    ensure!(booted.got == Got::Nothing && booted.ended, "the machine got more: {booted:?}");
    for dhcpd in pair {
        dhcpd.stderr.wait(&format!("{MAC} via eth0: peer holds all free leases"))?;
    }
    let seen = fixer.stdout.until(&format!("{MAC} (PXE): no_offer"))?;
    let of_machine = |words: &[&str]| {
        let is_wanted =
            |line: &&String| line.contains(MAC) && words.iter().all(|it| line.contains(it));
        seen.iter().find(is_wanted).map(|line| timeless(line))
    };
    let mut told = Vec::new();
    for port in ["srv-a", "srv-b"] {
        let asked = of_machine(&[port, "egress", "DHCP discover"]);
        told.push(asked.with_context(|| format!("{port} was not seen to be asked"))?);
    }
    let offer = of_machine(&["DHCP offer"]);
    ensure!(offer.is_none(), "the machine was offered something: {offer:?}");
    told.extend(of_machine(&["no_offer"]));
    Ok(told)
}

/// A node is refused while a client gets its lease; fixer shows by whom.
fn beside(host: &Host, fixer: &mut Running) -> Result<Vec<String>> {
    let node = Guest::behind(&host.netns, BRIDGE, "node-13", 13)?;
    let client = Guest::behind(&host.netns, BRIDGE, "client-1", 2)?;
    let mut doctor = host.spawn("fixer", &DOCTOR)?;
    doctor.stderr.wait("listening for")?;
    let refused = node.ask_in_vain_as(PXE)?;
    ensure!(refused.lease.is_none() && refused.replies == 0, "a node got more: {refused:?}");
    leased(&client.ask()?)?;
    let mut told = vec![timeless(&fixer.stdout.wait("client 02:00:00:00:00:02: lease")?)];
    told.push(format!("fixer {}", DOCTOR.join(" ")));
    told.extend(diagnosis(doctor)?);
    Ok(told)
}

/// The first thing that the doctor says: that requests have no answer, and why.
fn diagnosis(doctor: Running) -> Result<Vec<String>> {
    let said = doctor.end()?.stdout;
    let first: Vec<_> = said.iter().take_while(|line| !line.is_empty()).cloned().collect();
    let all = said.join(" ");
    for words in [
        "1. clients on br0 ask, and nobody answers (certain)",
        "from 02:00:00:00:00:0d;",
        "on dhcp-a/eth0",
        "on dhcp-b/eth0",
        "meanwhile",
        "answered 02:00:00:00:00:02",
        "network boot clients are not served",
        "in order if they are a failover pair",
    ] {
        let words_of = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        ensure!(words_of(&all).contains(words), "the doctor does not say '{words}': {said:#?}");
    }
    Ok(first)
}

/// The same machine, where the servers see each other and each has PXE addresses of its own.
fn cured(host: &Host, pair: Vec<Running>, fixer: &mut Running) -> Result<String> {
    host.sh("ip netns exec dhcp-a nft delete table inet tight")?;
    both(|server| server.stop(host))?;
    for dhcpd in pair {
        dhcpd.end()?;
    }
    let _pair = both(|server| server.start(host, Pool::Own))?;
    let booted = boot(host)?;
    ensure!(booted.got == Got::BootFile, "the machine still does not boot: {booted:?}");
    fixer.stdout.wait(&format!("{MAC} (PXE): lease"))?;
    let address = booted.address.context("it booted without an address")?;
    Ok(format!("iPXE has {address} and its boot file, from a pool outside of failover"))
}

/// A client that renews its lease, without fixer and with it.
fn renewed(client: &Guest, lease: Lease, fixer: &mut Running) -> Result<Act> {
    story::cure(&client.renew(lease)?).context("a renewal with fixer")?;
    let answer = format!("{}.67 > {}.68: bad udp cksum", lease.server, lease.address);
    Ok(Act {
        setting: "a client renews its lease, and verifies every checksum".to_owned(),
        fault: "the ACK has a bad UDP checksum: dhcpd sends it as any program sends UDP".to_owned(),
        fixer: vec!["the same".to_owned(), timeless(&fixer.stdout.wait(&answer)?)],
        client: format!("keeps {}, renewed by {}", lease.address, lease.server),
    })
}

/// An event without the time before it.
fn timeless(line: &str) -> String {
    line.split_once(' ').map_or(line, |(_, rest)| rest).to_owned()
}

fn leased(outcome: &Outcome) -> Result<Lease> {
    story::cure(outcome)?;
    outcome.lease.context("a cure without a lease")
}
