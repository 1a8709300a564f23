//! What `cargo xtask bench` starts to measure fixer beside everything that does as well.
//!
//! It sets up a host and a guest in scratch namespaces, sends packets, and prints one figure a line;
//! xtask makes tables of them. Each line starts with [`MARK`], because in an emulated machine the
//! kernel and the firmware write to the same console.

mod beyond;
mod exact;
mod felt;
mod flood;
mod packets;
mod ways;

use anyhow::{Result, bail};

/// What every line of figures starts with.
const MARK: &str = "fixer-bench:";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["exact", rounds] => exact::run(rounds.parse()?),
        ["felt", rounds] => felt::run(rounds.parse()?),
        ["beyond", fixer, rounds] => beyond::run(fixer, rounds.parse()?),
        _ => bail!("`cargo xtask bench` knows how to start this"),
    }
}

/// Prints a figure: what was measured, and the number.
fn figure(about: &[&str], number: impl std::fmt::Display) {
    println!("{MARK} {} {number}", about.join(" | "));
}
