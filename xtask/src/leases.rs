//! `cargo xtask leases`: real DHCP clients against real servers, from their packages to the matrix.
//!
//! The packages are unpacked below `target`, not installed ([`crate::unpacked`]). Which there are is known
//! to the tables in fixer-tests.

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use crate::{
    cargo, machine,
    packages::{self, Need},
    progress, unpacked,
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

/// Fetches the packages of those clients and servers that this machine does not have, and tshark, which
/// reads what passes between them.
pub(crate) fn fetch(sh: &Shell) -> Result<()> {
    unpacked::fetch(sh, DIRECTORY, "DHCP clients, servers and tshark", || lacking(sh))
}

/// The packages of what is not here.
fn lacking(sh: &Shell) -> Result<Vec<String>> {
    let lacking = leases(sh).arg("--lacking").quiet().read()?;
    Ok(lacking.lines().map(str::to_owned).collect())
}

/// The program of fixer-tests that knows the clients and servers.
fn leases(sh: &Shell) -> xshell::Cmd<'_> {
    let cargo = cargo();
    cmd!(sh, "{cargo} run --quiet --package fixer-tests --bin leases --").quiet()
}
