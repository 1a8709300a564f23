//! tshark, as a second reader of capture files. It is unpacked beside the DHCP clients and servers.

use std::{fs::File, path::Path};

use anyhow::{Context as _, Result, ensure};

use crate::leases::program::{Programs, Recipe};

/// tshark, reading a capture from its standard input.
pub const RECIPE: Recipe = Recipe {
    package: "tshark",
    program: "tshark",
    arguments: "-n -r - -o udp.check_checksum:TRUE -T fields -E occurrence=f",
    environment: &[],
    files: &[],
    says: "",
};

/// What it tells of each packet of a capture file: a value, which may be empty, for each of these fields,
/// named as in Wireshark's filters.
pub fn read<const N: usize>(file: &Path, fields: [&str; N]) -> Result<Vec<[String; N]>> {
    let programs = Programs::open()?;
    let mut command = programs.bare(&RECIPE)?;
    command.args(fields.iter().flat_map(|field| ["-e", field])).stdin(File::open(file)?);
    let output = command.output().context("cannot start tshark")?;
    let complaints = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "tshark cannot read {}: {complaints}", file.display());
    let text = String::from_utf8(output.stdout)?;
    let row = |line: &str| -> Result<[String; N]> {
        let values: Vec<_> = line.split('\t').map(str::to_owned).collect();
        values.try_into().ok().with_context(|| format!("not {N} values: {line}"))
    };
    text.lines().map(row).collect()
}
