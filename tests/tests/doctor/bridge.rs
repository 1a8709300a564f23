//! Faults of the bridge and its ports.

use anyhow::Result;
use fixer_user::lab::link;

use super::{Host, contains, run};

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

#[test]
fn a_port_that_does_not_forward() -> Result<()> {
    let host = Host::new()?;
    host.host("bridge", "link set dev guest0 state 4")?;
    let finding = host.diagnosis()?.names("ports", "likely")?;
    contains(&finding, &["guest0 blocking", "find the loop"])?;
    host.host("ip", "link set guest0 down")?;
    let finding = host.diagnosis()?.names("ports", "likely")?;
    contains(&finding, &["guest0 disabled (down)", "ip link set guest0 up"])
}

#[test]
fn vlans_that_separate_a_guest_from_its_server() -> Result<()> {
    let host = Host::new()?;
    host.host("ip", "link set br0 type bridge vlan_filtering 1")?;
    host.diagnosis()?.is_healthy()?;
    host.host("bridge", "vlan del dev guest0 vid 1")?;
    host.host("bridge", "vlan add dev guest0 vid 20 pvid untagged")?;
    let finding = host.diagnosis()?.names("vlan", "certain")?;
    let words =
        ["VLAN 20 pvid untagged; br0: VLAN 1 pvid", "bridge vlan add dev guest0 vid 1 pvid"];
    contains(&finding, &words)?;
    // What it says to do mends it.
    host.host("bridge", "vlan add dev guest0 vid 1 pvid untagged")?;
    host.diagnosis()?.is_healthy()?;
    host.host("bridge", "vlan del dev br0 vid 1 self")?;
    let finding = host.diagnosis()?.names("vlan", "certain")?;
    contains(&finding, &["br0: no VLAN", "bridge vlan add dev br0 vid 1 pvid untagged self"])
}

#[test]
fn a_guest_on_a_vlan_that_a_device_serves_is_in_order() -> Result<()> {
    let host = Host::new()?;
    host.host("ip", "link set br0 type bridge vlan_filtering 1")?;
    host.host("bridge", "vlan del dev guest0 vid 1")?;
    // A trunk: its guests tag their frames themselves.
    host.host("bridge", "vlan add dev guest0 vid 20")?;
    host.diagnosis()?.passes("vlan")
}

#[test]
fn a_port_that_carries_less_than_the_bridge() -> Result<()> {
    let host = Host::new()?;
    host.host("ip", "link set br0 mtu 1500")?;
    link::mtu(&host.scene.host, "guest0", 1400)?;
    let finding = host.diagnosis()?.names("mtu", "possible")?;
    contains(&finding, &["br0 mtu 1500; guest0 mtu 1400", "ip link set br0 mtu 1400"])
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
        anyhow::ensure!(diagnosis.status == Some(0), "{diagnosis:#?}");
        run(&host.scene.host, "ip", "link del vx0")?;
    }
    Ok(())
}
