//! `cargo xtask lint`: everything that can be said against the source without running it.

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use crate::{cargo, progress, tidy};

/// Checks the format, the invariants and the lints, the fast ones first.
pub(crate) fn run(sh: &Shell) -> Result<()> {
    let cargo = cargo();
    for tool in ["fmt", "clippy"] {
        cmd!(sh, "{cargo} {tool} --version")
            .quiet()
            .ignore_stdout()
            .ignore_stderr()
            .run()
            .with_context(|| {
                format!(
                    "`cargo {tool}` is not installed; run `rustup component add rustfmt clippy`, \
                     or install your distribution's packages (Debian: rustfmt rust-clippy)"
                )
            })?;
    }

    progress("check the format");
    cmd!(sh, "{cargo} fmt --all --check").run().context("run `cargo fmt --all`")?;

    progress("check the invariants");
    tidy::run(sh)?;

    progress("check the lints");
    cmd!(sh, "{cargo} clippy --workspace --exclude fixer-ebpf --all-targets -- -D warnings")
        .run()?;
    // What only a feature brings in is behind the one package that has it.
    cmd!(sh, "{cargo} clippy --package fixer-user --all-targets --features otlp -- -D warnings")
        .run()?;
    // It compiles for the host, too: not to run there, but to be looked at without a toolchain
    // for BPF.
    cmd!(sh, "{cargo} clippy --package fixer-ebpf --bins -- -D warnings").run()?;
    Ok(())
}
