//! Frames without end, in short: `cargo xtask fuzz` tries more of them.

use anyhow::{Result, bail, ensure};
use fixer_common::verdict::{TABLE, Verdict};
use fixer_tests::fuzz::{
    bench::Bench,
    generate::Generator,
    hunt::{FIXTURES, hunt, replay},
    inputs,
    shrink::shrink,
    slices,
    trial::{Trial, lines},
};

/// Any will do; this one is the same every time.
const SEED: u64 = 8200;

/// The program in the kernel and the reference agree, and every verdict came up, but for those for
/// which a helper would have to refuse.
#[test]
fn the_program_agrees_with_the_reference() -> Result<()> {
    let mut bench = Bench::new()?;
    replay(&mut bench)?;
    let tally = hunt(&mut bench, 20_000, SEED, |_| ())?;
    let refused = [Verdict::Failed, Verdict::Dropped];
    for row in TABLE.iter().filter(|row| !refused.contains(&row.verdict)) {
        let count = tally.verdicts.get(&Some(row.name)).copied().unwrap_or_default();
        ensure!(count >= 50, "{} came up {count} times in {}", row.name, tally.frames);
    }
    Ok(())
}

/// The same for the packet logic on slices, which takes frames of every length and needs no root.
#[test]
fn the_packet_logic_agrees_with_the_reference() -> Result<()> {
    const LONGEST: usize = 12_000;
    let mut generator = Generator::new(SEED);
    let fixtures = lines(FIXTURES).map(str::parse).collect::<Result<Vec<Trial>>>()?;
    let generated = std::iter::repeat_with(|| generator.trial(LONGEST)).take(100_000);
    for trial in fixtures.into_iter().chain(generated) {
        if slices::difference(&trial).is_some() {
            let smallest = shrink(trial, |trial| slices::difference(trial).is_some());
            let difference = slices::difference(&smallest).unwrap_or_default();
            bail!("made as small as it gets:\ntrial:     {smallest}\n{difference}");
        }
    }
    Ok(())
}

/// What libFuzzer once found, and the same done with frames that are not of its making.
#[test]
fn whatever_comes_is_shown_or_refused() -> Result<()> {
    inputs::replay()?;
    let mut generator = Generator::new(SEED);
    for _ in 0..3_000 {
        inputs::events(&generator.trial(2_000).frame);
    }
    Ok(())
}
