//! Open vSwitch: its real database, which nothing serves.

use std::{io, process::Command};

use anyhow::Result;
use fixer_tests::command::{Running, fixer, program};
use fixer_user::net::netns::NetNs;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use super::{Diagnosis, Host, PROBLEM, contains, run};

/// Makes a database of its own and fills it, then starts the doctor.
const PREPARE: &str = r#"
set -e
mkdir -p /run/openvswitch
exec 3>&1 4>&2 1>/run/said 2>&1
ovsdb-tool create /run/conf.db /usr/share/openvswitch/vswitch.ovsschema
ovsdb-server /run/conf.db --remote=punix:/run/openvswitch/db.sock --unixctl=/run/ctl --pidfile=/run/pid --detach --no-chdir
ovs-vsctl --no-wait init
ovs-vsctl --no-wait add-br br-int -- set open . next_cfg=1 cur_cfg=1
eval "$FAULTS"
"$@" >&3 2>&4 || status=$?
kill "$(cat /run/pid)"
exit $status
"#;

/// Nobody does what the database asks for.
pub(super) const UNSERVED: &str = "ovs-vsctl --no-wait set open . next_cfg=2";

/// Ports that are not on the switch, and mappings that lead nowhere.
const FAULTS: &str = r#"
ovs-vsctl --no-wait set open . external-ids:ovn-bridge-mappings=physnet1:br-ex,physnet2:br-int
ovs-vsctl --no-wait add-port br-int tap-good tag=5 -- add-port br-int tap-dead tag=4095
ovs-vsctl --no-wait add-port br-int tap-gone -- set Interface tap-gone error='"could not open network device tap-gone (No such device)"'
mkdir -p /run/etc/neutron/plugins/ml2
cp /etc/passwd /etc/group /etc/nsswitch.conf /run/etc/
printf '[ovs]\nbridge_mappings = physnet3: br-int , physnet4 :br-data\n' >/run/etc/neutron/plugins/ml2/openvswitch_agent.ini
mount --bind /run/etc /etc
"#;

/// Starts a doctor on a host with Open vSwitch, whose database has these faults.
pub(super) fn beside(netns: &NetNs, doctor: &Command, faults: &str) -> Result<Running> {
    let mut command = program("sh", &["-c", PREPARE, "sh"]);
    // The descriptor that it is started through is this process's.
    let own = format!("/proc/{}", std::process::id());
    let path = doctor.get_program().to_string_lossy().replace("/proc/self", &own);
    command.arg(path).args(doctor.get_args()).env("FAULTS", faults);
    Running::start_as(netns, command, private)
}

fn private() -> io::Result<()> {
    const NONE: Option<&std::ffi::CStr> = None;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(NONE, c"/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    Ok(mount(Some(c"tmpfs"), c"/run", Some(c"tmpfs"), MsFlags::empty(), NONE)?)
}

#[test]
fn a_mapping_that_leads_nowhere_and_a_switch_that_does_nothing() -> Result<()> {
    let host = Host::new()?;
    let look = |faults: &str| {
        let doctor = fixer(&["doctor", "--json", "-i", "br0"])?;
        Diagnosis::read(&beside(&host.scene.host, &doctor, faults)?.end()?)
    };
    look("")?.is_healthy()?;
    // Whether a server is at a port of its bridges cannot be seen.
    run(&host.scene.host, "ip", "tuntap add br-int mode tap")?;
    let doctor = fixer(&["doctor", "--json", "-i", "br-int"])?;
    let diagnosis = Diagnosis::read(&beside(&host.scene.host, &doctor, "")?.end()?)?;
    contains(&diagnosis.names("server", "possible")?, &["at a port of Open vSwitch"])?;
    let finding = look(UNSERVED)?.names("switch", "likely")?;
    contains(&finding, &["Open vSwitch does not do what it was asked to"])?;
    let diagnosis = look(FAULTS)?;
    diagnosis.names("switch", "likely")?;
    contains(
        &diagnosis.report.to_string(),
        &["physnet1 is mapped to br-ex", "bridges: br-int", "ovs-vsctl add-br br-ex"],
    )?;
    let report = diagnosis.report.to_string();
    let agent = "/etc/neutron/plugins/ml2/openvswitch_agent.ini: physnet4:br-data";
    contains(&report, &["physnet4 is mapped to br-data", agent])?;
    contains(&report, &["neutron has shut the port tap-dead", "tag 4095"])?;
    let gone = "could not open network device tap-gone (No such device)";
    contains(&report, &["Open vSwitch has no interface tap-gone", gone, "del-port tap-gone"])?;
    for healthy in ["physnet3", "tap-good"] {
        anyhow::ensure!(!report.contains(healthy), "{diagnosis:#?}");
    }
    anyhow::ensure!(diagnosis.status == Some(PROBLEM), "{diagnosis:#?}");
    anyhow::ensure!(!diagnosis.report.to_string().contains("physnet2"), "{diagnosis:#?}");
    Ok(())
}
