//! Open vSwitch: its real database, which nothing serves.

use std::io;

use anyhow::Result;
use fixer_tests::command::{Running, fixer, program};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use super::{Diagnosis, Host, PROBLEM, contains};

/// Makes a database of its own and fills it, then becomes the doctor.
const PREPARE: &str = r#"
set -e
mkdir -p /run/openvswitch
exec 3>&1 1>/run/said 2>&1
ovsdb-tool create /run/conf.db /usr/share/openvswitch/vswitch.ovsschema
ovsdb-server /run/conf.db --remote=punix:/run/openvswitch/db.sock --unixctl=/run/ctl --pidfile=/run/pid --detach --no-chdir
ovs-vsctl --no-wait init
ovs-vsctl --no-wait add-br br-int -- set open . external-ids:ovn-bridge-mappings=physnet1:br-ex,physnet2:br-int
ovs-vsctl --no-wait set open . next_cfg=$NEXT cur_cfg=1
"$@" >&3 || status=$?
kill "$(cat /run/pid)"
exit $status
"#;

fn private() -> io::Result<()> {
    const NONE: Option<&std::ffi::CStr> = None;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(NONE, c"/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    Ok(mount(Some(c"tmpfs"), c"/run", Some(c"tmpfs"), MsFlags::empty(), NONE)?)
}

#[test]
fn a_mapping_that_leads_nowhere_and_a_switch_that_does_nothing() -> Result<()> {
    let host = Host::new()?;
    let look = |next: &str| {
        let doctor = fixer(&["doctor", "--json", "-i", "br0"])?;
        let mut command = program("sh", &["-c", PREPARE, "sh"]);
        // The descriptor that it is started through is this process's.
        let own = format!("/proc/{}", std::process::id());
        let path = doctor.get_program().to_string_lossy().replace("/proc/self", &own);
        command.arg(path).args(doctor.get_args()).env("NEXT", next);
        Diagnosis::read(&Running::start_as(&host.scene.host, command, private)?.end()?)
    };
    let diagnosis = look("2")?;
    let finding = diagnosis.names("switch", "likely")?;
    contains(&finding, &["Open vSwitch does not do what it was asked to"])?;
    let diagnosis = look("1")?;
    let finding = diagnosis.names("switch", "likely")?;
    contains(
        &finding,
        &["physnet1 is mapped to br-ex", "bridges: br-int", "ovs-vsctl add-br br-ex"],
    )?;
    anyhow::ensure!(diagnosis.status == Some(PROBLEM), "{diagnosis:#?}");
    anyhow::ensure!(!diagnosis.report.to_string().contains("physnet2"), "{diagnosis:#?}");
    Ok(())
}
