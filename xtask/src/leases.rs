//! `cargo xtask leases`: real DHCP clients against real servers, from their packages to the matrix.
//!
//! The packages are unpacked below `target`, not installed: a DHCP client that is installed may take
//! over the machine, and a server may start. Which there are is known to the tables in fixer-tests.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use xshell::{Shell, cmd};

use crate::{
    cargo, machine,
    packages::{self, Need},
    progress,
};

pub(crate) const EXAMPLES: &str = "Examples:
  cargo xtask leases                                     everybody with everybody
  cargo xtask leases --client dhclient                   one client with every server
  cargo xtask leases --client dhcpcd --server dnsmasq    one pair, in DHCPv4 and in DHCPv6";

/// Where packages are kept, and where they are unpacked.
const DIRECTORY: &str = "target/leases";

/// Who is to play.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this client
    #[arg(long, value_name = "NAME")]
    client: Option<String>,
    /// Only this server
    #[arg(long, value_name = "NAME")]
    server: Option<String>,
}

/// Fetches what is missing, lets them play, and prints what came of it.
pub(crate) fn run(sh: &Shell, args: &Args) -> Result<()> {
    machine::require_root(
        sh,
        "leases",
        "it makes network namespaces, and loads a program into the kernel",
    )?;
    packages::ensure(sh, Need::Tests)?;
    fetch(sh)?;
    progress("build fixer");
    let cargo = cargo();
    cmd!(sh, "{cargo} build --package fixer-user --bin fixer")
        .run()
        .context("fixer could not be built")?;
    progress("play every client with every server (a minute or two)");
    let options = [("--client", &args.client), ("--server", &args.server)];
    let options = options.into_iter().filter_map(|(name, value)| Some([name, value.as_ref()?]));
    leases(sh)
        .args(options.flatten())
        .run()
        .context("a pair did not play, or not as it must; what it was is above")
}

/// Fetches the packages of those clients and servers that this machine does not have.
pub(crate) fn fetch(sh: &Shell) -> Result<()> {
    let lacking = lacking(sh)?;
    if lacking.is_empty() {
        return Ok(());
    }
    let names = lacking.join(" ");
    if !packages::can_install(sh)? {
        bail!(
            "DHCP clients and servers are missing here; install what Debian calls\n  {names}\n\
             and take care that none of them starts by itself"
        );
    }
    progress(&format!("fetch {names}"));
    let directory = sh.current_dir().join(DIRECTORY);
    let archives = directory.join("packages");
    sh.create_dir(archives.join("partial"))?;
    download(sh, &archives, &lacking)?;
    unpack(sh, &archives, &directory)?;
    let lacking = self::lacking(sh)?;
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

/// Unpacks everything that was ever downloaded, and shows it only when it is complete.
fn unpack(sh: &Shell, archives: &Path, directory: &Path) -> Result<()> {
    let (new, root) = (directory.join("new"), directory.join("root"));
    sh.remove_path(&new)?;
    for archive in sh.read_dir(archives)? {
        if archive.extension().is_some_and(|extension| extension == "deb") {
            cmd!(sh, "dpkg-deb --extract {archive} {new}").quiet().run()?;
        }
    }
    sh.remove_path(&root)?;
    cmd!(sh, "mv {new} {root}").quiet().run()?;
    Ok(())
}

/// The packages of the clients and servers that are not here.
fn lacking(sh: &Shell) -> Result<Vec<String>> {
    let lacking = leases(sh).arg("--lacking").quiet().read()?;
    Ok(lacking.lines().map(str::to_owned).collect())
}

/// The program of fixer-tests that knows the clients and servers.
fn leases(sh: &Shell) -> xshell::Cmd<'_> {
    let cargo = cargo();
    cmd!(sh, "{cargo} run --quiet --package fixer-tests --bin leases --").quiet()
}
