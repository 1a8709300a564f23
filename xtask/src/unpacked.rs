//! Packages that are unpacked below `target`, not installed: what is installed may start by itself, and
//! a DHCP client may take over the machine. And schemas that nothing but a test needs.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use xshell::{Shell, cmd};

use crate::{
    machine::program,
    packages, progress,
    vm::archive::{Archive, Suite},
};

/// Where Prometheus is kept and unpacked; fixer-tests looks for it there.
const PROMETHEUS: &str = "target/prometheus";

/// Fetches Prometheus and promtool, if this machine does not have them.
pub(crate) fn prometheus(sh: &Shell) -> Result<()> {
    let unpacked = sh.current_dir().join(PROMETHEUS).join("root/usr/bin");
    let is_here = |name: &str| program(name).is_some() || unpacked.join(name).is_file();
    fetch(sh, PROMETHEUS, "Prometheus and promtool", || {
        let is_lacking = !["prometheus", "promtool"].into_iter().all(is_here);
        Ok(is_lacking.then(|| "prometheus".to_owned()).into_iter().collect())
    })
}

/// Where the schemas of Kubernetes are kept; fixer-tests looks for them there.
const KUBERNETES: &str = "target/kubernetes";

/// The package of Python's that has the schemas of all versions of Kubernetes, and checks by them.
const SCHEMAS: &str = "kubernetes-validate==1.37.0";

/// Fetches the schemas of Kubernetes, if they are not here.
pub(crate) fn kubernetes(sh: &Shell) -> Result<()> {
    let directory = sh.current_dir().join(KUBERNETES);
    if directory.join("kubernetes_validate").is_dir() {
        return Ok(());
    }
    progress(&format!("fetch {SCHEMAS}"));
    let new = sh.current_dir().join(format!("{KUBERNETES}.new"));
    sh.remove_path(&new)?;
    cmd!(sh, "python3 -m pip install --quiet --root-user-action=ignore --target {new} {SCHEMAS}")
        .run()
        .with_context(|| format!("pip could not fetch {SCHEMAS}; check the network"))?;
    sh.remove_path(&directory)?;
    cmd!(sh, "mv {new} {directory}").quiet().run()?;
    Ok(())
}

/// Where a receiver of OTLP is kept; fixer-tests looks for it there.
const RECEIVER: &str = "target/receiver";

/// Fetches VictoriaMetrics, whatever this machine has: Debian builds Prometheus without OTLP, and
/// before Debian 13 VictoriaMetrics is too old for it.
pub(crate) fn receiver(sh: &Shell) -> Result<()> {
    const NAME: &str = "victoria-metrics";
    let directory = sh.current_dir().join(RECEIVER);
    if directory.join(NAME).is_file() {
        return Ok(());
    }
    progress(&format!("fetch {NAME} from Debian's archive"));
    let apt = directory.join("apt");
    let archive = Archive::open(sh, &apt, &[Suite::Main("trixie")])?;
    let unpacked = apt.join("unpacked");
    for package in archive.download([NAME.to_owned()])? {
        cmd!(sh, "dpkg-deb --extract {package} {unpacked}").quiet().run()?;
    }
    let program = unpacked.join("usr/bin").join(NAME);
    cmd!(sh, "mv {program} {directory}").quiet().run()?;
    Ok(sh.remove_path(apt)?)
}

/// Fetches packages as long as `lacking` names any, and unpacks them in `root` below a directory;
/// `what` they are is for people.
pub(crate) fn fetch(
    sh: &Shell,
    directory: &str,
    what: &str,
    lacking: impl Fn() -> Result<Vec<String>>,
) -> Result<()> {
    let packages = lacking()?;
    if packages.is_empty() {
        return Ok(());
    }
    let names = packages.join(" ");
    if !packages::can_install(sh)? {
        bail!(
            "{what} are missing here; install what Debian calls\n  {names}\n\
             and take care that none of them starts by itself"
        );
    }
    progress(&format!("fetch {names}"));
    let directory = sh.current_dir().join(directory);
    let archives = directory.join("packages");
    sh.create_dir(archives.join("partial"))?;
    download(sh, &archives, &packages)?;
    unpack(sh, &archives, &directory)?;
    let lacking = lacking()?;
    ensure!(
        lacking.is_empty(),
        "the packages {} do not have the programs that are expected of them",
        lacking.join(" ")
    );
    Ok(())
}

/// Downloads packages, and what they depend on, as far as this machine has not installed it.
fn download(sh: &Shell, archives: &Path, packages: &[String]) -> Result<()> {
    let patience = "DPkg::Lock::Timeout=300";
    // Another user could not write below our directory.
    let options = [
        "-o".to_owned(),
        patience.to_owned(),
        "-o".to_owned(),
        "APT::Sandbox::User=".to_owned(),
        "-o".to_owned(),
        format!("Dir::Cache::archives={}", archives.display()),
    ];
    cmd!(sh, "apt-get -qq -o {patience} update").ignore_stdout().run().context(
        "apt-get could not fetch the package lists; check the network and /etc/apt/sources.list",
    )?;
    cmd!(sh, "apt-get -qq -y {options...} install --download-only --no-install-recommends")
        .args(packages)
        .ignore_stdout()
        .run()
        .with_context(|| format!("apt-get could not download {}", packages.join(" ")))
}

/// Makes the links that a system has in its root: a package may hold files in `/lib`, and laid over a
/// system its directory would hide the link there, and all that is behind it. `dpkg-deb --extract` would
/// put a directory in the place of a link.
fn merge_usr(root: &Path) -> Result<()> {
    for name in ["bin", "lib", "lib32", "lib64", "sbin"] {
        let directory = root.join("usr").join(name);
        std::fs::create_dir_all(&directory)?;
        std::os::unix::fs::symlink(Path::new("usr").join(name), root.join(name))?;
    }
    Ok(())
}

/// Unpacks everything that was ever downloaded, and shows it only when it is complete.
fn unpack(sh: &Shell, archives: &Path, directory: &Path) -> Result<()> {
    let (new, root) = (directory.join("new"), directory.join("root"));
    sh.remove_path(&new)?;
    merge_usr(&new)?;
    for archive in sh.read_dir(archives)? {
        if archive.extension().is_some_and(|extension| extension == "deb") {
            let script =
                "dpkg-deb --fsys-tarfile \"$1\" | tar -x --keep-directory-symlink -C \"$2\"";
            cmd!(sh, "bash -o pipefail -c {script} bash {archive} {new}").quiet().run()?;
        }
    }
    sh.remove_path(&root)?;
    cmd!(sh, "mv {new} {root}").quiet().run()?;
    Ok(())
}
