//! Reads events out of the ring buffer, and chooses which there are.

use std::{io, sync::Arc};

use aya::maps::{Array, Map, MapData, MapError, PerCpuArray, RingBuf};
use bytes::Bytes;
use fixer_common::abi::map;
use tokio::io::{Interest, unix::AsyncFd};

use super::load::{LoadError, Object};

/// Waits for samples and takes them out.
pub struct Ring {
    samples: AsyncFd<RingBuf<MapData>>,
    losses: Arc<Losses>,
    /// How many events were lost before it had a reader.
    before: u64,
}

impl Object {
    /// Takes the reading end of the events. Must be called on a tokio runtime, once.
    pub fn take_ring(&mut self) -> Result<Ring, LoadError> {
        let losses = self.ebpf.take_map(map::LOST).ok_or(LoadError::Lacks(map::LOST))?;
        let losses = PerCpuArray::try_from(losses).map_err(aya::EbpfError::from)?;
        let losses = Arc::clone(self.losses.insert(Arc::new(Losses(losses))));
        let map = self.ebpf.take_map(map::EVENTS).ok_or(LoadError::Lacks(map::EVENTS))?;
        Ok(Ring::new(map, losses).map_err(aya::EbpfError::from)?)
    }

    /// Takes the choice of the verdicts that make an event, once.
    pub fn take_wanted(&mut self) -> Result<Wanted, LoadError> {
        let map = self.ebpf.take_map(map::WANTED).ok_or(LoadError::Lacks(map::WANTED))?;
        Ok(Array::try_from(map).map(Wanted).map_err(aya::EbpfError::from)?)
    }
}

/// The verdicts that make an event.
pub struct Wanted(Array<MapData, u32>);

impl Wanted {
    /// Chooses them, as a set of bits.
    pub fn set(&mut self, verdicts: u32) -> Result<(), MapError> {
        self.0.set(0, verdicts, 0)
    }
}

/// The maps that events take their way through, by their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Maps {
    /// The ring buffer.
    pub events: u32,
    /// The verdicts that make an event.
    pub wanted: u32,
    /// The events that found no room.
    pub lost: u32,
}

impl Maps {
    /// Opens them. Must be called on a tokio runtime, and by one process at a time reads from the ring.
    pub fn open(&self) -> Result<(Ring, Wanted), MapError> {
        let losses = PerCpuArray::try_from(Map::PerCpuArray(MapData::from_id(self.lost)?))?;
        let events = Map::RingBuf(MapData::from_id(self.events)?);
        let mut ring = Ring::new(events, Arc::new(Losses(losses)))?;
        ring.before = ring.lost()?;
        let wanted = Array::try_from(Map::Array(MapData::from_id(self.wanted)?))?;
        Ok((ring, Wanted(wanted)))
    }
}

/// How many events found the ring buffer full.
pub(super) struct Losses(PerCpuArray<MapData, u64>);

impl Losses {
    /// Since the map was made.
    pub(super) fn count(&self) -> Result<u64, MapError> {
        Ok(self.0.get(&0, 0)?.iter().sum())
    }
}

impl Ring {
    fn new(samples: Map, losses: Arc<Losses>) -> Result<Self, MapError> {
        let samples = RingBuf::try_from(samples)?;
        // SAFETY: the map keeps its descriptor open, and the same, for as long as it lives.
        let samples = unsafe { AsyncFd::register_with_interest(samples, Interest::READABLE) };
        Ok(Self { samples: samples.map_err(io::Error::from)?, losses, before: 0 })
    }

    /// How many events found it full: since it was made, or of pinned maps since they were opened.
    pub fn lost(&self) -> Result<u64, MapError> {
        Ok(self.losses.count()? - self.before)
    }

    /// Waits until there are samples, and hands over up to `most` of them.
    pub async fn read(&mut self, most: usize) -> io::Result<Vec<Bytes>> {
        loop {
            let mut ready = self.samples.readable_mut().await?;
            let samples = drain(ready.get_inner_mut(), most);
            if samples.len() < most {
                ready.clear_ready();
            }
            if !samples.is_empty() {
                return Ok(samples);
            }
        }
    }

    /// Hands over what is there now, up to `most` samples.
    pub fn drain(&mut self, most: usize) -> Vec<Bytes> {
        drain(self.samples.get_mut(), most)
    }
}

fn drain(ring: &mut RingBuf<MapData>, most: usize) -> Vec<Bytes> {
    let mut samples = Vec::new();
    while samples.len() < most {
        let Some(sample) = ring.next() else { break };
        samples.push(Bytes::copy_from_slice(&sample));
    }
    samples
}
