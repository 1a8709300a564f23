//! A guest whose network card is vhost-net: the host's kernel hands packets to it without QEMU.
//!
//! A guest's driver says whether it takes packets with an unfinished sum. If not, as iPXE's, the tap
//! finishes each sum; if so, as Linux's, the reply reaches the guest as it is, and a client that reads
//! raw frames drops it. Beside fixer this plays what newer versions of libvirt set where they use
//! nftables: a filter with the action `csum`.
//!
//! It takes a kernel with vhost-net and that action, so it is played in an emulated machine, and the guest is
//! a machine in that one: the same kernel, in which `tests/src/bin/guest.rs` waits on the console to be told to ask.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use fixer_user::net::netns::NetNs;
use serde_json::Value;

use super::{DNSMASQ, Scenario, host::until, story::Act};
use crate::command::{Running, fixer, hooks, output, program};

/// Before each answer of the guest on its console.
pub const ANSWER: &str = "fixer-guest: ";

/// Has it ask, and say what [`super::story::cure`] says of it.
pub const ASK: &str = "ask";

/// Has it ask, and say what [`super::story::fault`] says of it.
pub const ASK_IN_VAIN: &str = "ask in vain";

/// The guest's interface.
pub const INTERFACE: &str = "eth0";

/// The guest's address.
pub const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];

/// How long it asks by its own clock. A machine that is emulated in an emulated one takes its time.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Where the kernel and the root file system of the guest are.
pub const GUEST: [&str; 2] = ["/guest/vmlinuz", "/guest/initramfs.cpio"];

/// How long the guest may be silent: as long as it boots.
const SILENCE: Duration = Duration::from_secs(15 * 60);

/// The guest's console on the host.
const CONSOLE: &str = "/run/console";

/// The bridge.
const BRIDGE: &str = "virbr0";

/// As libvirt makes it, but for the spanning tree.
const NETWORK: &[&str] = &[
    "link set lo up",
    "link add virbr0 type bridge",
    "address add 192.168.122.1/24 dev virbr0",
    "link set virbr0 up",
    "tuntap add vnet0 mode tap vnet_hdr",
    "link set vnet0 master virbr0 up",
];

/// What libvirt sets for a network with nftables.
const FILTER: [&str; 2] = [
    "qdisc add dev virbr0 root handle 1: htb default 2",
    "filter add dev virbr0 parent 1: prio 2 protocol ip u32 match ip dport 68 ffff \
     action csum ip and udp",
];

/// What is played, in a machine with all that it takes.
pub const SCENARIO: Scenario = Scenario {
    name: "vhost-net",
    title: "a guest of QEMU with vhost-net, on virbr0 of a Debian host",
    packages: &[],
    play,
};

fn play(acts: &mut Vec<Act>) -> Result<()> {
    ensure!(
        Path::new("/dev/vhost-net").exists() && Path::new(GUEST[0]).exists(),
        "this is not the machine for it; `cargo xtask scenario vhost-net` boots one"
    );
    let host = NetNs::current()?;
    NETWORK.iter().try_for_each(|command| call(&host, "ip", command).map(drop))?;
    let _dnsmasq = dnsmasq(&host)?;
    let mut guest = Machine::boot(&host)?;
    let worker = worker(&guest)?;

    let doctor = doctor(&host)?;
    let fault = guest.tell(ASK_IN_VAIN)?;
    let attached = call_fixer(&host, &["attach", "-i", BRIDGE])?;
    let client = guest.tell(ASK)?;
    let status = status(&host)?;
    ensure!(status.contains("fixed"), "nothing was fixed: {status}");
    acts.push(Act {
        setting: format!(
            "nothing on the bridge finishes sums; the kernel's {worker} serves the guest"
        ),
        fault,
        fixer: vec![
            format!("doctor: {doctor}"),
            format!("fixer attach -i {BRIDGE}: {attached}"),
            format!("status: {status}"),
        ],
        client,
    });
    call_fixer(&host, &["detach", "-i", BRIDGE])?;

    let fault = guest.tell(ASK_IN_VAIN)?;
    FILTER.iter().try_for_each(|command| call(&host, "tc", command).map(drop))?;
    let alone = guest.tell(ASK)?;
    call_fixer(&host, &["attach", "-i", BRIDGE])?;
    let client = guest.tell(ASK)?;
    let filters = call(&host, "tc", "filter show dev virbr0 parent 1:")?;
    ensure!(filters.contains("csum"), "libvirt's filter is gone: {filters}");
    acts.push(Act {
        setting: "fixer detached again; then libvirt's filter (htb, u32, `action csum`)".to_owned(),
        fault,
        fixer: vec![
            format!("with the filter alone the client {alone}"),
            format!("fixer attach -i {BRIDGE} beside it: {}", self::status(&host)?),
        ],
        client,
    });
    call_fixer(&host, &["detach", "-i", BRIDGE])?;
    ensure!(hooks(&host, BRIDGE)?.is_empty(), "fixer has left something on the bridge");
    Ok(())
}

/// What the doctor says of the guest and its card.
fn doctor(host: &NetNs) -> Result<String> {
    let command = fixer(&["doctor", "--json", "-i", BRIDGE])?;
    let ended = Running::start(host, command)?.end()?;
    let report: Value = serde_json::from_str(&ended.stdout.concat())?;
    let findings = report["findings"].as_array().map_or(&[][..], Vec::as_slice);
    let found = findings.iter().find(|finding| finding["check"] == "vhost");
    let found = found.with_context(|| format!("the doctor does not see vhost-net: {report:#}"))?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(format!("{} ({})", text(&found["headline"]), text(&found["seen"][0])))
}

fn call(host: &NetNs, name: &str, arguments: &str) -> Result<String> {
    output(host, name, &arguments.split_whitespace().collect::<Vec<_>>())
}

fn call_fixer(host: &NetNs, arguments: &[&str]) -> Result<String> {
    let ended = Running::start(host, fixer(arguments)?)?.end()?.ok()?;
    Ok(ended.stdout.join("\n"))
}

/// The row of the bridge in fixer's status.
fn status(host: &NetNs) -> Result<String> {
    let status = call_fixer(host, &["status"])?;
    let row = status.lines().find(|row| row.starts_with(BRIDGE));
    let row = row.with_context(|| format!("fixer is not on {BRIDGE}: {status}"))?;
    Ok(row.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn dnsmasq(host: &NetNs) -> Result<Running> {
    let range = "--dhcp-range=192.168.122.2,192.168.122.254,1h";
    let arguments = [&DNSMASQ[..], &["--bind-dynamic", "--interface=virbr0", range]].concat();
    let mut dnsmasq = Running::start(host, program("dnsmasq", &arguments))?;
    dnsmasq.stderr.wait("DHCP, sockets bound")?;
    Ok(dnsmasq)
}

/// The thread of the kernel's that carries the guest's packets. It is one of QEMU's since Linux 6.4, and
/// was a process of its own before.
fn worker(guest: &Machine) -> Result<String> {
    let places = [format!("/proc/{}/task", guest.qemu.pid()), "/proc".to_owned()];
    let mut names = Vec::new();
    for place in &places {
        let entries = fs::read_dir(place)?.filter_map(Result::ok);
        names.extend(entries.filter_map(|it| fs::read_to_string(it.path().join("comm")).ok()));
    }
    let worker = names.iter().find(|name| name.starts_with("vhost-"));
    Ok(worker.with_context(|| format!("no vhost-net among {names:?}"))?.trim().to_owned())
}

/// The guest.
struct Machine {
    qemu: Running,
    console: BufReader<UnixStream>,
}

impl Machine {
    /// Boots it, until its client is ready.
    fn boot(host: &NetNs) -> Result<Self> {
        let [kernel, image] = GUEST;
        let mac = MAC.map(|byte| format!("{byte:02x}")).join(":");
        let card = format!("virtio-net-pci,netdev=card,romfile=,mac={mac}");
        let console = format!("socket,id=console,path={CONSOLE},server=on,wait=on");
        let arguments = [
            ["-accel", "tcg"],
            ["-cpu", "max"],
            ["-m", "256"],
            ["-display", "none"],
            ["-chardev", &console],
            ["-serial", "chardev:console"],
            ["-kernel", kernel],
            ["-initrd", image],
            [
                "-append",
                "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off nokaslr cryptomgr.notests",
            ],
            ["-netdev", "tap,id=card,ifname=vnet0,script=no,downscript=no,vhost=on,vhostforce=on"],
            ["-device", &card],
        ];
        let mut arguments = arguments.as_flattened().to_vec();
        arguments.extend(["-nodefaults", "-no-reboot"]);
        let qemu = Running::start(host, program("qemu-system-x86_64", &arguments))?;
        let mut console = None;
        until("QEMU has started", || {
            ensure!(!qemu.is_over(), "QEMU does not start");
            console = UnixStream::connect(CONSOLE).ok();
            Ok(console.is_some())
        })?;
        let console = console.context("it was connected above")?;
        console.set_read_timeout(Some(SILENCE))?;
        let mut machine = Self { qemu, console: BufReader::new(console) };
        machine.answer().context("the guest does not boot")?;
        Ok(machine)
    }

    /// Has its client do something, and hands over what it says, if that is what was expected.
    fn tell(&mut self, what: &str) -> Result<String> {
        writeln!(self.console.get_mut(), "{what}")?;
        let answer = self.answer()?;
        let sentence = answer.strip_prefix("ok ");
        Ok(sentence
            .with_context(|| format!("asked to {what}, the guest says: {answer}"))?
            .to_owned())
    }

    fn answer(&mut self) -> Result<String> {
        let mut seen = String::new();
        loop {
            let from = seen.len();
            let read = self.console.read_line(&mut seen);
            let line = seen[from..].trim();
            if let Some((_, answer)) = line.split_once(ANSWER) {
                return Ok(answer.to_owned());
            }
            let is_over = self.qemu.is_over() || matches!(read, Ok(0));
            ensure!(!is_over && read.is_ok(), "it said last: {seen}");
        }
    }
}
