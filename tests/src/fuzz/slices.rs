//! The packet logic as an ordinary function, and what it makes of a trial.

use fixer_common::{
    decide::{Decision, decide},
    triage::{may_match, still_may_match},
    verdict::Verdict,
};

use super::{
    reference::{Answer, Checksum},
    trial::{Kind, Trial},
};
use crate::slice::Slice;

/// How the logic and the reference differ, if they do.
pub fn difference(trial: &Trial) -> Option<String> {
    let rules = trial.setting.program_rules();
    let slice = Slice { bytes: &trial.frame, gso: trial.kind == Kind::Gso };
    let decision = decide(&slice, &rules[..]);
    let is_let_in = may_match(&slice, &rules[..]) && still_may_match(&slice, &rules[..]);
    if decision.is_some() && !is_let_in {
        return Some("triage turns away what a rule asks for".to_owned());
    }
    let wanted = Answer { tags: 0, ..trial.answer() };
    let made = made(trial, decision);
    (made != wanted).then(|| format!("on slices: {}\nreference: {}", said(&made), said(&wanted)))
}

fn said(answer: &Answer) -> String {
    let Answer { verdict, frame, checksum, .. } = answer;
    format!("{verdict:?} {checksum:?} {}", hex::encode(frame))
}

fn made(trial: &Trial, decision: Option<Decision>) -> Answer {
    let mut frame = trial.frame.clone();
    let (verdict, field) = match decision {
        None => return Answer { verdict: None, frame, tags: 0, checksum: None },
        Some(Decision::Leave(verdict, field)) => (verdict, field),
        Some(Decision::Fix(_, field)) if trial.setting.observe_only => (Verdict::Partial, field),
        Some(Decision::Fix(_, field)) => {
            let at = field.at as usize;
            frame[at..at + 2].copy_from_slice(&field.expected.to_be_bytes());
            (Verdict::Fixed, field)
        }
    };
    let checksum = (field.at != 0).then_some(Checksum {
        at: field.at as usize,
        stored: field.stored,
        right: (field.expected != 0).then_some(field.expected),
    });
    Answer { verdict: Some(verdict.name()), frame, tags: 0, checksum }
}
