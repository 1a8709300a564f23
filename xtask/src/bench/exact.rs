//! Counts instructions in a machine whose clock goes up with each of them.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use xshell::Shell;

use super::{figures::Figures, host};
use crate::{
    progress,
    vm::{
        DIRECTORY,
        cpio::Entry,
        guest, image,
        kernel::{self, KERNELS},
    },
};

/// The programs that the machine needs, besides our own.
const PROGRAMS: &[&str] = &["busybox", "ethtool", "ip", "tc", "iptables-nft", "iptables-legacy"];

/// The extensions of iptables that are used.
const EXTENSIONS: &[&str] = &["libxt_CHECKSUM.so", "libxt_udp.so", "libxt_standard.so"];

/// Where the machine has them.
const EXTENSIONS_HERE: &str = "lib/xtables";

/// The modules that it needs, where these are not part of the kernel.
const MODULES: &[&str] = &[
    "veth",
    "bridge",
    "sch_ingress",
    "cls_bpf",
    "sch_htb",
    "cls_u32",
    "act_csum",
    "iptable_mangle",
    "xt_CHECKSUM",
    "xt_tcpudp",
    "nf_tables",
    "nft_compat",
];

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(60 * 60);

/// What the machine says when it has come to its end.
const DONE: &str = "fixer-bench is done";

/// Boots the machine, counts everything `runs` times, and says which kernel it ran.
pub(crate) fn measure(
    sh: &Shell,
    kernel: &str,
    runs: usize,
    figures: &mut Figures,
) -> Result<String> {
    let kernel = KERNELS.iter().find(|known| known.name == kernel).context("no such kernel")?;
    let directory = sh.current_dir().join(DIRECTORY).join(kernel.name);
    let files = kernel::fetch(sh, kernel, &directory)?;
    let script = format!(
        "{start}export XTABLES_LIBDIR=/{EXTENSIONS_HERE}\n\
         bench exact {runs} 2>&1 && echo '{DONE}'\n\
         poweroff -f\n",
        start = image::START
    );
    let image = directory.join("bench.cpio");
    sh.write_file(&image, image::pack_with(sh, &programs(sh)?, &files, MODULES, &script)?)?;

    progress(&format!("count instructions on {}", files.release));
    let start = Instant::now();
    let mut done = false;
    let log = directory.join("bench.log");
    let end = guest::boot((&files.vmlinuz, &image), guest::COUNTING, &log, PATIENCE, |line| {
        done |= line.contains(DONE);
        if let Some(news) = figures.read(line) {
            eprintln!("    {:>4} s  {news}", start.elapsed().as_secs());
        }
    })?;
    ensure!(
        done,
        "the machine {}; it said last:\n{}\nall that it said is in {}",
        if end.hung { "did not end in time" } else { "ended too early" },
        end.last_lines.join("\n"),
        log.display()
    );
    Ok(files.release)
}

/// What the machine runs, with its libraries.
fn programs(sh: &Shell) -> Result<Vec<Entry>> {
    let bench = host::built(sh, &["--package", "fixer-tests", "--bin", "bench"], "bench")?;
    let mut entries = image::collect(sh, PROGRAMS, &[&bench])?;
    let extensions = extensions(&entries)?;
    for name in EXTENSIONS {
        let bytes = sh.read_binary_file(extensions.join(name))?;
        entries.push(Entry::new(format!("{EXTENSIONS_HERE}/{name}"), bytes));
    }
    Ok(entries)
}

/// Where the extensions of iptables are on this machine: beside the library that loads them.
fn extensions(entries: &[Entry]) -> Result<PathBuf> {
    let library = entries.iter().find(|entry| entry.path.contains("/libxtables.so"));
    let library = library.context("iptables is not linked to libxtables")?;
    let directory = PathBuf::from("/").join(&library.path).with_file_name("xtables");
    ensure!(directory.is_dir(), "iptables has no extensions in {}", directory.display());
    Ok(directory)
}
