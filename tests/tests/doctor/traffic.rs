//! What only shows while clients ask.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result};
use fixer_tests::command::{Process, Running, fixer, on_bridge, output, program};
use fixer_user::lab::{
    packet::PacketSocket,
    scene::{BRIDGE, GUEST, Scene},
    strict,
};

use super::{
    Diagnosis, Host,
    checksum::serve,
    contains, finish_sums,
    message::{PXE, read_request, request},
    scene,
};

/// The client.
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x77];

/// Message types.
const DISCOVER: u8 = 1;
const REQUEST: u8 = 3;

/// What the doctor hears while `act` happens again and again.
fn hear(scene: &Scene, mut act: impl FnMut() -> Result<()>) -> Result<Diagnosis> {
    let command = fixer(&["doctor", "--json", "-i", BRIDGE, "--listen", "2"])?;
    let mut doctor = Running::start(&scene.host, command)?;
    doctor.stderr.wait("listening for 2 s")?;
    let pid = Process::of(doctor.pid())?;
    while !pid.ends_within(Duration::from_millis(100))? {
        act()?;
    }
    Diagnosis::read(&doctor.end()?)
}

/// The same while a client sends these frames.
fn hear_sent(scene: &Scene, frames: &[Vec<u8>]) -> Result<Diagnosis> {
    let client = PacketSocket::open(&scene.guest, GUEST)?;
    hear(scene, || frames.iter().try_for_each(|frame| Ok(client.send(frame, None)?)))
}

/// The same while the strict client asks, for as long as the doctor listens.
fn hear_client(scene: &Scene) -> Result<Diagnosis> {
    thread::scope(|scope| {
        scope.spawn(|| strict::ask(&scene.guest, GUEST, MAC, Duration::from_secs(4)));
        hear(scene, || Ok(()))
    })
}

#[test]
fn replies_with_unfinished_sums_and_with_finished_ones() -> Result<()> {
    let host = Host::partial()?;
    let diagnosis = hear_client(&host.scene)?;
    let finding = diagnosis.names("sums", "certain")?;
    contains(&finding, &["guest0: ", "replies left partial", "fixer attach -i br0"])?;
    // What was heard is told once.
    diagnosis.passes("checksum")?;
    let observer = on_bridge(&host.scene.host, &["--observe-only"])?;
    let discover = request(DISCOVER, 7, MAC, &[]);
    let finding =
        hear_sent(&host.scene, std::slice::from_ref(&discover))?.names("sums", "certain")?;
    contains(&finding, &["although fixer is attached", "without --observe-only"])?;
    drop(observer);
    let _fixer = on_bridge(&host.scene.host, &[])?;
    hear_sent(&host.scene, &[discover])?.is_healthy()
}

#[test]
fn replies_with_wrong_sums() -> Result<()> {
    let host = Host::new()?;
    // Behind the sum that iptables finished, somebody changes what it is over.
    output(
        &host.scene.host,
        "nft",
        &["add table bridge damage; \
           add chain bridge damage out { type filter hook postrouting priority 0; }; \
           add rule bridge damage out udp sport 67 @th,96,8 set 3"],
    )?;
    let discover = request(DISCOVER, 7, MAC, &[]);
    let finding = hear_sent(&host.scene, &[discover])?.names("sums", "certain")?;
    contains(&finding, &["wrong UDP checksums", "finished the sum twice, or damages"])
}

#[test]
fn requests_that_no_server_answers() -> Result<()> {
    let host = scene()?;
    let discover = || request(DISCOVER, 7, MAC, &[]);
    let finding = hear_sent(&host, &[discover()])?.names("answers", "certain")?;
    contains(&finding, &["no reply, from 02:00:00:00:00:77", "no server hears them"])?;
    // A server that has nothing for this client, as a pool that denies it, and something for another.
    let known = "--dhcp-host=02:00:00:00:00:78";
    let server = serve(&host.host, &["--dhcp-ignore=tag:!known", known])?;
    let other = request(DISCOVER, 8, [2, 0, 0, 0, 0, 0x78], &[]);
    let finding = hear_sent(&host, &[discover(), other])?.names("answers", "certain")?;
    let pid = format!("although there is dnsmasq (pid {})", server.pid());
    let meanwhile = "meanwhile 10.0.3.1 answered 02:00:00:00:00:78";
    contains(&finding, &[&pid, meanwhile, "peer holds all free leases", "journalctl"])
}

#[test]
fn a_server_that_refuses() -> Result<()> {
    let host = Host::new()?;
    let wish = request(REQUEST, 9, MAC, &[(50, &[192, 168, 99, 5])]);
    let finding = hear_sent(&host.scene, &[wish])?.names("refusals", "likely")?;
    contains(&finding, &["NAK from 10.0.3.1 to 02:00:00:00:00:77"])
}

#[test]
fn a_boot_client_that_is_not_told_what_to_boot() -> Result<()> {
    let host = Host::new()?;
    let discover = request(DISCOVER, 7, MAC, &[PXE, (55, &[66, 67])]);
    let finding =
        hear_sent(&host.scene, std::slice::from_ref(&discover))?.names("boot", "likely")?;
    contains(&finding, &["offered no boot file", "--dhcp-boot"])?;
    let scene = scene()?;
    finish_sums(&scene)?;
    let _server = serve(&scene.host, &["--dhcp-boot=pxelinux.0"])?;
    hear_sent(&scene, &[discover])?.is_healthy()
}

#[test]
fn files_that_nobody_serves() -> Result<()> {
    let host = Host::new()?;
    // The client answers no ARP, so the server is told where it is.
    host.host("ip", "neigh replace 10.0.3.150 lladdr 02:00:00:00:00:77 dev br0")?;
    let asked = || hear_sent(&host.scene, &[read_request(MAC)]);
    let finding = asked()?.names("tftp", "likely")?;
    contains(&finding, &["10.0.3.150 asked 10.0.3.1 at UDP port 69", "--enable-tftp"])?;
    let root = tempfile::tempdir()?;
    let root = root.path().to_str().context("the path is no text")?;
    let arguments = format!("--enable-tftp --tftp-root={root} --port=0 --interface=br0");
    let fixed = "--keep-in-foreground --log-facility=- --conf-file=/dev/null --no-resolv --no-hosts \
                 --bind-interfaces --user=root --group=root --pid-file";
    let words: Vec<_> = fixed.split_whitespace().chain(arguments.split(' ')).collect();
    let command = program("dnsmasq", &words);
    let mut tftp = Running::start(&host.scene.host, command)?;
    tftp.stderr.wait("TFTP root is")?;
    asked()?.passes("tftp")
}
