//! Says which compiled eBPF object is embedded: the committed one, or another for a test of it.

use std::{env, path::PathBuf};

const CHOICE: &str = "FIXER_BPF_OBJECT";

fn main() {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let committed = here.join("../fixer-ebpf/prebuilt/fixer.bpf.o");
    let object = env::var_os(CHOICE).map_or(committed, PathBuf::from);
    println!("cargo::rustc-env={CHOICE}={}", object.display());
    println!("cargo::rerun-if-env-changed={CHOICE}");
    println!("cargo::rerun-if-changed={}", object.display());
}
