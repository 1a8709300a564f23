//! Every map. `fixer_common::abi::map` says what each is for.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, PerCpuArray, PerCpuHashMap, RingBuf},
};
use fixer_common::abi::counter::{Key, Values};

/// Interfaces and hooks that can be counted at once. Memory is taken only as they appear.
const MOST_COUNTED: u32 = 16384;

/// Room for events that wait for their reader, in bytes.
const EVENT_ROOM: u32 = 1 << 20;

#[map]
pub static COUNTERS: PerCpuHashMap<Key, Values> =
    PerCpuHashMap::with_max_entries(MOST_COUNTED, BPF_F_NO_PREALLOC);

#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(EVENT_ROOM, 0);

#[map]
pub static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

#[map]
pub static WANTED: Array<u32> = Array::with_max_entries(1, 0);
