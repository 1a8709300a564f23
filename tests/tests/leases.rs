//! Every DHCP client against every server: a lease with fixer wherever there is one without it and
//! where there was none, and no unfinished sum left for anybody.

use anyhow::{Result, ensure};
use fixer_tests::{
    kernel::require_root,
    leases::{self, FIXER, Pair, matrix, pairs, trial::Trial},
    machine::Machine,
};

fn play(pairs: &[Pair], fixer: &'static [&'static str]) -> Result<Vec<Trial>> {
    require_root()?;
    let before = Machine::look()?;
    let trials = leases::play(pairs, fixer, |_| ())?;
    let changed = Machine::look()?.changed(&before);
    ensure!(changed.is_empty(), "files of the machine have changed: {changed:?}");
    Ok(trials)
}

#[test]
fn every_client_gets_its_lease_from_every_server() -> Result<()> {
    let trials = play(&pairs(None, None), FIXER)?;
    let (matrix, faults) = (matrix::print(&trials), matrix::faults(&trials).join("\n"));
    println!("{matrix}");
    ensure!(faults.is_empty(), "{faults}\n{}", matrix::logs(&trials));
    Ok(())
}

/// If this does not hold, the suite cannot see what it is about.
#[test]
fn a_fixer_that_only_looks_helps_nobody() -> Result<()> {
    let mut pairs = pairs(Some("smoltcp"), Some("dnsmasq"));
    pairs.extend(leases::pairs(Some("dhclient"), Some("dnsmasq")));
    let trials = play(&pairs, &["--match", "dhcp,dhcpv6", "--observe-only"])?;
    let faults = matrix::faults(&trials);
    for fault in [
        "DHCPv4 smoltcp with dnsmasq (veth): no lease with fixer",
        "DHCPv4 smoltcp with dnsmasq (veth): a sum was bad with fixer",
        "DHCPv4 dhclient with dnsmasq (veth): a sum was bad with fixer",
        "DHCPv4 dhclient with dnsmasq (copied): no lease with fixer",
        "DHCPv6 dhclient with dnsmasq (veth): a reply was still partial with fixer",
        "DHCPv6 dhclient with dnsmasq (copied): no lease with fixer",
    ] {
        ensure!(faults.iter().any(|found| found == fault), "no '{fault}' in {faults:#?}");
    }
    Ok(())
}
