//! The loader and observer behind the `fixer` command.
//!
//! [`bpf`] puts the programs into the kernel, [`net`] finds the interfaces, a [`site`] brings the two
//! together for one namespace, and a [`session`] keeps sites alive. A [`stream`] carries samples from the kernel to the [`sink`]s, which
//! show them as [`event`]s; an [`exchange`] is what the events of a client and its servers make
//! together, and a [`share`] hands the same samples to others; [`metrics`] exports the counters;
//! [`cmd`] has one file for each verb.
//! [`top`] is the live view. [`lab`] makes the scratch networks in which the [`proof`] and the demo play; the [`doctor`] only
//! looks.

pub mod bpf;
pub mod cli;
pub mod cmd;
pub mod config;
pub mod doctor;
pub mod event;
pub mod exchange;
pub mod hurry;
pub mod lab;
pub mod metrics;
pub mod names;
pub mod net;
pub mod privileges;
pub mod proof;
pub mod say;
pub mod service;
pub mod session;
pub mod share;
pub mod signals;
pub mod sink;
pub mod site;
pub mod stream;
pub mod summary;
pub mod tally;
pub mod top;
pub mod watch;
