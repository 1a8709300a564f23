//! Finds what compiles for BPF, and remembers what it was.
//!
//! Three programs make the object: a Rust compiler with the source of `core` at hand (nobody ships
//! `core` compiled for BPF), bpf-linker, in whose LLVM the code is really generated, and
//! llvm-objcopy. None of them comes with the stable toolchain that the rest of fixer needs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use xshell::{Shell, cmd};

use crate::{
    cargo, machine,
    packages::{self, Need},
    progress,
    record::Record,
    version::{About, Version},
};

/// The oldest compiler that compiles fixer: `rust-version` in Cargo.toml.
const OLDEST_RUSTC: Version = Version(1, 95, 0);
/// The first LLVM that lets BPF load a word from any address (`allows-misaligned-mem-access`).
const OLDEST_LLVM: Version = Version(22, 0, 0);

/// Where `core` lies below a sysroot.
const LIBRARY: &str = "lib/rustlib/src/rust/library";

/// What to do on a machine where xtask cannot do it.
const WITH_RUSTUP: &str = "rustup toolchain install nightly --component rust-src
  cargo binstall bpf-linker (or its release from the aya-rs project), in PATH
  with an LLVM that is not older than the compiler's";
const LINKER_ON_DEBIAN: &str = "LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker \
--version 0.13.0 --locked --no-default-features --features llvm-22";

/// All that is needed to make the object.
pub(crate) struct Toolchain {
    pub(crate) compiler: Compiler,
    pub(crate) linker: Linker,
    /// llvm-objcopy, or rust-objcopy, which is the same.
    pub(crate) objcopy: PathBuf,
    objcopy_llvm: Version,
}

/// A Rust compiler that can compile `core`.
pub(crate) struct Compiler {
    pub(crate) rustc: PathBuf,
    pub(crate) cargo: PathBuf,
    pub(crate) sysroot: PathBuf,
    pub(crate) about: About,
    cargo_version: String,
}

/// bpf-linker.
pub(crate) struct Linker {
    pub(crate) path: PathBuf,
    version: Version,
    llvm: Version,
}

/// Finds the toolchain; where there is none, installs it or says how.
pub(crate) fn ensure(sh: &Shell) -> Result<Toolchain> {
    let tried = match find(sh) {
        Ok(toolchain) => return Ok(toolchain),
        Err(tried) => tried,
    };
    if !packages::can_install(sh)? {
        let packages = packages::on_debian(Need::Toolchain);
        bail!(
            "{tried:#}\n\
             either, as root on Debian 12:\n  {packages}\n  {LINKER_ON_DEBIAN}\n\
             or:\n  {WITH_RUSTUP}"
        );
    }
    packages::ensure(sh, Need::Toolchain).with_context(|| format!("or:\n  {WITH_RUSTUP}"))?;
    if Linker::find(sh).is_err() {
        install_linker(sh)?;
    }
    find(sh).with_context(|| format!("installing packages did not help; instead:\n  {WITH_RUSTUP}"))
}

fn find(sh: &Shell) -> Result<Toolchain> {
    let compiler = Compiler::find(sh);
    let linker = Linker::find(sh);
    // Say everything that is missing at once.
    let (compiler, linker) = match (compiler, linker) {
        (Ok(compiler), Ok(linker)) => (compiler, linker),
        (Err(one), Err(other)) => bail!("{one:#}\n{other:#}"),
        (Err(reason), _) | (_, Err(reason)) => return Err(reason),
    };
    ensure!(
        linker.llvm.major() >= compiler.about.llvm.major(),
        "{} was built on LLVM {}, which cannot read what {} (LLVM {}) writes",
        linker.path.display(),
        linker.llvm,
        compiler.rustc.display(),
        compiler.about.llvm,
    );
    let (objcopy, objcopy_llvm) = find_objcopy(sh, &compiler, &linker)?;
    Ok(Toolchain { compiler, linker, objcopy, objcopy_llvm })
}

impl Toolchain {
    /// Everything about the toolchain that can change the object.
    pub(crate) fn record(&self) -> Record {
        let lines = [
            ("rustc", self.compiler.about.line.clone()),
            ("cargo", self.compiler.cargo_version.clone()),
            ("host", self.compiler.about.host.clone()),
            ("LLVM of rustc", self.compiler.about.llvm.to_string()),
            ("bpf-linker", self.linker.version.to_string()),
            ("LLVM of bpf-linker", self.linker.llvm.to_string()),
            ("LLVM of objcopy", self.objcopy_llvm.to_string()),
        ];
        Record::new(lines)
    }
}

impl Compiler {
    /// The distribution's compiler if it will do, or else one of rustup's.
    fn find(sh: &Shell) -> Result<Self> {
        let mut reasons = Vec::new();
        for prefix in std::iter::once(PathBuf::from("/usr")).chain(rustup_toolchains(sh)) {
            match Self::probe(sh, &prefix.join("bin")) {
                Ok(compiler) => return Ok(compiler),
                Err(reason) => reasons.push(format!("  {reason:#}")),
            }
        }
        bail!("no compiler for BPF was found:\n{}", reasons.join("\n"))
    }

    fn probe(sh: &Shell, bin: &Path) -> Result<Self> {
        let (rustc, cargo) = (bin.join("rustc"), bin.join("cargo"));
        for program in [&rustc, &cargo] {
            ensure!(program.exists(), "{} does not exist", program.display());
        }
        let name = rustc.display();
        let read = |program: &Path, args: &[&str]| {
            let command = cmd!(sh, "{program} {args...}").quiet().ignore_stderr();
            command
                .env_remove("RUSTUP_TOOLCHAIN")
                .read()
                .with_context(|| format!("{} {} failed", program.display(), args.join(" ")))
        };
        let about = About::parse(&read(&rustc, &["-vV"])?)
            .with_context(|| format!("{name} does not say what it is"))?;
        ensure!(
            about.release >= OLDEST_RUSTC,
            "{name} is version {}, older than {OLDEST_RUSTC}",
            about.release
        );
        ensure!(
            about.llvm >= OLDEST_LLVM,
            "{name} was built on LLVM {}, older than {OLDEST_LLVM}",
            about.llvm
        );
        let sysroot = PathBuf::from(read(&rustc, &["--print", "sysroot"])?);
        ensure!(
            sysroot.join(LIBRARY).exists(),
            "{name} has no library source, {LIBRARY} in {}",
            sysroot.display()
        );
        let cargo_version = read(&cargo, &["--version"])?.trim_start_matches("cargo ").to_owned();
        Ok(Self { rustc, cargo, sysroot, about, cargo_version })
    }
}

/// The sysroots of rustup's toolchains, those called nightly first.
fn rustup_toolchains(sh: &Shell) -> Vec<PathBuf> {
    let list = cmd!(sh, "rustup toolchain list").quiet().ignore_stderr().read().unwrap_or_default();
    let mut names: Vec<_> = list.lines().filter_map(|l| l.split_whitespace().next()).collect();
    names.sort_by_key(|name| !name.starts_with("nightly"));
    let sysroot = |name| {
        let command = cmd!(sh, "rustup run {name} rustc --print sysroot").quiet().ignore_stderr();
        command.read().ok().map(PathBuf::from)
    };
    let mut sysroots: Vec<_> = names.into_iter().filter_map(sysroot).collect();
    // A channel and a version may be one toolchain.
    sysroots.dedup();
    sysroots
}

impl Linker {
    fn find(sh: &Shell) -> Result<Self> {
        let home = machine::cargo_home()?.join("bin/bpf-linker");
        let path = machine::program("bpf-linker")
            .or_else(|| home.is_file().then_some(home))
            .context("bpf-linker is neither in PATH nor where cargo installs")?;
        let read = |args: &[&str]| {
            let command = cmd!(sh, "{path} {args...}").quiet().ignore_stderr();
            command.read().with_context(|| format!("{} does not run", path.display()))
        };
        let version = Version::find(&read(&["--version"])?);
        // bpf-linker does not say which LLVM it contains, but that LLVM does.
        let llvm =
            Version::find(&read(&["--llvm-args=--version", "-o", "/dev/null", "/dev/null"])?);
        let unknown = || anyhow!("{} does not say what it is", path.display());
        let (version, llvm) = (version.ok_or_else(unknown)?, llvm.ok_or_else(unknown)?);
        ensure!(
            llvm >= OLDEST_LLVM,
            "{} was built on LLVM {llvm}, older than {OLDEST_LLVM}",
            path.display()
        );
        Ok(Self { path, version, llvm })
    }
}

fn install_linker(sh: &Shell) -> Result<()> {
    progress("build bpf-linker (some minutes, once)");
    let _llvm = sh.push_env("LLVM_PREFIX", "/usr/lib/llvm-22");
    let cargo = cargo();
    cmd!(sh, "{cargo} install bpf-linker --version 0.13.0 --locked")
        .args(["--no-default-features", "--features", "llvm-22"])
        .run()
        .with_context(|| format!("bpf-linker could not be built; try\n  {LINKER_ON_DEBIAN}"))
}

fn find_objcopy(sh: &Shell, compiler: &Compiler, linker: &Linker) -> Result<(PathBuf, Version)> {
    let bin = compiler.sysroot.join("lib/rustlib").join(&compiler.about.host).join("bin");
    let debian = PathBuf::from(format!("/usr/lib/llvm-{}/bin/llvm-objcopy", linker.llvm.major()));
    let candidates = [bin.join("llvm-objcopy"), bin.join("rust-objcopy"), debian];
    let version = |path: &Path| {
        let text = cmd!(sh, "{path} --version").quiet().ignore_stderr().read().ok()?;
        Version::find(&text)
    };
    candidates
        .into_iter()
        .chain(machine::program("llvm-objcopy"))
        .find_map(|path| version(&path).map(|llvm| (path, llvm)))
        .context("llvm-objcopy is not there; install llvm, or `rustup component add llvm-tools`")
}
