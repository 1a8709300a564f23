//! A command that fails half-way: it says so, does what it can, and was not killed.

use anyhow::{Result, ensure};
use aya::programs::links::PinnedLink;
use fixer_tests::command::hooks;
use fixer_user::{
    lab::{link, scene::BRIDGE},
    net::netns::NetNs,
};
use nix::net::if_::if_nametoindex;

use crate::{gone::pins, nothing_is_left, private_mounts, run};

#[test]
fn a_link_that_somebody_else_holds() -> Result<()> {
    private_mounts(true)?;
    let netns = NetNs::scratch("held")?;
    for bridge in [BRIDGE, "br1", "br2"] {
        link::bridge(&netns, bridge)?;
    }
    run(&netns, &["attach", "-i", "br*", "--attach-mode", "tcx", "--skip-selftest"])?.ok()?;
    // Of the three it is the second.
    let ifindex = netns.run(|| if_nametoindex("br1"))??;
    let held = PinnedLink::from_pin(pins(&netns)?.join(format!("{ifindex}-egress")))?;
    let ended = run(&netns, &["detach", "--all"])?;
    ensure!(
        ended.stdout == ["detached from egress of br0", "detached from egress of br2"],
        "{ended:?}"
    );
    ensure!(hooks(&netns, "br1")?.len() == 1 && hooks(&netns, "br2")?.is_empty());
    let status = run(&netns, &["status"])?.ok()?;
    ensure!(status.stderr.is_empty(), "{status:?}");
    ensure!(status.stdout.iter().any(|line| line.starts_with("br1")), "{status:?}");
    drop(held);
    nothing_is_left(&netns, "br1")
}
