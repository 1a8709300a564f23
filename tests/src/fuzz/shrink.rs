//! Makes a trial smaller for as long as it stays interesting.

use super::trial::{Kind, Trial};

/// The smallest trial that was found by cutting the frame's end, taking bytes out of it, and clearing
/// them. `interesting` is asked about each.
pub fn shrink(mut trial: Trial, mut interesting: impl FnMut(&Trial) -> bool) -> Trial {
    let mut attempt = |trial: &mut Trial, change: &mut dyn FnMut(&mut Trial)| {
        let mut smaller = trial.clone();
        change(&mut smaller);
        let better = size(&smaller) < size(trial) && interesting(&smaller);
        if better {
            *trial = smaller;
        }
        better
    };
    loop {
        let mut progress = attempt(&mut trial, &mut |trial| trial.kind = Kind::Plain);
        let mut piece = trial.frame.len().next_power_of_two();
        while piece > 0 {
            // From the end on, so that what is cut does not move what is still to come.
            for start in (0..trial.frame.len()).step_by(piece).collect::<Vec<_>>().into_iter().rev()
            {
                let range = |trial: &Trial| start..(start + piece).min(trial.frame.len());
                progress |= attempt(&mut trial, &mut |trial| drop(trial.frame.drain(range(trial))));
                progress |= attempt(&mut trial, &mut |trial| {
                    let range = range(trial);
                    trial.frame[range].fill(0);
                });
            }
            piece /= 2;
        }
        if !progress {
            return trial;
        }
    }
}

/// What is made smaller: the length first, then what is not 0, then what is special.
fn size(trial: &Trial) -> (usize, usize, bool) {
    let set = trial.frame.iter().filter(|byte| **byte != 0).count();
    (trial.frame.len(), set, trial.kind != Kind::Plain)
}

#[cfg(test)]
mod tests {
    use fixer_common::abi::Hook;

    use super::*;
    use crate::fuzz::setting::SETTINGS;

    #[test]
    fn only_what_matters_is_left() {
        let frame = (1..=200).collect();
        let setting = &SETTINGS[0];
        let trial = Trial { setting, hook: Hook::Egress, kind: Kind::Gso, frame };
        let smallest = shrink(trial, |trial| trial.frame.contains(&77) && trial.frame.len() > 3);
        assert_eq!(smallest.frame.len(), 4);
        assert_eq!(smallest.frame.iter().map(|byte| u32::from(*byte)).sum::<u32>(), 77);
        assert_eq!(smallest.kind, Kind::Plain);
    }
}
