//! Faults of the bridge and its ports.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use fixer_tests::command::{PATIENCE, output};
use fixer_user::lab::{
    link,
    scene::{BRIDGE, GUEST, PORT},
    strict,
};

use super::{Diagnosis, Host, contains, run, scene, server::behind};

/// The client.
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x77];

#[test]
fn a_healthy_bridge_has_nothing() -> Result<()> {
    let host = Host::new()?;
    host.diagnosis()?.is_healthy()?;
    // libvirt's own: spanning tree, and the shortest delay that the kernel takes with it.
    host.host("ip", "link set br0 type bridge forward_delay 200 stp_state 1")?;
    host.diagnosis()?.passes("stp")
}

#[test]
fn a_long_forward_delay() -> Result<()> {
    let host = Host::new()?;
    host.host("ip", "link set br0 type bridge stp_state 1 forward_delay 1500")?;
    let finding = host.diagnosis()?.names("stp", "likely")?;
    contains(&finding, &["after 30 s", "forward_delay 15 s", "ip link set br0 type bridge"])?;
    // A port that is new listens, which this finding tells and no other.
    link::veth(&host.scene.host, "guest1", &host.scene.guest, "eth1")?;
    link::enslave(&host.scene.host, "guest1", "br0")?;
    let diagnosis = host.diagnosis()?;
    contains(&diagnosis.names("stp", "likely")?, &["guest1 listening"])?;
    diagnosis.passes("ports")
}

#[test]
fn a_bridge_that_is_down() -> Result<()> {
    let host = Host::new()?;
    host.host("ip", "link set br0 down")?;
    let finding = host.diagnosis()?.names("bridge", "certain")?;
    contains(&finding, &["br0 is down", "ip link set br0 up"])
}

/// Unasked, what nobody uses is no alarm.
#[test]
fn a_spare_bridge_and_a_spare_port() -> Result<()> {
    let host = Host::new()?;
    // The old libvirt's own: it gives the bridge its address, and is never up.
    host.host("ip", "tuntap add br0-nic mode tap")?;
    host.host("ip", "link set br0-nic master br0")?;
    host.host("ip", "link add spare0 type bridge")?;
    let diagnosis = Diagnosis::of(&host.scene.host, &[])?;
    contains(&diagnosis.names("bridge", "note")?, &["spare0 is down"])?;
    contains(&diagnosis.names("ports", "note")?, &["br0-nic disabled (down)"])?;
    ensure!(diagnosis.status == Some(0), "{diagnosis:#?}");
    host.diagnosis()?.names("ports", "note")?;
    // Another port that is down may be one that somebody misses.
    host.host("ip", "link set guest0 down")?;
    Diagnosis::of(&host.scene.host, &[])?.names("ports", "note")?;
    host.diagnosis()?.names("ports", "likely")?;
    Diagnosis::of(&host.scene.host, &["-i", "spare0"])?.names("bridge", "certain").map(drop)
}

#[test]
fn a_port_that_does_not_forward() -> Result<()> {
    let host = Host::new()?;
    host.host("bridge", "link set dev guest0 state 0")?;
    let finding = host.diagnosis()?.names("ports", "likely")?;
    contains(&finding, &["guest0 disabled", "bridge link set dev guest0 state 3"])?;
    host.host("bridge", "link set dev guest0 state 3")?;
    host.diagnosis()?.is_healthy()?;
    host.host("ip", "link set guest0 down")?;
    let finding = host.diagnosis()?.names("ports", "likely")?;
    contains(&finding, &["guest0 disabled (down)", "ip link set guest0 up"])
}

/// Both ends of a cable in one bridge: the spanning tree shuts one of them.
#[test]
fn a_port_that_the_spanning_tree_shut() -> Result<()> {
    let host = Host::new()?;
    host.host("ip", "link set br0 type bridge forward_delay 200 stp_state 1")?;
    let netns = &host.scene.host;
    link::veth(netns, "loop0", netns, "loop1")?;
    link::enslave(netns, "loop0", BRIDGE)?;
    link::enslave(netns, "loop1", BRIDGE)?;
    let deadline = Instant::now() + PATIENCE;
    while !host.host("bridge", "link show dev loop1")?.contains("state blocking") {
        ensure!(Instant::now() < deadline, "the spanning tree does not see the loop");
        thread::sleep(Duration::from_millis(100)); // poll: the first BPDU comes after a second or two
    }
    contains(&host.diagnosis()?.names("ports", "likely")?, &["loop1 blocking", "find the loop"])
}

#[test]
fn a_port_that_carries_less_than_the_bridge() -> Result<()> {
    let host = Host::new()?;
    shorten(&host)?;
    let finding = host.diagnosis()?.names("mtu", "possible")?;
    contains(&finding, &["br0 mtu 1500; guest0 mtu 1400", "ip link set br0 mtu 1400"])
}

/// Makes the port carry less. The bridge follows its ports until it was set to something else.
pub(super) fn shorten(host: &Host) -> Result<()> {
    link::mtu(&host.scene.host, BRIDGE, 1300)?;
    link::mtu(&host.scene.host, BRIDGE, 1500)?;
    link::mtu(&host.scene.host, PORT, 1400)?;
    Ok(())
}

#[test]
fn a_tunnels_outer_checksum_is_not_the_fault() -> Result<()> {
    let host = Host::new()?;
    for (state, words) in [("udpcsum", "udpcsum on"), ("noudpcsum", "udpcsum off")] {
        host.host(
            "ip",
            &format!("link add vx0 type vxlan id 5 dstport 4789 local 10.0.3.1 {state}"),
        )?;
        host.host("ip", "link set vx0 up master br0 mtu 1500")?;
        let diagnosis = host.diagnosis()?;
        contains(&diagnosis.names("vxlan", "note")?, &["not the fault", words])?;
        ensure!(diagnosis.status == Some(0), "{diagnosis:#?}");
        run(&host.scene.host, "ip", "link del vx0")?;
    }
    Ok(())
}

/// What is sent to everybody reaches the server's port, or nobody.
#[test]
fn ports_that_are_kept_apart() -> Result<()> {
    let behind = behind()?;
    let host = &behind.scene.host;
    let look = || Diagnosis::of(host, &["-i", BRIDGE]);
    let replies = || {
        let patience = Duration::from_secs(2);
        Ok::<_, anyhow::Error>(strict::ask(&behind.scene.guest, GUEST, MAC, patience)?.replies)
    };
    look()?.passes("isolation")?;
    ensure!(replies()? > 0);
    run(host, "bridge", "link set dev tap-dhcp isolated on")?;
    look()?.passes("isolation")?;
    run(host, "bridge", "link set dev guest0 isolated on")?;
    ensure!(replies()? == 0);
    let diagnosis = look()?;
    let finding = diagnosis.names("isolation", "likely")?;
    contains(&finding, &["the server behind tap-dhcp apart", "isolated on: tap-dhcp, and guest0"])?;
    output(host, "sh", &["-c", &diagnosis.remedy("isolation")?])?;
    look()?.passes("isolation")?;
    for (port, likelihood, words) in [
        ("tap-dhcp", "likely", "requests do not get to the server behind tap-dhcp"),
        ("guest0", "possible", "replies to everybody do not get to the guest behind guest0"),
    ] {
        run(host, "bridge", &format!("link set dev {port} bcast_flood off"))?;
        let diagnosis = look()?;
        contains(&diagnosis.names("isolation", likelihood)?, &[words, "bcast_flood off"])?;
        output(host, "sh", &["-c", &diagnosis.remedy("isolation")?])?;
        look()?.passes("isolation")?;
    }
    ensure!(replies()? > 0);
    Ok(())
}

/// A server on the bridge itself is behind no port: guests that are kept apart still reach it.
#[test]
fn isolated_guests_of_a_server_on_the_bridge() -> Result<()> {
    let host = Host::new()?;
    host.host("bridge", "link set dev guest0 isolated on")?;
    host.diagnosis()?.is_healthy()?;
    // An uplink that is isolated, too, leads guests to no server.
    let scene = scene()?;
    run(&scene.host, "ip", "link add vx0 type vxlan id 5 dstport 4789 local 10.0.3.1")?;
    run(&scene.host, "ip", "link set vx0 up master br0")?;
    for port in ["guest0", "vx0"] {
        Diagnosis::of(&scene.host, &["-i", BRIDGE])?.passes("isolation")?;
        run(&scene.host, "bridge", &format!("link set dev {port} isolated on"))?;
    }
    Diagnosis::of(&scene.host, &["-i", BRIDGE])?.names("isolation", "possible").map(drop)
}
