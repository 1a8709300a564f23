//! The reverse path filter, which drops what comes in where its answer would not go out.

use anyhow::{Context as _, Result, ensure};
use fixer_tests::command::output;
use fixer_user::lab::link;

use super::{Diagnosis, Host, contains};

#[test]
fn a_strict_reverse_path_filter() -> Result<()> {
    let host = Host::new()?;
    link::bridge(&host.scene.host, "rival0")?;
    link::address(&host.scene.host, "rival0", [10, 0, 3, 129].into(), 25)?;
    host.host("sysctl", "-w net.ipv4.conf.all.rp_filter=0")?;
    host.host("sysctl", "-w net.ipv4.conf.br0.rp_filter=0")?;
    host.diagnosis()?.passes("rp-filter")?;
    host.host("sysctl", "-w net.ipv4.conf.br0.rp_filter=1")?;
    let finding = host.diagnosis()?.names("rp-filter", "possible")?;
    contains(&finding, &["the way to 10.0.3.130 leads through rival0", "rp_filter=2"])?;
    // One that has no address in it, but a route.
    host.host("ip", "addr flush dev rival0")?;
    host.diagnosis()?.passes("rp-filter")?;
    host.host("ip", "route add 10.0.3.0/25 dev rival0")?;
    host.diagnosis()?.names("rp-filter", "possible").map(drop)
}

/// Others that are in the same network, and through which no guest's address is reached.
#[test]
fn no_rivals_of_the_reverse_path_filter() -> Result<()> {
    let host = Host::new()?;
    host.host("sysctl", "-w net.ipv4.conf.all.rp_filter=1")?;
    for (name, address, len) in [
        ("wide0", [10, 200, 0, 5], 8),
        ("host0", [10, 0, 3, 250], 32),
        ("later0", [10, 0, 3, 9], 24),
    ] {
        link::bridge(&host.scene.host, name)?;
        link::address(&host.scene.host, name, address.into(), len)?;
        host.diagnosis()?.passes("rp-filter").context(name)?;
    }
    host.host("ip", "addr add 10.0.3.251/32 dev lo")?;
    link::bridge(&host.scene.host, "down0")?;
    link::address(&host.scene.host, "down0", [10, 0, 3, 65].into(), 26)?;
    host.host("ip", "link set down0 down")?;
    host.diagnosis()?.is_healthy()
}

/// A name with a dot, as a VLAN of a bridge has it.
#[test]
fn a_setting_of_an_interface_with_a_dot_in_its_name() -> Result<()> {
    let host = Host::new()?;
    for (name, address, len) in [("br0.5", [10, 0, 9, 1], 24), ("rival0", [10, 0, 9, 129], 25)] {
        link::bridge(&host.scene.host, name)?;
        link::address(&host.scene.host, name, address.into(), len)?;
    }
    let _dnsmasq = super::checksum::dnsmasq(&host.scene.host, "br0.5", "10.0.9", &[])?;
    host.host("sysctl", "-w net.ipv4.conf.all.rp_filter=0")?;
    host.host("sysctl", "-w net/ipv4/conf/br0.5/rp_filter=1")?;
    let look = || Diagnosis::of(&host.scene.host, &["-i", "br0.5"]);
    let diagnosis = look()?;
    diagnosis.names("rp-filter", "possible")?;
    let command = diagnosis.remedy("rp-filter")?;
    output(&host.scene.host, "sh", &["-c", &command])?;
    let diagnosis = look()?;
    ensure!(!diagnosis.report.to_string().contains("rp-filter"), "{diagnosis:#?}");
    Ok(())
}
