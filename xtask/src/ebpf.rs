//! `cargo xtask ebpf`: the object that `fixer` embeds, from its source.
//!
//! The object is committed, so that only who changes it needs a toolchain for BPF. So that a
//! committed object can be trusted, anybody must be able to make the same bytes: the compiler is
//! told nothing that differs from one machine or directory to the next.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use xshell::{Cmd, Shell, cmd};

use crate::{
    machine, object, progress,
    record::Record,
    toolchain::{self, Linker, Toolchain},
};

pub(crate) const EXAMPLES: &str = "Examples:
  cargo xtask ebpf           after a change to fixer-ebpf or fixer-common; commit what it writes
  cargo xtask ebpf --check   is the committed object what the source says?";

const OBJECT: &str = "fixer-ebpf/prebuilt/fixer.bpf.o";
const RECORD: &str = "fixer-ebpf/prebuilt/toolchain.txt";
/// Apart from the host's target directory: the two have different flags and compilers, and each
/// would make the other compile everything again.
const TARGET_DIR: &str = "target/ebpf";
const TARGET: &str = "bpfel-unknown-none";

/// What `--check` found out.
pub(crate) enum Finding {
    /// The source makes the committed object.
    Same,
    /// Another toolchain made another object of the same source: it is here.
    OtherToolchain(PathBuf),
}

/// Builds the object in place of the committed one.
pub(crate) fn build(sh: &Shell) -> Result<()> {
    let toolchain = toolchain::ensure(sh)?;
    let rebuilt = compile(sh, &toolchain)?;
    let root = sh.current_dir();
    sh.write_file(root.join(RECORD), toolchain.record().to_string())?;
    sh.copy_file(rebuilt, root.join(OBJECT))?;
    progress(&format!("{OBJECT} and {RECORD} are written: commit them with the source"));
    Ok(())
}

/// Compares what the source makes with the committed object.
pub(crate) fn check(sh: &Shell) -> Result<Finding> {
    let root = sh.current_dir();
    let remedy = "run `cargo xtask ebpf` and commit what it writes";
    let committed = fs::read(root.join(OBJECT))
        .with_context(|| format!("there is no {OBJECT} to compare with; {remedy}"))?;
    let record = sh
        .read_file(root.join(RECORD))
        .with_context(|| format!("what made {OBJECT} is not recorded; {remedy}"))?;

    let toolchain = toolchain::ensure(sh)?;
    let rebuilt = compile(sh, &toolchain)?;
    let bytes = fs::read(&rebuilt)?;
    let Some(difference) = object::difference(&committed, &bytes) else {
        progress(&format!("{OBJECT} is what the source makes"));
        return Ok(Finding::Same);
    };
    let other = Record::parse(&record).differences(&toolchain.record());
    if other.is_empty() {
        bail!(
            "{OBJECT} is not what the source makes ({difference})\n\
             the rebuilt one is {}\n{remedy}",
            rebuilt.display()
        );
    }
    progress(&format!(
        "{OBJECT} cannot be compared: it was made by another toolchain\n  {}\n\
         the rebuilt one is {}",
        other.join("\n  "),
        rebuilt.display()
    ));
    Ok(Finding::OtherToolchain(rebuilt))
}

/// Compiles, links and strips the object; returns where it is.
fn compile(sh: &Shell, toolchain: &Toolchain) -> Result<PathBuf> {
    progress("build the eBPF object");
    let root = sh.current_dir();
    let target_dir = root.join(TARGET_DIR);
    forget_other_toolchains(sh, &target_dir, &toolchain.record().to_string())?;

    let Toolchain { compiler, linker, objcopy, .. } = toolchain;
    let (cargo, host) = (&compiler.cargo, &compiler.about.host);
    let path = path_with(linker)?;
    let pure =
        |command| inheriting_nothing(command).env("RUSTC", &compiler.rustc).env("PATH", &path);
    // Only when the sources are there, it is known where they are.
    pure(cmd!(sh, "{cargo} fetch --quiet --target {host}"))
        .run()
        .context("the sources of the crates that fixer uses could not be fetched")?;
    let sources = sources(&root, &compiler.sysroot)?;
    pure(cmd!(sh, "{cargo} build --release -Z build-std=core --target {TARGET}"))
        .args(["--package", "fixer-ebpf", "--bin", "fixer", "--target-dir"])
        .arg(&target_dir)
        // Building core is unstable, and the distribution's compiler is a stable one.
        .env("RUSTC_BOOTSTRAP", "1")
        // Encoded, because a directory's name may hold a space.
        .env("CARGO_ENCODED_RUSTFLAGS", flags(&sources).join(OsStr::new("\x1f")))
        .run()
        .context("the eBPF object could not be built")?;

    let built = target_dir.join(TARGET).join("release/fixer");
    let stripped = target_dir.join("fixer.bpf.o");
    cmd!(sh, "{objcopy} --strip-debug {built} {stripped}").quiet().run()?;
    let private: Vec<&Path> = sources.iter().map(|(path, _)| path.as_path()).collect();
    object::verify(&fs::read(&stripped)?, &private)?;
    Ok(stripped)
}

/// Throws away what another toolchain compiled: cargo tells compilers apart, but not linkers.
fn forget_other_toolchains(sh: &Shell, target_dir: &Path, record: &str) -> Result<()> {
    let stamp = target_dir.join("toolchain.txt");
    if sh.read_file(&stamp).ok().as_deref() != Some(record) {
        sh.remove_path(target_dir)?;
        sh.write_file(stamp, record)?;
    }
    Ok(())
}

/// What the compiler is told, besides the directories of source.
const FLAGS: &[&str] = &[
    // aya-ebpf's bindings ask for the architecture; all that fixer uses is alike on all of them.
    "--cfg=bpf_target_arch=\"x86_64\"",
    // BTF is made from debug information, and linked only if asked for.
    "-Cdebuginfo=2",
    "-Clink-arg=--btf",
    // 32-bit registers and jumps: Linux 5.1 (092ed0968bb6).
    "-Ctarget-cpu=v3",
    // Headers are seldom aligned, and where fixer runs a word may be loaded from anywhere. The
    // code is generated in the linker; rustc only warns about a feature it does not know.
    "-Clink-arg=--cpu-features=+allows-misaligned-mem-access",
];

fn flags(sources: &[(PathBuf, &str)]) -> Vec<OsString> {
    let remap = |(path, name): &(PathBuf, &str)| {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(path);
        flag.push(format!("={name}"));
        flag
    };
    FLAGS.iter().map(OsString::from).chain(sources.iter().map(remap)).collect()
}

/// The directories whose names the compiler would write into the object, with what it is to write
/// instead.
fn sources<'a>(root: &Path, sysroot: &Path) -> Result<Vec<(PathBuf, &'a str)>> {
    // Of the prefixes that fit a path, the last one counts: cargo's home may be in the workspace.
    let mut sources = vec![(root.to_path_buf(), "fixer")];
    // Each registry has a directory of its own, named after its host.
    let registries = machine::cargo_home()?.join("registry/src");
    let entries = fs::read_dir(&registries)
        .with_context(|| format!("{} cannot be read", registries.display()))?;
    for entry in entries {
        sources.push((entry?.path(), "crates"));
    }
    sources.push((sysroot.join("lib/rustlib/src/rust"), "rust"));
    let spellings = |(path, name): (PathBuf, &'a str)| {
        machine::spellings(&path).into_iter().map(move |path| (path, name))
    };
    Ok(sources.into_iter().flat_map(spellings).collect())
}

/// PATH with bpf-linker's directory in front: rustc looks for it by name.
fn path_with(linker: &Linker) -> Result<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let linker = linker.path.parent().map(Path::to_path_buf);
    env::join_paths(linker.into_iter().chain(env::split_paths(&path)))
        .context("bpf-linker is in a directory with a colon in its name; move it")
}

/// The command without what it would inherit that could change the object.
fn inheriting_nothing(command: Cmd<'_>) -> Cmd<'_> {
    env::vars_os()
        .map(|(variable, _)| variable)
        .filter(|variable| variable.to_str().is_some_and(is_foreign))
        .fold(command, |command, variable| command.env_remove(variable))
}

/// Whether an inherited environment variable could change what the compiler makes. `cargo xtask`
/// itself sets many: it comes from another toolchain.
fn is_foreign(variable: &str) -> bool {
    // What cargo needs to fetch crates, and nothing about compiling.
    const HARMLESS: [&str; 5] =
        ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "RUSTUP_HOME"];
    let starts_with = |prefix: &&str| variable.starts_with(*prefix);
    ["CARGO", "RUST", "LD_LIBRARY_PATH"].iter().any(starts_with)
        && !HARMLESS.iter().any(starts_with)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_change_the_object_is_not_inherited() {
        for variable in
            ["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTUP_TOOLCHAIN", "CARGO_PROFILE_RELEASE_LTO"]
        {
            assert!(is_foreign(variable), "{variable}");
        }
        for variable in ["PATH", "HOME", "CARGO_HOME", "CARGO_NET_OFFLINE", "https_proxy"] {
            assert!(!is_foreign(variable), "{variable}");
        }
    }

    #[test]
    fn a_directory_with_a_space_stays_one_flag() {
        let flags = flags(&[(PathBuf::from("/home/me/my fixer"), "fixer")]);
        assert_eq!(flags.last().unwrap(), "--remap-path-prefix=/home/me/my fixer=fixer");
        assert_eq!(flags.len(), FLAGS.len() + 1);
    }
}
