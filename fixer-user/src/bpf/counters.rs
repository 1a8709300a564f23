//! Reads the counters, summed over the CPUs.

use aya::{
    Pod,
    maps::{Map, MapData, MapError, PerCpuArray, PerCpuHashMap},
};
use fixer_common::{
    abi::{
        Hook,
        counter::{self, PLACES},
        map,
    },
    verdict::{TABLE, Verdict},
};

use super::{load::Object, remedy::errno};

#[derive(Clone, Copy)]
#[repr(transparent)]
struct Key(counter::Key);

// SAFETY: two 32-bit numbers without padding; every pattern of bits is a value.
unsafe impl Pod for Key {}

/// What was counted at one hook of one interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The interface's index.
    pub ifindex: u32,
    /// The hook.
    pub hook: Hook,
    counts: [u64; PLACES],
}

impl Row {
    /// Packets with this verdict.
    pub const fn count(&self, verdict: Verdict) -> u64 {
        self.counts[verdict as usize]
    }

    /// Adds what was counted under another index, for an interface that was made again.
    pub fn add(&mut self, other: &Self) {
        for (sum, count) in self.counts.iter_mut().zip(other.counts) {
            *sum += count;
        }
    }

    /// Every verdict with its number of packets, in the order of the table.
    pub fn counts(&self) -> impl Iterator<Item = (Verdict, u64)> + '_ {
        TABLE.iter().map(|row| (row.verdict, self.count(row.verdict)))
    }
}

/// What is in a map of counters, by interface and hook.
pub(super) fn rows(map: &Map) -> Result<Vec<Row>, MapError> {
    let map = PerCpuHashMap::<_, Key, [u64; PLACES]>::try_from(map)?;
    let mut rows = Vec::new();
    for entry in map.iter() {
        let (Key(key), values) = entry?;
        let Some(hook) = u8::try_from(key.hook).ok().and_then(Hook::from_number) else {
            continue;
        };
        let mut counts = [0; PLACES];
        for cpu in values.iter() {
            for (sum, count) in counts.iter_mut().zip(cpu) {
                *sum += count;
            }
        }
        rows.push(Row { ifindex: key.ifindex, hook, counts });
    }
    rows.sort_by_key(|row| (row.ifindex, row.hook));
    Ok(rows)
}

/// Removes what was counted at one hook of one interface. That nothing was is no error.
pub(super) fn forget(
    map: Result<MapData, MapError>,
    ifindex: u32,
    hook: Hook,
) -> Result<(), MapError> {
    let map = Map::PerCpuHashMap(map?);
    let mut map = PerCpuHashMap::<_, Key, [u64; PLACES]>::try_from(map)?;
    match map.remove(&Key(counter::Key { ifindex, hook: hook as u32 })) {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(error) if errno(&error) == Some(libc::ENOENT) => Ok(()),
        outcome => outcome,
    }
}

impl Object {
    /// The counters of every hook that saw a matching packet, by interface and hook.
    pub fn counters(&self) -> Result<Vec<Row>, MapError> {
        self.ebpf.map(map::COUNTERS).map_or_else(|| Ok(Vec::new()), rows)
    }

    /// How many events found the ring buffer full.
    pub fn lost(&self) -> Result<u64, MapError> {
        let Some(map) = self.ebpf.map(map::LOST) else {
            return Ok(0);
        };
        let map = PerCpuArray::<_, u64>::try_from(map)?;
        Ok(map.get(&0, 0)?.iter().sum())
    }
}
