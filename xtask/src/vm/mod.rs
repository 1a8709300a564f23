//! `cargo xtask vm`: on which real kernels does the object load, and does the fix hold there?
//!
//! Distribution kernels are started in QEMU, each with nothing but a root file system in memory:
//! busybox, `fixer`, the suites that look into a kernel, and the modules they need. Everything is
//! emulated, so it works where there is no hardware virtualisation, and all machines see the same.

pub(crate) mod archive;
pub(crate) mod cpio;
pub(crate) mod guest;
pub(crate) mod image;
pub(crate) mod kernel;
mod modules;
mod report;

use std::{
    num::NonZero,
    panic::resume_unwind,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::builder::PossibleValuesParser;
use xshell::Shell;

use crate::{
    document::{self, Place},
    packages::{self, Need},
    progress,
};
use kernel::Kernel;
use report::Report;

pub(crate) const EXAMPLES: &str = "Examples:
  cargo xtask vm                  the kernels that most machines run
  cargo xtask vm --all            also the oldest that is supported, and the newest there is
  cargo xtask vm --kernel 5.10    only this one
  cargo xtask vm --all --write    put the table into README.md, too";

/// Which kernels fixer was tried on, and what held there.
const KERNELS: Place<'static> = Place { document: "README.md", verb: "vm", name: "kernels" };

/// Everything the verb downloads and makes. Kernels stay here until this is deleted.
pub(crate) const DIRECTORY: &str = "target/vm";

/// How long a kernel may take for everything.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

/// Which kernels to try: by default, those that most machines run.
#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Try every kernel there is
    #[arg(long)]
    all: bool,
    /// Try only this kernel
    #[arg(long, conflicts_with = "all", value_parser = PossibleValuesParser::new(kernel::names()))]
    kernel: Option<String>,
    /// Put the table into README.md
    #[arg(long, requires = "all")]
    write: bool,
}

impl Args {
    fn wants(&self, kernel: &Kernel) -> bool {
        match &self.kernel {
            Some(name) => kernel.name == name,
            None => self.all || kernel.usual,
        }
    }
}

/// Boots the kernels, and prints what held on which.
pub(crate) fn run(sh: &Shell, args: &Args) -> Result<()> {
    // They run the host's programs, so they must be of the host's architecture.
    ensure!(
        cfg!(target_arch = "x86_64"),
        "`cargo xtask vm` knows kernels for x86_64 only; run it on such a machine"
    );
    packages::ensure(sh, Need::Vm)?;
    let programs = image::programs(sh)?;

    let kernels: Vec<_> = kernel::KERNELS.iter().filter(|kernel| args.wants(kernel)).collect();
    let reports = try_all(sh, &kernels, &programs);

    let table = report::table(&reports);
    println!("{table}");
    if args.write {
        document::write(sh, &[(KERNELS, document::code(&table))])?;
    }
    if reports.iter().all(Report::passed) {
        Ok(())
    } else {
        bail!("fixer does not hold on every kernel; what each said is in {DIRECTORY}")
    }
}

/// Tries as many kernels at once as there are processors: a machine keeps one of them busy.
fn try_all(sh: &Shell, kernels: &[&Kernel], programs: &[cpio::Entry]) -> Vec<Report> {
    let at_once = thread::available_parallelism().map_or(1, NonZero::get).min(kernels.len());
    let queue = Mutex::new(kernels.iter().enumerate());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = |sh: Shell| {
        let mut reports = Vec::new();
        while let Some((place, kernel)) = next() {
            let report = try_kernel(&sh, kernel, programs).unwrap_or_else(|error| {
                eprintln!("error: {}: {error:#}", kernel.name);
                Report::new(kernel.name)
            });
            reports.push((place, report));
        }
        reports
    };
    let mut reports: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once)
            .map(|_| {
                // A shell has a directory of its own, so each worker needs one.
                let sh = sh.clone();
                scope.spawn(|| work(sh))
            })
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    });
    reports.sort_by_key(|(place, _)| *place);
    reports.into_iter().map(|(_, report)| report).collect()
}

fn try_kernel(sh: &Shell, kernel: &Kernel, programs: &[cpio::Entry]) -> Result<Report> {
    let name = kernel.name;
    let directory = sh.current_dir().join(DIRECTORY).join(name);
    let files = kernel::fetch(sh, kernel, &directory)?;
    let image = directory.join("initramfs.cpio");
    sh.write_file(&image, image::pack(sh, programs, &files)?)?;

    progress(&format!("boot {}", files.release));
    let start = Instant::now();
    let console = directory.join("console.log");
    let mut report = Report::new(name);
    let end = guest::boot((&files.vmlinuz, &image), &[], &console, PATIENCE, |line| {
        if let Some(news) = report.read(line) {
            eprintln!("    {name:<6} {:>4} s  {news}", start.elapsed().as_secs());
        }
    })
    .with_context(|| format!("QEMU could not run {}", files.release))?;
    let mut trouble = report.trouble(end);
    if !report.passed() {
        trouble.push(format!("    all that it said is in {}", console.display()));
        // At once, so that no news of another kernel come between.
        eprintln!("    {name}:\n{}", trouble.join("\n"));
    }
    Ok(report)
}
