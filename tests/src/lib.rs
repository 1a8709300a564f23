//! What the suites share: the one table of cases, the frames in it, and scratch receivers.
//!
//! The table in [`cases`] is run three ways: on slices, in the kernel by `BPF_PROG_TEST_RUN`, and over
//! a real veth pair. The suites that talk to the kernel need root, and say so when they lack it.

pub mod bpf;
pub mod cases;
pub mod client;
pub mod command;
pub mod dashboard;
pub mod faults;
pub mod frames;
pub mod fuzz;
pub mod http;
pub mod kernel;
pub mod kubernetes;
pub mod leases;
pub mod machine;
pub mod mounts;
pub mod prometheus;
pub mod pxe;
pub mod receiver;
pub mod scenario;
pub mod slice;
pub mod soak;
pub mod tap;
pub mod terminal;
pub mod tshark;
pub mod walk;
pub mod ways;
