//! The packet logic agrees with the reference, whatever the frame.

#![no_main]

use fixer_tests::fuzz::inputs;

libfuzzer_sys::fuzz_target!(|input: &[u8]| inputs::parse(input));
