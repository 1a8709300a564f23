//! Every configuration loads, and stays far from the verifier's limit.

use anyhow::{Result, ensure};
use fixer_common::{
    abi::Hook,
    rule::{Kinds, MOST, Rule},
};
use fixer_tests::kernel::require_root;
use fixer_user::bpf::load::{Config, Object};

/// The most instructions that the verifier may have to walk through: an eighth of what it allows
/// (`BPF_COMPLEXITY_LIMIT_INSNS`), for other kernels walk further than this one.
const MOST_VERIFIED: u32 = 125_000;

/// Sets of rules, from the smallest to the largest there is.
fn configurations() -> Vec<(&'static str, Vec<Rule>)> {
    let any = |kinds| Rule::new(kinds, None, None);
    let exact = |at: usize, kinds| Rule::new(kinds, Some(1000 + at as u16), Some(2000 + at as u16));
    let all = Kinds::ALL;
    vec![
        ("dhcp", vec![Rule::DHCP]),
        ("dhcp and dhcpv6", vec![Rule::DHCP, Rule::DHCPV6]),
        ("udp", vec![any(Kinds::UDP)]),
        ("tcp", vec![any(Kinds::TCP)]),
        ("udp and tcp", vec![any(Kinds::UDP), any(Kinds::TCP)]),
        ("as many rules as there can be", (0..MOST).map(|at| exact(at, all)).collect()),
    ]
}

#[test]
fn every_configuration_loads_with_little_work_for_the_verifier() -> Result<()> {
    require_root()?;
    for (name, rules) in configurations() {
        for (observe_only, shrink_twice) in [(false, false), (false, true), (true, false)] {
            let rules = rules.clone();
            let config = Config { rules, observe_only, shrink_twice, ..Config::default() };
            let mut object = Object::load(&config)?;
            for hook in [Hook::Egress, Hook::Ingress] {
                // Before Linux 5.16 the kernel does not tell.
                let verified = object.classifier(hook)?.info()?.verified_instruction_count();
                let verified = verified.unwrap_or(0);
                println!("{name}, observe only {observe_only}, {}: {verified}", hook.name());
                ensure!(verified < MOST_VERIFIED, "{name}: {verified} instructions verified");
            }
        }
    }
    Ok(())
}
