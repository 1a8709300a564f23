//! `fixer serve-events`: reads the ring buffer of pinned maps for everyone who watches. `fixer watch`
//! starts it, with its name in the namespace on standard input, and it ends with the last watcher.

use std::{io, os::fd::AsFd as _, time::Duration};

use anyhow::{Context as _, Result};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Outcome;
use crate::{
    bpf::ring::Maps,
    cli::ServeEvents,
    exchange::Ledger,
    privileges::{self, Act},
    share::{Listener, Share},
    signals::{Request, Signals},
    stream::{Horizon, Read, Reading},
};

/// How often losses are told.
const TICK: Duration = Duration::from_secs(1);

/// How long the first watcher may take to come.
const PATIENCE: Duration = Duration::from_secs(5);

/// Serves until the last watcher has gone.
pub fn run(args: &ServeEvents) -> Result<Outcome> {
    let listener = Listener::from(io::stdin().as_fd().try_clone_to_owned()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(args, listener)).map(|()| Outcome::Done)
}

async fn serve(args: &ServeEvents, listener: Listener) -> Result<()> {
    let maps = Maps { events: args.events, wanted: args.wanted, lost: args.lost };
    let mut signals = Signals::new(Request::End)?;
    let (ring, wanted) = maps.open().context("cannot open the maps")?;
    privileges::keep(&[Act::Read, Act::Attach], None).context("cannot give up privileges")?;
    let share = Share::new(wanted, 0, Ledger::default());
    // When it goes, nobody wants events any more, and the programs make none.
    let _door = share.open(listener)?;
    let mut reading = Reading::new(ring, Horizon::default());
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // What waits in the ring buffer, where another server was killed, is for who comes first.
    if timeout(PATIENCE, share.until_watched(true)).await.is_err() {
        return Ok(());
    }
    let mut alone = std::pin::pin!(share.until_watched(false));
    loop {
        tokio::select! {
            read = reading.next() => for read in read? {
                match read {
                    Read::Samples(samples) => drop(share.hand_out(samples)),
                    Read::Gap(lost) => share.lose(lost),
                    Read::Doubt(_) | Read::Everything(_) => {}
                }
            },
            _ = tick.tick() => share.tick(),
            () = &mut alone => return Ok(()),
            _ = signals.any() => return Ok(()),
        }
    }
}
