//! Differential fuzzing: frames without end go through the program in the kernel and through a plain
//! reference, and the two must agree on the verdict, on every byte, and on what is reported.
//!
//! A [`generate::Generator`] makes [`trial`]s, each under one of the [`setting`]s; [`reference`] says
//! what must become of them, [`bench`] what the program in the kernel makes of them by [`test_run`],
//! and [`slices`] what the packet logic makes of them as an ordinary function. [`hunt`] compares, and
//! has a disagreement [`shrink`]ed. [`inputs`] is for libFuzzer, which makes up frames of its own.

pub mod bench;
pub mod build;
pub mod generate;
pub mod hunt;
pub mod inputs;
pub mod mutate;
pub mod reference;
pub mod report;
pub mod setting;
pub mod shrink;
pub mod slices;
pub mod test_run;
pub mod trial;
