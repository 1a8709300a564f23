//! The eBPF object at work: loaded, attached, read. The only place that speaks aya.

pub mod attach;
pub mod baked;
pub mod counters;
pub mod gone;
pub mod halfway;
pub mod load;
pub mod pin;
mod places;
mod query;
mod raw;
pub mod remedy;
pub mod resident;
pub mod ring;
mod standing;

/// The compiled object that `fixer` carries, built from the crate `fixer-ebpf`.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("FIXER_BPF_OBJECT"));
