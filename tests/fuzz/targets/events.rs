//! Whatever the kernel's sample or the message in it, it is shown or refused.

#![no_main]

use fixer_tests::fuzz::inputs;

libfuzzer_sys::fuzz_target!(|input: &[u8]| inputs::events(input));
