//! What cannot be attached, or not everywhere, leaves all as it was and says what to do.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::PathBuf};

use anyhow::{Result, ensure};
use fixer_common::abi;
use fixer_tests::command::{Running, fixer, hooks, on_bridge, output};
use fixer_user::{
    lab::{link, scene::BRIDGE},
    net::netns::NetNs,
};
use nix::{
    mount::MsFlags,
    sys::{
        resource::{Resource, setrlimit},
        signal::Signal,
    },
};

use crate::{PINS, entries, mount_at_bpffs, nothing_is_left, private_mounts, refused, run};

/// Where the pins of a namespace are for a version of the ABI.
fn pins(netns: &NetNs, version: u32) -> Result<PathBuf> {
    let inode = netns.file().metadata()?.ino();
    Ok(PathBuf::from(PINS).join(format!("v{version}")).join(inode.to_string()))
}

fn bridge() -> Result<NetNs> {
    private_mounts(true)?;
    let netns = NetNs::scratch("host")?;
    link::bridge(&netns, BRIDGE)?;
    Ok(netns)
}

/// What an older fixer would have left: the same programs, links and maps under its version's name.
#[test]
fn pins_of_another_version_are_named_left_alone_and_taken_off() -> Result<()> {
    let netns = bridge()?;
    let other = abi::VERSION - 1;
    for mode in ["tcx", "clsact"] {
        run(&netns, &["attach", "-i", BRIDGE, "--attach-mode", mode])?.ok()?;
        let (new, old) = (pins(&netns, abi::VERSION)?, pins(&netns, other)?);
        fs::create_dir(PathBuf::from(PINS).join(format!("v{other}")))?;
        fs::rename(&new, &old)?;
        let before = hooks(&netns, BRIDGE)?;
        for verb in ["attach", "run"] {
            let ended = run(&netns, &[verb, "-i", BRIDGE])?;
            let stderr = ended.stderr.join("\n");
            for words in [format!("ABI {other}"), format!("fixer detach -i {BRIDGE}")] {
                ensure!(stderr.contains(&words), "{mode}: no '{words}' in: {stderr}");
            }
            ensure!(ended.status.code() == Some(1), "{ended:?}");
        }
        ensure!(hooks(&netns, BRIDGE)? == before, "something was changed");
        let [entry] = &entries(&netns)?[..] else { anyhow::bail!("not one entry") };
        ensure!(entry["abi"] == other && entry["held_by"] == "attach", "{entry}");
        let table = run(&netns, &["status"])?.ok()?.stdout.join("\n");
        ensure!(table.contains(&format!("attach (ABI {other})")), "{table}");
        run(&netns, &["detach", "-i", BRIDGE])?.ok()?;
        nothing_is_left(&netns, BRIDGE)?;
    }
    Ok(())
}

#[test]
fn a_pinned_map_of_another_shape_is_one_clear_error() -> Result<()> {
    let netns = bridge()?;
    let dir = pins(&netns, abi::VERSION)?;
    fs::create_dir_all(&dir)?;
    aya::maps::Array::<aya::maps::MapData, u32>::create(9, 0)?.pin(dir.join(abi::map::WANTED))?;
    let ended = run(&netns, &["attach", "-i", BRIDGE])?;
    refused(&ended, &["WANTED", "Array of 9", "not Array of 1", "fixer detach --all"])?;
    ensure!(hooks(&netns, BRIDGE)?.is_empty(), "something was attached");
    run(&netns, &["detach", "--all"])?.ok()?;
    nothing_is_left(&netns, BRIDGE)?;
    run(&netns, &["attach", "-i", BRIDGE])?.ok()?;
    Ok(())
}

/// The refusal is one that cannot be seen beforehand: the third interface has a qdisc in the place of
/// clsact's.
#[test]
fn what_was_attached_before_a_refusal_is_given_back() -> Result<()> {
    let netns = bridge()?;
    for name in ["br1", "br2"] {
        link::bridge(&netns, name)?;
    }
    output(&netns, "tc", &["qdisc", "add", "dev", "br2", "ingress"])?;
    let attach = ["attach", "-i", "br*", "--attach-mode", "clsact", "--hook", "egress"];
    let ended = run(&netns, &attach)?;
    let words = ["egress of br2", "tc qdisc del", "the 2 hooks before it were given back"];
    refused(&ended, &words)?;
    for name in [BRIDGE, "br1", "br2"] {
        nothing_is_left(&netns, name)?;
    }
    Ok(())
}

/// The one that is taken is found before the others are touched, also in another namespace.
#[test]
fn an_interface_that_is_taken_keeps_the_others_from_being_attached() -> Result<()> {
    let netns = bridge()?;
    link::bridge(&netns, "br1")?;
    let first = on_bridge(&netns, &[])?;
    let ended = run(&netns, &["attach", "-i", "br*"])?;
    refused(&ended, &["already attached to egress of br0", &first.pid().to_string()])?;
    nothing_is_left(&netns, "br1")?;
    first.stop(Signal::SIGTERM)?.ok()?;
    nothing_is_left(&netns, BRIDGE)
}

#[test]
fn a_bpf_file_system_that_is_read_only_is_one_clear_error() -> Result<()> {
    mount_at_bpffs(c"bpf", MsFlags::MS_RDONLY)?;
    let netns = NetNs::scratch("host")?;
    link::bridge(&netns, BRIDGE)?;
    let ended = run(&netns, &["attach", "-i", BRIDGE])?;
    refused(&ended, &["Read-only file system", "mount -o remount,rw /sys/fs/bpf"])?;
    nothing_is_left(&netns, BRIDGE)?;
    run(&netns, &["status"])?.ok()?;
    Ok(())
}

/// With too few descriptors it fails at a different place each time.
#[test]
fn without_descriptors_nothing_is_half_done() -> Result<()> {
    let netns = bridge()?;
    let mut refusals = 0;
    for mode in ["tcx", "clsact"] {
        for most in 5..40 {
            let attach = ["attach", "-i", BRIDGE, "--attach-mode", mode, "--skip-selftest"];
            let limit =
                move || setrlimit(Resource::RLIMIT_NOFILE, most, most).map_err(io::Error::from);
            let ended = Running::start_as(&netns, fixer(&attach)?, limit)?.end()?;
            if ended.status.success() {
                run(&netns, &["detach", "-i", BRIDGE])?.ok()?;
            } else if ended.status.code() == Some(1) {
                refused(&ended, &["cannot", "(os error "])?;
                refusals += 1;
            }
            nothing_is_left(&netns, BRIDGE)
                .map_err(|error| error.context(format!("{most} descriptors: {ended:?}")))?;
        }
    }
    ensure!(refusals > 5, "only {refusals} were refused");
    Ok(())
}
