//! Measures on this machine, in real time: what is felt, and what is beyond the packet.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use xshell::{Shell, cmd};

use super::figures::Figures;
use crate::{progress, vm::image};

/// What goes through the bridge, in turn on each way.
pub(crate) fn felt(sh: &Shell, runs: usize, figures: &mut Figures) -> Result<()> {
    let bench = built(sh, &["--package", "fixer-tests", "--bin", "bench"], "bench")?;
    progress("measure what goes through the bridge");
    measure(&bench, &["felt", &runs.to_string()], figures)
}

/// Time and memory of `fixer run`, as it is installed.
pub(crate) fn beyond(sh: &Shell, runs: usize, figures: &mut Figures) -> Result<()> {
    let bench = built(sh, &["--package", "fixer-tests", "--bin", "bench"], "bench")?;
    let fixer = built(sh, &["--release", "--package", "fixer-user", "--bin", "fixer"], "fixer")?;
    progress("measure fixer run");
    let fixer = fixer.to_string_lossy();
    measure(&bench, &["beyond", &fixer, &runs.to_string()], figures)
}

/// Builds a program, and says where it is.
pub(crate) fn built(sh: &Shell, what: &[&str], name: &str) -> Result<PathBuf> {
    progress(&format!("build {name}"));
    let built = image::built(sh, &[&["build"], what].concat())?;
    let found = built.into_iter().find(|(built, _)| built == name);
    found.map(|(_, path)| path).with_context(|| format!("cargo did not say where it put {name}"))
}

fn measure(bench: &Path, arguments: &[&str], figures: &mut Figures) -> Result<()> {
    let mut child = Command::new(bench)
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("{} cannot be started", bench.display()))?;
    let stdout = child.stdout.take().context("it has no standard output")?;
    for line in BufReader::new(stdout).lines() {
        if let Some(news) = figures.read(&line?) {
            eprintln!("    {news}");
        }
    }
    ensure!(child.wait()?.success(), "not everything could be measured; what failed is above");
    Ok(())
}

/// What this machine is, for who reads the figures.
pub(crate) fn machine(sh: &Shell) -> Result<String> {
    let release = cmd!(sh, "uname -r").quiet().read()?;
    // Behind the version stands who built it.
    let version = release.split('-').next().unwrap_or(&release);
    let processors = std::thread::available_parallelism()?;
    Ok(format!("Linux {version}, {processors} processors"))
}
