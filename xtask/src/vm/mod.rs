//! `cargo xtask vm`: on which real kernels does the object load, and does the fix hold there?
//!
//! Distribution kernels are started in QEMU, each with nothing but a root file system in memory:
//! busybox, `fixer`, the suites that look into a kernel, and the modules they need. Everything is
//! emulated, so it works where there is no hardware virtualisation, and all machines see the same.

mod archive;
mod cpio;
mod guest;
mod image;
mod kernel;
mod modules;
mod report;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::builder::PossibleValuesParser;
use xshell::Shell;

use crate::{
    packages::{self, Need},
    progress,
};
pub(crate) use archive::KEYRING;
use kernel::Kernel;
use report::Report;

pub(crate) const EXAMPLES: &str = "Examples:
  cargo xtask vm                  the kernels that most machines run
  cargo xtask vm --all            also the oldest that is supported, and the newest there is
  cargo xtask vm --kernel 5.10    only this one";

/// Everything the verb downloads and makes. Kernels stay here until this is deleted.
const DIRECTORY: &str = "target/vm";

/// How long a kernel may take for everything.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

/// Which kernels to try.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Try every kernel there is
    #[arg(long)]
    all: bool,
    /// Try only this kernel
    #[arg(long, conflicts_with = "all", value_parser = PossibleValuesParser::new(kernel::names()))]
    kernel: Option<String>,
}

impl Args {
    fn wants(&self, kernel: &Kernel) -> bool {
        match &self.kernel {
            Some(name) => kernel.name == name,
            None => self.all || kernel.usual,
        }
    }
}

/// Boots the kernels one after the other, and prints what held on which.
pub(crate) fn run(sh: &Shell, args: &Args) -> Result<()> {
    // They run the host's programs, so they must be of the host's architecture.
    ensure!(
        cfg!(target_arch = "x86_64"),
        "`cargo xtask vm` knows kernels for x86_64 only; run it on such a machine"
    );
    packages::ensure(sh, Need::Vm)?;
    let programs = image::programs(sh)?;

    let mut reports = Vec::new();
    for kernel in kernel::KERNELS.iter().filter(|kernel| args.wants(kernel)) {
        let report = try_kernel(sh, kernel, &programs).unwrap_or_else(|error| {
            eprintln!("error: {}: {error:#}", kernel.name);
            Report::new(kernel.name)
        });
        reports.push(report);
    }

    println!("{}", report::table(&reports));
    if reports.iter().all(Report::passed) {
        Ok(())
    } else {
        bail!("fixer does not hold on every kernel; what each said is in {DIRECTORY}")
    }
}

fn try_kernel(sh: &Shell, kernel: &Kernel, programs: &[cpio::Entry]) -> Result<Report> {
    let directory = sh.current_dir().join(DIRECTORY).join(kernel.name);
    let files = kernel::fetch(sh, kernel, &directory)?;
    let image = directory.join("initramfs.cpio");
    sh.write_file(&image, image::pack(sh, programs, &files)?)?;

    progress(&format!("boot {}", files.release));
    let start = Instant::now();
    let console = directory.join("console.log");
    let mut report = Report::new(kernel.name);
    let end = guest::boot(&files.vmlinuz, &image, &console, PATIENCE, |line| {
        if let Some(news) = report.read(line) {
            eprintln!("    {:>4} s  {news}", start.elapsed().as_secs());
        }
    })
    .with_context(|| format!("QEMU could not run {}", files.release))?;
    for trouble in report.trouble(end) {
        eprintln!("{trouble}");
    }
    if !report.passed() {
        eprintln!("    all that it said is in {}", console.display());
    }
    Ok(report)
}
