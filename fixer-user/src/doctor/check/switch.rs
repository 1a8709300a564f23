//! Open vSwitch: whether it does what it was asked to, and whether mappings lead somewhere.

use crate::doctor::{
    facts::Facts,
    finding::{Finding, Likelihood},
    remedy::Remedy,
    switches::DEAD,
};

/// What is wrong with Open vSwitch.
pub fn find(facts: &Facts) -> Vec<Finding> {
    let Some(switches) = &facts.switches else { return Vec::new() };
    let mut found = Vec::new();
    if !switches.is_served {
        found.push(
            Finding::new(Likelihood::Likely, "", "Open vSwitch does not do what it was asked to")
                .seen("ovs-vsctl list Open_vSwitch: cur_cfg is behind next_cfg")
                .means("ovs-vswitchd does not run: bridges and ports are in its database only")
                .remedy(
                    Remedy::from("systemctl restart openvswitch-switch")
                        .remark("Red Hat: openvswitch"),
                ),
        );
    }
    for (name, error) in &switches.errors {
        found.push(
            Finding::new(Likelihood::Likely, name, format!("Open vSwitch has no interface {name}"))
                .seen(format!("ovs-vsctl list Interface {name}: {error}"))
                .means("the guest, or the server, behind it is not on the switch")
                .remedy(
                    Remedy::line("ovs-vsctl del-port {}", &[name])
                        .remark("and start again what makes it"),
                ),
        );
    }
    for port in &switches.dead {
        found.push(
            Finding::new(Likelihood::Likely, port, format!("neutron has shut the port {port}"))
                .seen(format!("ovs-vsctl list Port {port}: tag {DEAD}"))
                .means(
                    "the agent has not wired it, or could not: nothing gets from this VLAN to any other",
                )
                .remedy(
                    Remedy::from("systemctl restart neutron-openvswitch-agent")
                        .remark("if it stays so: openstack port show, binding_vif_type"),
                ),
        );
    }
    let lost = switches.mappings.iter().filter(|to| !switches.bridges.contains(&to.bridge));
    for mapping in lost {
        let headline = format!(
            "the network {} is mapped to {}, which is no bridge",
            mapping.network, mapping.bridge
        );
        found.push(
            Finding::new(Likelihood::Likely, &mapping.bridge, headline)
                .seen(format!("{}: {}:{}", mapping.source, mapping.network, mapping.bridge))
                .seen(format!("bridges: {}", switches.bridges.join(", ")))
                .means("guests of that network reach neither server nor gateway")
                .remedy(
                    Remedy::line("ovs-vsctl add-br {}", &[&mapping.bridge])
                        .remark("or correct the mapping"),
                ),
        );
    }
    found
}
