//! `cargo xtask pxe`: a real guest boots over the network, with fixer and without.

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use crate::{
    cargo, machine,
    packages::{self, Need},
    progress,
};

pub(crate) const EXAMPLES: &str = "Examples:
  cargo xtask pxe           iPXE behind a bridge, in QEMU: what it got, and what fixer saw
  cargo xtask pxe --json    the same for programs
  FIXER_BPF_OBJECT=FILE cargo xtask pxe
                            the same with another object; the guests are what judges it";

/// Builds `fixer`, boots the guests, and fails if one does not fare as it must.
pub(crate) fn run(sh: &Shell, json: bool) -> Result<()> {
    machine::require_root(
        sh,
        "pxe",
        "it makes network namespaces, and loads programs into the kernel",
    )?;
    packages::ensure(sh, Need::Pxe)?;
    let cargo = cargo();
    cmd!(sh, "{cargo} build --package fixer-user --bin fixer")
        .run()
        .context("fixer could not be built")?;
    progress("boot guests over the network");
    let json = json.then_some("--json");
    cmd!(sh, "{cargo} run --package fixer-tests --bin pxe -- {json...}")
        .run()
        .context("a guest did not fare as it must; which, and why, is above")
}
