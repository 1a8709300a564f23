//! Counts the instructions that a packet takes from the server's system call to the guest's interface.
//!
//! It is run in a machine that QEMU emulates with `-icount shift=0`: there the clock goes up by a
//! nanosecond with each instruction. So what is counted is the same on every machine, whatever else
//! runs on it. On a single processor a veth pair hands a frame over within the system call that sent
//! it: its way through the guest's stack, up to where it is thrown away, is part of the count.

use std::{io, time::Instant};

use anyhow::{Result, ensure};

use crate::{
    figure,
    packets::{self, KINDS, Sender},
    ways::WAYS,
};

/// Packets that are sent before counting begins, so that every cache is as full as it will be.
const FIRST: usize = 100;

/// Packets that are counted. Of their counts the median is taken: now and then the timer's interrupt
/// comes in between.
const COUNTED: usize = 1001;

/// Counts every kind of packet on every way, as often as asked for, in turn.
pub fn run(rounds: usize) -> Result<()> {
    // The first round only warms up: some parts of the kernel stay switched on once they were used.
    for round in 0..=rounds {
        for way in WAYS {
            let scene = packets::scene()?;
            let _in_place = way.set_up(&scene)?;
            ensure!(
                packets::reply_arrives_finished(&scene)? == way.finishes,
                "'{}' is not in place: it {} the sum of a reply",
                way.name,
                if way.finishes { "does not finish" } else { "finishes" }
            );
            for kind in KINDS {
                let count = count(&kind.open(&scene)?)?;
                if round > 0 {
                    figure(&["exact", way.name, kind.name], count);
                }
            }
        }
    }
    Ok(())
}

fn count(send: &Sender) -> io::Result<u128> {
    for _ in 0..FIRST {
        send()?;
    }
    let mut counts = Vec::with_capacity(COUNTED);
    for _ in 0..COUNTED {
        let start = Instant::now();
        send()?;
        counts.push(start.elapsed().as_nanos());
    }
    counts.sort_unstable();
    Ok(counts[COUNTED / 2])
}
