//! Reads the counters, summed over the CPUs.

use aya::{
    Pod,
    maps::{Map, MapData, MapError, PerCpuArray, PerCpuHashMap, PerCpuValues},
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

/// Which of the programs that replaced each other counted: every one has maps of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(u64);

impl Generation {
    /// The programs that were there first.
    pub const FIRST: Self = Self(0);

    /// The programs that replace these.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

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

    /// A row with these counts.
    pub fn of(ifindex: u32, hook: Hook, given: &[(Verdict, u64)]) -> Self {
        let mut counts = [0; PLACES];
        for (verdict, count) in given {
            counts[*verdict as usize] = *count;
        }
        Self { ifindex, hook, counts }
    }

    /// Adds what was counted elsewhere.
    pub fn add(&mut self, other: &Self) {
        for (sum, count) in self.counts.iter_mut().zip(other.counts) {
            *sum += count;
        }
    }

    /// Of each verdict the higher count of the two.
    pub fn raise(&mut self, other: &Self) {
        for (most, count) in self.counts.iter_mut().zip(other.counts) {
            *most = (*most).max(count);
        }
    }

    /// What was counted after an earlier look at the same hook.
    pub fn since(mut self, earlier: &Self) -> Self {
        for (count, before) in self.counts.iter_mut().zip(earlier.counts) {
            *count = count.saturating_sub(before);
        }
        self
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.counts.iter().all(|count| *count == 0)
    }

    /// Every verdict with its number of packets, in the order of the table.
    pub fn counts(&self) -> impl Iterator<Item = (Verdict, u64)> + '_ {
        TABLE.iter().map(|row| (row.verdict, self.count(row.verdict)))
    }
}

/// A map of counters that other programs count in, kept open.
pub struct Counters(Map);

impl Counters {
    /// The map with this id.
    pub fn open(id: u32) -> Result<Self, MapError> {
        MapData::from_id(id).map(|map| Self(Map::PerCpuHashMap(map)))
    }

    /// What is in it, by interface and hook.
    pub fn rows(&self) -> Result<Vec<Row>, MapError> {
        rows(&self.0)
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
        rows.push(Row { ifindex: key.ifindex, hook, counts: sum(&values) });
    }
    rows.sort_by_key(|row| (row.ifindex, row.hook));
    Ok(rows)
}

fn sum(values: &PerCpuValues<[u64; PLACES]>) -> [u64; PLACES] {
    let mut counts = [0; PLACES];
    for cpu in values.iter() {
        for (sum, count) in counts.iter_mut().zip(cpu) {
            *sum += count;
        }
    }
    counts
}

/// Removes what was counted at one hook of one interface. That nothing was is no error.
pub(super) fn forget(
    map: Result<MapData, MapError>,
    ifindex: u32,
    hook: Hook,
) -> Result<(), MapError> {
    let map = Map::PerCpuHashMap(map?);
    let mut map = PerCpuHashMap::<_, Key, [u64; PLACES]>::try_from(map)?;
    found(map.remove(&key(ifindex, hook))).map(|_| ())
}

const fn key(ifindex: u32, hook: Hook) -> Key {
    Key(counter::Key { ifindex, hook: hook as u32 })
}

/// That there is no entry is no error.
fn found<T>(outcome: Result<T, MapError>) -> Result<Option<T>, MapError> {
    match outcome {
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) if errno(&error) == Some(libc::ENOENT) => Ok(None),
        outcome => outcome.map(Some),
    }
}

impl Object {
    /// The counters of every hook that saw a matching packet, by interface and hook.
    pub fn counters(&self) -> Result<Vec<Row>, MapError> {
        self.ebpf.map(map::COUNTERS).map_or_else(|| Ok(Vec::new()), rows)
    }

    /// What was counted at one hook, if anything was.
    pub fn counted(&self, ifindex: u32, hook: Hook) -> Result<Option<Row>, MapError> {
        let Some(map) = self.ebpf.map(map::COUNTERS) else {
            return Ok(None);
        };
        let map = PerCpuHashMap::<_, Key, [u64; PLACES]>::try_from(map)?;
        let values = found(map.get(&key(ifindex, hook), 0))?;
        Ok(values.map(|values| Row { ifindex, hook, counts: sum(&values) }))
    }

    /// Takes what was counted at one hook out of the map, to which nothing is added any more.
    pub fn take_counted(&mut self, ifindex: u32, hook: Hook) -> Result<Option<Row>, MapError> {
        let row = self.counted(ifindex, hook)?;
        if let (Some(_), Some(map)) = (&row, self.ebpf.map_mut(map::COUNTERS)) {
            let mut map = PerCpuHashMap::<_, Key, [u64; PLACES]>::try_from(map)?;
            found(map.remove(&key(ifindex, hook)))?;
        }
        Ok(row)
    }

    /// How many events found the ring buffer full.
    pub fn lost(&self) -> Result<u64, MapError> {
        if let Some(losses) = &self.losses {
            return losses.count();
        }
        let Some(map) = self.ebpf.map(map::LOST) else {
            return Ok(0);
        };
        let map = PerCpuArray::<_, u64>::try_from(map)?;
        Ok(map.get(&0, 0)?.iter().sum())
    }
}
