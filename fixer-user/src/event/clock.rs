//! From the kernel's clock to the calendar.
//!
//! Events carry `CLOCK_MONOTONIC`, which counts from some moment near boot, stops while the machine
//! sleeps and ignores whoever sets the time. What the calendar said at its zero is therefore only
//! good for a while: a [`Clock`] is cheap to read, so read one for each batch of samples.

use std::{
    io,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

/// Translates nanoseconds of `CLOCK_MONOTONIC` to wall-clock time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// The wall-clock time when `CLOCK_MONOTONIC` was zero: nanoseconds since 1970.
    zero: i128,
}

/// How often the two clocks are compared. The closest comparison counts: a reader that is
/// interrupted between the two clocks would see them apart.
const COMPARISONS: usize = 4;

impl Clock {
    /// Compares the two clocks of this machine.
    pub fn read() -> io::Result<Self> {
        let mut best = Self::compare()?;
        for _ in 1..COMPARISONS {
            best = best.min(Self::compare()?);
        }
        let (_, zero) = best;
        Ok(Self { zero })
    }

    /// A clock that says `wall` when `CLOCK_MONOTONIC` is at `monotonic` nanoseconds.
    pub fn new(monotonic: u64, wall: Timestamp) -> Self {
        Self { zero: wall.as_nanosecond() - i128::from(monotonic) }
    }

    /// This moment on `CLOCK_MONOTONIC`.
    pub fn monotonic() -> io::Result<Duration> {
        let now = u64::try_from(monotonic()?).map_err(io::Error::other)?;
        Ok(Duration::from_nanos(now))
    }

    /// The wall-clock time of a moment in nanoseconds of `CLOCK_MONOTONIC`.
    ///
    /// A moment beyond what a [`Timestamp`] can tell is the last one it can.
    pub fn at(&self, monotonic: u64) -> Timestamp {
        let wall = self.zero + i128::from(monotonic);
        let last = if wall < 0 { Timestamp::MIN } else { Timestamp::MAX };
        Timestamp::from_nanosecond(wall).unwrap_or(last)
    }

    /// One comparison: how long it took, and the zero that it found, both in nanoseconds.
    fn compare() -> io::Result<(i128, i128)> {
        let before = monotonic()?;
        let wall = Timestamp::try_from(SystemTime::now()).map_err(io::Error::other)?;
        let after = monotonic()?;
        Ok((after - before, wall.as_nanosecond() - (before + after) / 2))
    }
}

fn monotonic() -> io::Result<i128> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(i128::from(now.tv_sec()) * 1_000_000_000 + i128::from(now.tv_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nanoseconds_are_kept() {
        let wall: Timestamp = "2026-11-21T10:15:53.000000001Z".parse().unwrap();
        let clock = Clock::new(5_000_000_000, wall);
        assert_eq!(clock.at(5_000_000_000), wall);
        assert_eq!(clock.at(5_015_772_000).to_string(), "2026-11-21T10:15:53.015772001Z");
        assert_eq!(clock.at(0).to_string(), "2026-11-21T10:15:48.000000001Z");
    }

    #[test]
    fn a_moment_beyond_the_calendar_is_the_last_one() {
        let clock = Clock::new(0, Timestamp::MAX);
        assert_eq!(clock.at(u64::MAX), Timestamp::MAX);
        let clock = Clock::new(u64::MAX, Timestamp::MIN);
        assert_eq!(clock.at(0), Timestamp::MIN);
    }

    #[test]
    fn this_machine_now_is_now() {
        let clock = Clock::read().unwrap();
        let now = clock.at(monotonic().unwrap().try_into().unwrap());
        let apart = now.duration_since(Timestamp::now()).abs();
        assert!(apart.as_secs() < 10, "{apart:?} apart");
    }
}
