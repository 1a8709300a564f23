//! Reads events out of the ring buffer.

use std::io;

use aya::maps::{MapData, RingBuf};
use bytes::Bytes;
use fixer_common::abi::map;
use tokio::io::{Interest, unix::AsyncFd};

use super::load::{LoadError, Object};

/// Waits for samples and takes them out.
pub struct Ring(AsyncFd<RingBuf<MapData>>);

impl Object {
    /// Takes the reading end of the events. Must be called on a tokio runtime, once.
    pub fn take_ring(&mut self) -> Result<Ring, LoadError> {
        let map = self.ebpf.take_map(map::EVENTS).ok_or(LoadError::Lacks(map::EVENTS))?;
        let ring = RingBuf::try_from(map).map_err(aya::EbpfError::from)?;
        // SAFETY: the map keeps its descriptor open, and the same, for as long as it lives.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }.map_err(
            |error| aya::EbpfError::from(aya::maps::MapError::from(io::Error::from(error))),
        )?;
        Ok(Ring(ring))
    }
}

impl Ring {
    /// Waits until there are samples, and hands over up to `most` of them.
    pub async fn read(&mut self, most: usize) -> io::Result<Vec<Bytes>> {
        loop {
            let mut ready = self.0.readable_mut().await?;
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
        drain(self.0.get_mut(), most)
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
