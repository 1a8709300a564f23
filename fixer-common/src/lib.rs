//! What fixer knows about packets without a kernel.
//!
//! A packet walks through these modules in order: it is seen as a [`frame`], [`triage`] throws out
//! almost everything in a few header tests, [`parse`] finds the datagram that a [`rule`] asks for,
//! and [`decide`] compares its [`checksum`] with the one it carries and gives a [`verdict`].
//! [`abi`] is what the eBPF programs and userspace say to each other.
//!
//! The same code runs on slices in unit tests and on packets in the kernel, so it must stay within
//! what the BPF verifier can follow: no allocation, no recursion, no unbounded loop, no panic.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod abi;
pub mod checksum;
pub mod decide;
pub mod frame;
pub mod parse;
pub mod rule;
pub mod triage;
pub mod verdict;
pub mod wire;
