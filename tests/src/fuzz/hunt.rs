//! Trial after trial, until the program and the reference disagree.

use std::{collections::BTreeMap, fmt};

use anyhow::{Context as _, Result, bail};

use super::{
    bench::{Bench, Outcome, shown},
    generate::Generator,
    report::Report,
    shrink::shrink,
    trial::{Trial, lines},
};

/// Frames that the two once disagreed about. Always tried first.
pub const FIXTURES: &str = include_str!("../../fixtures/fuzz/frames.txt");

/// What was tried.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Frames.
    pub frames: u64,
    /// Frames by verdict; those that no rule asked for are without one.
    pub verdicts: BTreeMap<Option<&'static str>, u64>,
}

/// The program and the reference disagree.
#[derive(Debug)]
pub struct Disagreement {
    /// The trial, made as small as it gets.
    pub trial: Trial,
    /// Where it came from, and what each side said.
    report: String,
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.report)
    }
}

impl std::error::Error for Disagreement {}

/// Tries the fixtures.
pub fn replay(bench: &mut Bench) -> Result<u64> {
    let mut replayed = 0;
    for line in lines(FIXTURES) {
        let trial: Trial = line.parse()?;
        if let Some(trial) = bench.fit(trial) {
            compare(bench, &trial, || "a fixture".to_owned())?;
            replayed += 1;
        }
    }
    Ok(replayed)
}

/// Tries this many frames. `watch` is told from time to time how far it has got.
pub fn hunt(
    bench: &mut Bench,
    frames: u64,
    seed: u64,
    mut watch: impl FnMut(&Tally),
) -> Result<Tally> {
    let mut generator = Generator::new(seed);
    let mut tally = Tally::default();
    while tally.frames < frames {
        let Some(trial) = bench.fit(generator.trial(bench.longest())) else { continue };
        let number = tally.frames;
        let verdict = compare(bench, &trial, || format!("frame {number} of seed {seed}"))?;
        tally.frames += 1;
        *tally.verdicts.entry(verdict).or_default() += 1;
        if tally.frames.is_multiple_of(1024) {
            watch(&tally);
        }
    }
    Ok(tally)
}

/// Compares what the two make of a trial, and gives the verdict they agree on.
fn compare(
    bench: &mut Bench,
    trial: &Trial,
    origin: impl FnOnce() -> String,
) -> Result<Option<&'static str>> {
    let wanted = shown(trial);
    let made = bench.run(trial);
    if made.as_ref().is_ok_and(|made| *made == wanted) {
        return Ok(wanted.verdict);
    }
    // Two disagreements may lie close together: it must stay this one.
    let verdicts = |wanted: &Outcome, made: &Result<Outcome>| {
        (wanted.verdict, made.as_ref().ok().map(|made| made.verdict))
    };
    let these = verdicts(&wanted, &made);
    let smallest = shrink(trial.clone(), |trial| {
        let Some(fitted) = bench.fit(trial.clone()) else { return false };
        let (wanted, made) = (shown(trial), bench.run(trial));
        fitted.kind == trial.kind
            && made.as_ref().ok() != Some(&wanted)
            && verdicts(&wanted, &made) == these
    });
    bail!(Disagreement {
        report: format!(
            "the program and the reference disagree about {}\n{}\nmade as small as it gets:\n{}",
            origin(),
            said(bench, trial),
            said(bench, &smallest)
        ),
        trial: smallest,
    })
}

/// What each side says about a trial.
fn said(bench: &mut Bench, trial: &Trial) -> String {
    let wanted = shown(trial);
    let made = match bench.run(trial) {
        Ok(made) => describe(&made),
        Err(error) => format!("{error:#}"),
    };
    format!("trial:     {trial}\nprogram:   {made}\nreference: {}", describe(&wanted))
}

fn describe(outcome: &Outcome) -> String {
    let Outcome { verdict, ran, report } = outcome;
    let returned = ran.returned as i32;
    let frame = hex::encode(&ran.frame);
    let report = match report {
        None => "nothing".to_owned(),
        Some(Report { verdict, hook, frame_len, frame, checksum, tag }) => format!(
            "{verdict} {} {frame_len} {checksum:?} {tag:?} {}",
            hook.name(),
            hex::encode(frame)
        ),
    };
    format!("{} returned {returned} {frame}\n   event:  {report}", verdict.unwrap_or("nothing"))
}

/// Where and how a disagreement is kept for later.
pub fn keep(
    disagreement: &Disagreement,
    directory: &std::path::Path,
) -> Result<std::path::PathBuf> {
    std::fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let file = directory.join("disagreement.txt");
    std::fs::write(&file, format!("{}\n", disagreement.trial))
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}
