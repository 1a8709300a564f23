//! Scenarios that need another kernel than this machine's: a Debian host in QEMU, for one of them with a guest
//! of QEMU's in that. Everything is emulated, such a guest twice, so it takes some minutes.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use xshell::{Shell, cmd};

use crate::{
    packages::{self, Need},
    progress, scenario,
    vm::{
        DIRECTORY,
        cpio::Entry,
        guest, image,
        kernel::{self, Files, KERNELS},
    },
};

/// What is played like that.
pub(crate) const SCENARIOS: &[&str] = &["vhost-net", "cni-vlan"];

/// Which kernel the host has, and the guest.
const KERNEL: &str = "6.12";

/// What the host has besides fixer and the scenario.
const PROGRAMS: &[&str] = &["bridge", "busybox", "dnsmasq", "ip", "qemu-system-x86_64", "tc"];

/// The plugin of CNI that it has, which is called like one of these.
const PLUGIN: &str = "usr/lib/cni/bridge";

/// What the host's kernel has to load.
const MODULES: &[&str] = &[
    "8021q",
    "act_csum",
    "bridge",
    "cls_bpf",
    "cls_u32",
    "sch_htb",
    "sch_ingress",
    "tun",
    "veth",
    "vhost_net",
];

/// What QEMU needs to start a kernel, in one of its directories.
const FIRMWARE: [&str; 3] = ["bios-256k.bin", "kvmvapic.bin", "linuxboot_dma.bin"];

/// Where some distributions keep the emulation itself.
const ACCELERATOR: &str = "/usr/lib/x86_64-linux-gnu/qemu/accel-tcg-x86_64.so";

/// What each line of the protocol starts with.
const MARK: &str = "fixer-scenario: ";

/// How long the machine may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(25 * 60);

/// Plays these, and hands over what is to be printed, and whether all was as it must be.
pub(crate) fn play(sh: &Shell, names: &[&str], json: bool) -> Result<(String, bool)> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "`cargo xtask scenario {}` knows kernels for x86_64 only; run it on such a machine",
        names.join(" ")
    );
    packages::ensure(sh, Need::Vm)?;
    packages::ensure(sh, Need::Tests)?;
    scenario::fetch(sh, names)?;
    let kernel = KERNELS.iter().find(|kernel| kernel.name == KERNEL).context("a row is missing")?;
    let directory = sh.current_dir().join(DIRECTORY).join(KERNEL);
    let kernel = kernel::fetch(sh, kernel, &directory)?;
    progress("build fixer, the host and its guest");
    let image = directory.join("scenario.cpio");
    sh.write_file(&image, host(sh, &kernel, names, json)?)?;

    progress(&format!("boot {}, and a guest in it", kernel.release));
    let log = directory.join("scenario.log");
    let (mut told, mut status) = (None::<String>, None);
    let files = (kernel.vmlinuz.as_path(), image.as_path());
    let end =
        guest::boot(files, &[], &log, PATIENCE, |line| match (line.split_once(MARK), &mut told) {
            (Some((_, "begin")), _) => told = Some(String::new()),
            (Some((_, words)), _) => status = words.strip_prefix("end ").map(str::to_owned),
            (None, Some(told)) if status.is_none() => *told += &format!("{line}\n"),
            _ => {}
        })?;
    let status = status.with_context(|| {
        let what = if end.hung { "does not end" } else { "ended too early" };
        format!("the machine {what}; all that it said is in {}", log.display())
    })?;
    Ok((told.unwrap_or_default(), status == "0"))
}

/// The root file system of the host.
fn host(sh: &Shell, kernel: &Files, names: &[&str], json: bool) -> Result<Vec<u8>> {
    let mut built = image::built(sh, &["build", "--package", "fixer-user", "--bin", "fixer"])?;
    let tests = ["scenario", "guest"].into_iter().flat_map(|name| ["--bin", name]);
    let arguments: Vec<_> =
        ["build", "--package", "fixer-tests"].into_iter().chain(tests).collect();
    built.extend(image::built(sh, &arguments)?);
    let path = |wanted: &str| {
        let path = built.iter().find_map(|(name, path)| (name == wanted).then_some(path.as_path()));
        path.with_context(|| format!("cargo did not say where it put {wanted}"))
    };

    let mut entries = image::collect(sh, PROGRAMS, &[path("fixer")?, path("scenario")?])?;
    // QEMU looks for its files from where it is itself.
    for entry in entries.iter_mut().filter(|entry| entry.path.starts_with("bin/qemu")) {
        entry.path.insert_str(0, "usr/");
    }
    entries.extend(firmware(sh)?);
    entries.extend(image::program_at(sh, PLUGIN, &scenario::unpacked(sh, PLUGIN)?)?);
    entries.push(Entry::new("etc/passwd", "root:x:0:0::/:/bin/sh\n"));
    entries.push(Entry::new("etc/group", "root:x:0:\n"));
    entries.push(Entry::new("guest/vmlinuz", sh.read_binary_file(&kernel.vmlinuz)?));
    entries.push(Entry::new("guest/initramfs.cpio", guest_image(sh, kernel, path("guest")?)?));
    let options = if json { "--json" } else { "" };
    let script = format!(
        "{}export PATH=/bin:/usr/bin\n\
         mount -t cgroup2 cgroup2 /sys/fs/cgroup\n\
         mkdir -p /var/lib/misc\n\
         echo '{MARK}begin'\n\
         scenario {options} {} 2>/tmp/errors\n\
         status=$?\n\
         echo \"{MARK}end $status\"\n\
         cat /tmp/errors\n\
         poweroff -f\n",
        image::START,
        names.join(" ")
    );
    image::pack_with(sh, &entries, kernel, MODULES, &script)
}

/// The root file system of the guest: its client, which is told over the console what to do.
fn guest_image(sh: &Shell, kernel: &Files, client: &Path) -> Result<Vec<u8>> {
    let entries = image::collect(sh, &["busybox"], &[client])?;
    let script = format!(
        "{}stty -echo\n\
         ip link set eth0 up\n\
         guest\n\
         poweroff -f\n",
        image::START
    );
    image::pack_with(sh, &entries, kernel, &["virtio_net"], &script)
}

/// QEMU's own files.
fn firmware(sh: &Shell) -> Result<Vec<Entry>> {
    let directories = cmd!(sh, "qemu-system-x86_64 -L help").quiet().read()?;
    // It names them from where it is, with dots.
    let directories = directories.lines().filter_map(|line| Path::new(line).canonicalize().ok());
    let paths = directories.flat_map(|directory| FIRMWARE.map(|name| directory.join(name)));
    let paths = paths.chain([ACCELERATOR.into()]).filter(|path| path.is_file());
    paths.map(|path| Ok(Entry::new(path.to_string_lossy(), sh.read_binary_file(&path)?))).collect()
}
