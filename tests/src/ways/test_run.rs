//! In the running kernel, by `BPF_PROG_TEST_RUN`.

use std::ops::RangeInclusive;

use anyhow::{Context as _, Result, ensure};
use aya::{TestRunOptions, programs::TestRun as _};
use fixer_common::{abi::Hook, verdict::Verdict};
use fixer_user::bpf::load::{Config, Object};

use super::{Passed, groups};
use crate::{
    cases::Case,
    kernel::{counted, load, verdict_between},
};

/// `TC_ACT_UNSPEC`: the other programs and filters go on.
const GO_ON: u32 = u32::MAX;

/// What `BPF_PROG_TEST_RUN` takes: at least an Ethernet and an IPv4 header, at most what fits into a
/// page beside its own bookkeeping. The other cases go over a veth pair.
const TAKEN: RangeInclusive<usize> = 34..=3500;

/// Where `struct __sk_buff` holds `gso_size`, and how long it is up to there (linux/bpf.h).
const GSO_SIZE: usize = 176;
const CONTEXT: usize = 184;

/// Runs every case that the kernel takes, through the programs of both hooks.
pub fn run(passed: Passed<'_>) -> Result<()> {
    for group in groups(is_taken) {
        let mut object = load(&group[0].rules)?;
        for case in &group {
            for hook in [Hook::Egress, Hook::Ingress] {
                run_one(&mut object, hook, case)?;
            }
            passed(case);
        }
    }
    Ok(())
}

/// The same with programs that only observe: nothing is changed, whatever they see.
pub fn run_observing(passed: Passed<'_>) -> Result<()> {
    for group in groups(is_taken) {
        let rules = group[0].rules.clone();
        let config = Config { rules, observe_only: true, ..Config::default() };
        let mut object = Object::load(&config)?;
        for case in group {
            let verdict = match case.verdict {
                Some(Verdict::Fixed) => Some(Verdict::Partial),
                verdict => verdict,
            };
            let observed = Case { verdict, out: case.frame.clone(), ..case };
            run_one(&mut object, Hook::Egress, &observed)?;
            passed(&observed);
        }
    }
    Ok(())
}

fn is_taken(case: &Case) -> bool {
    TAKEN.contains(&case.frame.len())
}

fn run_one(object: &mut Object, hook: Hook, case: &Case) -> Result<()> {
    let before = counted(object)?;
    let mut out = vec![0; case.frame.len() + 256];
    let mut context = [0; CONTEXT];
    if case.gso {
        context[GSO_SIZE..GSO_SIZE + 4].copy_from_slice(&500_u32.to_ne_bytes());
    }
    let mut options = TestRunOptions::new();
    options.data_in = Some(&case.frame);
    options.data_out = Some(&mut out);
    options.ctx_in = Some(&context);
    let result = object
        .classifier(hook)?
        .test_run(options)
        .with_context(|| format!("{}: the kernel does not try it", case.name))?;
    out.truncate(result.data_size_out as usize);
    let verdict = verdict_between(before, counted(object)?)?;
    ensure!(verdict == case.verdict, "{}: {verdict:?}, not {:?}", case.name, case.verdict);
    ensure!(out == seen(case), "{}: other bytes came out", case.name);
    ensure!(result.return_value == GO_ON, "{}: returned {}", case.name, result.return_value);
    Ok(())
}

/// Popping and pushing leaves a frame's outer tag beside it, where `BPF_PROG_TEST_RUN` does not show
/// it; over a veth pair the whole frame is seen.
fn seen(case: &Case) -> Vec<u8> {
    let mut out = case.out.clone();
    let is_tagged = [[0x81, 0x00], [0x88, 0xa8]].iter().any(|tag| out[12..14] == *tag);
    if is_tagged && case.verdict == Some(Verdict::Fixed) {
        out.drain(12..16);
    }
    out
}
