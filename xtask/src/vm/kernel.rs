//! Which kernels are tried, and how their files get here.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use super::{
    archive::{Archive, Suite},
    modules,
};
use crate::progress;

/// A kernel to try.
pub(crate) struct Kernel {
    /// What the user calls it, and its directory.
    pub(crate) name: &'static str,
    /// How the versions of its packages start.
    series: &'static str,
    /// Where Debian keeps it.
    suites: &'static [Suite],
    /// Whether it is tried unless others are asked for.
    pub(crate) usual: bool,
}

/// All kernels there are to try, the oldest first.
pub(crate) const KERNELS: &[Kernel] = &[
    Kernel {
        name: "5.10",
        series: "5.10.",
        suites: &[Suite::Main("bullseye"), Suite::Security("bullseye-security")],
        usual: false,
    },
    Kernel {
        name: "6.1",
        series: "6.1.",
        suites: &[Suite::Main("bookworm"), Suite::Security("bookworm-security")],
        usual: true,
    },
    Kernel {
        name: "6.12",
        series: "6.12.",
        suites: &[Suite::Main("bookworm-backports"), Suite::Security("bookworm-security")],
        usual: true,
    },
    Kernel { name: "newest", series: "", suites: &[Suite::Main("unstable")], usual: false },
];

/// What the kernels are called.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    KERNELS.iter().map(|kernel| kernel.name)
}

/// A kernel that has been unpacked.
pub(crate) struct Files {
    /// What `uname -r` says on it.
    pub(crate) release: String,
    pub(crate) vmlinuz: PathBuf,
    /// The root of its modules.
    pub(crate) modules: PathBuf,
}

/// The kernel's files: those that are in `directory` already, or else the newest there are.
pub(crate) fn fetch(sh: &Shell, kernel: &Kernel, directory: &Path) -> Result<Files> {
    let root = directory.join("kernel");
    if let Ok(files) = Files::find(&root) {
        progress(&format!("{} is here (delete {} to update it)", files.release, root.display()));
        return Ok(files);
    }
    progress(&format!("look for kernel {} in Debian's archive", kernel.name));
    let archive = Archive::open(sh, &directory.join("apt"), kernel.suites)?;
    let release = archive.newest_kernel(kernel.series)?;
    progress(&format!("download {release}"));
    // It takes its final name only when it is whole.
    let partial = directory.join("partial");
    sh.remove_path(&partial)?;
    sh.remove_path(&root)?;
    for package in archive.download_kernel(&release)? {
        cmd!(sh, "dpkg -x {package} {partial}").quiet().run()?;
        sh.remove_path(package)?;
    }
    fs::rename(&partial, &root)?;
    Files::find(&root)
}

impl Files {
    /// Finds the files of the only kernel below `root`.
    fn find(root: &Path) -> Result<Self> {
        // Where it is depends on whether /lib and /usr/lib were merged yet.
        let below = ["lib/modules", "usr/lib/modules"].map(|path| root.join(path));
        let modules = below
            .iter()
            .filter_map(|path| fs::read_dir(path).ok())
            .flatten()
            .find_map(|entry| Some(entry.ok()?.path()).filter(|path| path.is_dir()))
            .context("the kernel's packages hold no modules")?;
        let release = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let vmlinuz = [root.join(format!("boot/vmlinuz-{release}")), modules.join("vmlinuz")]
            .into_iter()
            .find(|path| path.is_file())
            .context("the kernel's packages hold no kernel")?;
        Ok(Self { release, vmlinuz, modules })
    }

    /// The modules with these names and those they need, in the order in which they load.
    pub(crate) fn load_order(&self, sh: &Shell, wanted: &[&str]) -> Result<Vec<modules::Module>> {
        modules::load_order(wanted, |name| modules::read(sh, &self.modules, name))
    }
}
