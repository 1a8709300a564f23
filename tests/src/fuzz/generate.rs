//! Trials without end, the same ones for the same seed.
//!
//! Most are packets that a rule asks for, with little wrong about them: a random frame almost never
//! gets past the first look.

use fastrand::Rng;
use fixer_common::abi::Hook;

use super::{
    build::{self, noise, pick},
    mutate::{damage, fill_checksum, lie},
    setting::SETTINGS,
    trial::{Kind, Trial},
};
use crate::cases::cases;

/// Makes trials.
pub struct Generator {
    rng: Rng,
    /// The frames of the table of cases, to be damaged, and to take bytes from.
    known: Vec<Vec<u8>>,
}

impl Generator {
    /// The generator with this seed.
    pub fn new(seed: u64) -> Self {
        let known = cases().into_iter().map(|case| case.frame).collect();
        Self { rng: Rng::with_seed(seed), known }
    }

    /// The next trial, with a frame of at most `longest` bytes.
    pub fn trial(&mut self, longest: usize) -> Trial {
        let rng = &mut self.rng;
        let setting = pick(rng, &SETTINGS);
        let mut frame = match rng.u8(..32) {
            0 => random(rng),
            1 | 2 => pick(rng, &self.known).clone(),
            _ => build::packet(rng, setting),
        };
        fill_checksum(rng, &mut frame);
        match rng.u8(..16) {
            0..8 => {}
            8..10 => lie(rng, &mut frame),
            10..13 => {
                for _ in 0..rng.usize(1..4) {
                    let other = pick(rng, &self.known);
                    damage(rng, &mut frame, other);
                }
            }
            13 => {
                lie(rng, &mut frame);
                fill_checksum(rng, &mut frame);
            }
            _ => {
                for _ in 0..rng.usize(1..4) {
                    let other = pick(rng, &self.known);
                    damage(rng, &mut frame, other);
                }
                fill_checksum(rng, &mut frame);
            }
        }
        frame.truncate(longest);
        let kind = match rng.u8(..16) {
            0 => Kind::Gso,
            1..4 => Kind::Summed,
            _ => Kind::Plain,
        };
        let hook = if rng.bool() { Hook::Egress } else { Hook::Ingress };
        Trial { setting, hook, kind, frame }
    }
}

/// Random bytes; some are told to be a packet.
fn random(rng: &mut Rng) -> Vec<u8> {
    let len = rng.usize(14..200);
    let mut frame = noise(rng, len);
    if rng.bool() {
        let ether_type: [u8; 2] = *pick(rng, &[[8, 0], [0x86, 0xdd], [0x81, 0], [0x88, 0xa8]]);
        frame[12..14].copy_from_slice(&ether_type);
        if let Some(version) = frame.get_mut(14) {
            *version = *pick(rng, &[0x45, 0x46, 0x4f, 0x60, 0]);
        }
    }
    frame
}
