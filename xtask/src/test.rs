//! `cargo xtask test`: what continuous integration runs.

use std::path::PathBuf;

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use crate::{
    cargo,
    ebpf::{self, Finding},
    fuzz, leases, lint, machine,
    packages::{self, Need},
    progress, pxe, scenario, unpacked,
    vm::{self, image},
};

pub(crate) const EXAMPLES: &str = "Examples:
  sudo -E env \"PATH=$PATH\" cargo xtask test         everything
  sudo -E env \"PATH=$PATH\" cargo xtask test tcx     only the tests whose name contains tcx";

/// The scenarios that `tests/tests/scenario.rs` plays.
const SCENARIOS: [&str; 2] = ["qdhcp", "failover"];

/// Runs every check, and every test whose name contains `filter`.
pub(crate) fn run(sh: &Shell, filter: Option<&str>) -> Result<()> {
    machine::require_root(
        sh,
        "test",
        "the tests make network namespaces, and load programs into the kernel",
    )?;
    packages::ensure(sh, Need::Tests)?;
    // A suite has a machine boot, too.
    packages::ensure(sh, Need::Pxe)?;
    leases::fetch(sh)?;
    scenario::fetch(sh, &SCENARIOS)?;
    unpacked::prometheus(sh)?;
    unpacked::kubernetes(sh)?;
    unpacked::receiver(sh)?;
    lint::run(sh)?;
    let finding = ebpf::check(sh)?;

    progress("run the tests");
    cargo_test(sh, filter)?;
    if let Finding::OtherToolchain(object) = finding {
        // The bytes could not be compared, so compare what they do.
        progress("run the tests again, on the rebuilt object");
        let _object = sh.push_env("FIXER_BPF_OBJECT", object);
        cargo_test(sh, filter)?;
    }
    // Whoever asks for some tests does not want to wait for what takes minutes.
    if filter.is_some() {
        return Ok(());
    }
    pxe::run(sh, false)?;
    fuzz::many(sh)?;
    vm::run(sh, &vm::Args::default())
}

fn cargo_test(sh: &Shell, filter: Option<&str>) -> Result<()> {
    build(sh)?;
    let cargo = cargo();
    cmd!(sh, "{cargo} test --no-fail-fast --workspace --exclude fixer-ebpf {filter...}")
        .run()
        .context("a test failed; its name is above")
}

/// Builds fixer, and another one with the feature `otlp` beside it. The tests start both, and cargo
/// builds no other package's program for a test.
fn build(sh: &Shell) -> Result<()> {
    let built = |features: &[&str]| -> Result<PathBuf> {
        let args = [&["build", "--package", "fixer-user", "--bin", "fixer"], features].concat();
        let fixer = image::built(sh, &args)?.into_iter().find(|(name, _)| name == "fixer");
        Ok(fixer.context("cargo does not say where fixer is")?.1)
    };
    let fixer = built(&["--features", "otlp"])?;
    sh.copy_file(&fixer, fixer.with_file_name("fixer-otlp"))?;
    // Last: it takes the place of the other.
    built(&[]).map(drop)
}
