//! The life of `fixer watch`: what others hand out is shown, and nothing is changed.

mod counted;
mod view;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use fixer_common::abi::Hook;
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use self::{counted::Counted, view::View};
use crate::{
    bpf::{pin::Pins, resident::Resident},
    event::Clock,
    metrics::Snapshot,
    net::{
        links::{self, Changes},
        netns::NetNs,
        select::Selection,
    },
    say::say,
    session::Ended,
    share::{Connection, Feed, Feeder, Received, Wish},
    signals::Signals,
    site::place,
    stream::{PATIENCE, Source, Writer},
};

/// How often it is looked whether what is watched is still there, and what it has counted.
const TICK: Duration = Duration::from_secs(1);

/// What was found in a namespace.
pub struct Ground {
    /// The namespace.
    pub netns: NetNs,
    /// The place of its pins, if something of that is watched.
    pub pins: Option<Pins>,
    /// Which interfaces to show; `None`: all.
    pub selection: Option<Selection>,
    /// Which hooks to show.
    pub hooks: &'static [Hook],
    /// What is attached there, of that.
    pub residents: Vec<Resident>,
    /// Who hands out its events.
    pub feeds: Vec<Feed>,
}

/// Everything that is watched.
pub struct Watch(Vec<Place>);

/// A namespace that is watched.
struct Place {
    ground: Ground,
    view: View,
    changes: Option<Changes>,
    streams: Vec<(Feeder, Connection)>,
    counted: Counted,
    /// When to look for programs that have replaced others.
    next_look: Instant,
    /// Events that were not handed over.
    lost: Arc<AtomicU64>,
    source: Source,
}

impl Watch {
    /// Connects to whoever hands out these verdicts' events. Must be called on a tokio runtime.
    pub async fn begin(grounds: Vec<Ground>, verdicts: u32) -> Result<Self> {
        let mut places = Vec::new();
        for ground in grounds {
            let (links, changes) = links::follow(&ground.netns)
                .await
                .with_context(|| format!("cannot follow the interfaces of '{}'", ground.netns))?;
            let view = View::new(ground.selection.clone(), ground.hooks, links)?;
            let counted = Counted::begin(&ground.residents);
            let mut streams = Vec::new();
            for feed in &ground.feeds {
                let mut feeder = Feeder::new(ground.netns.clone(), *feed, Wish::of(verdicts));
                let connection = feeder.connect().await.with_context(|| cannot(&feeder))?;
                streams.push((feeder, connection));
            }
            let (changes, lost) = (Some(changes), Arc::default());
            let next_look = Instant::now();
            let source = Source::new(Arc::clone(ground.netns.label()), view.names.clone());
            places.push(Place { ground, view, changes, streams, counted, next_look, lost, source });
        }
        Ok(Self(places))
    }

    /// Says what is watched.
    pub fn tell(&self) {
        for Place { ground, .. } in &self.0 {
            for there in &ground.residents {
                let (hook, place) = (there.hook.name(), place(&ground.netns, &there.interface));
                say(format_args!("watching {hook} of {place}, held by {}", there.holder));
            }
        }
    }

    /// Shows events until it is time to end. Says how the writer ended; `None`: it is stuck, because
    /// nobody empties the pipe that it writes to.
    pub async fn live(
        &mut self,
        writer: Writer,
        mut end: oneshot::Receiver<Ended>,
        signals: &mut Signals,
    ) -> Result<Option<Ended>> {
        let (stop, stopped) = watch::channel(());
        let (mut streams, mut names) = (JoinSet::new(), JoinSet::new());
        for place in &mut self.0 {
            if let Some(changes) = place.changes.take() {
                names.spawn(place.view.clone().follow(changes));
            }
            for (feeder, connection) in place.streams.drain(..) {
                let stream = Stream {
                    feeder,
                    pins: place.ground.pins.clone(),
                    view: place.view.clone(),
                    source: place.source.clone(),
                    writer: writer.clone(),
                    lost: Arc::clone(&place.lost),
                };
                streams.spawn(stream.follow(connection, stopped.clone()));
            }
        }
        drop(stopped);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let outcome = loop {
            tokio::select! {
                _ = signals.any() => break Ok(()),
                ended = &mut end => return Ok(Some(ended.unwrap_or(Ok(())))),
                _ = tick.tick() => {
                    self.0.iter_mut().for_each(Place::look);
                    writer.tick(Clock::monotonic()?);
                }
                ended = streams.join_next() => match ended {
                    Some(outcome) => if let Err(error) = outcome? { break Err(error) },
                    None => {
                        say("nothing that was watched is attached any more; that is all");
                        break Ok(());
                    }
                },
            }
        };
        drop((stop, writer));
        // What came before still belongs to the stream.
        let _ = timeout(PATIENCE, async { while streams.join_next().await.is_some() {} }).await;
        streams.abort_all();
        while streams.join_next().await.is_some() {}
        let ended = timeout(PATIENCE, end).await.ok().map(|ended| ended.unwrap_or(Ok(())));
        if ended.is_none() {
            self.0.iter().for_each(|place| place.source.unshown.give_up());
        }
        outcome.map(|()| ended)
    }

    /// What was counted since it began, by namespace.
    pub fn snapshots(&mut self) -> Vec<Snapshot> {
        self.0.iter_mut().map(Place::snapshot).collect()
    }
}

impl Place {
    /// Reads what was counted, and now and then looks for programs that have replaced others.
    fn look(&mut self) {
        let began = Instant::now();
        if began >= self.next_look {
            // Whoever is not seen now may be seen the next time.
            let _ = self.counted.find_new(&self.ground);
            // Many interfaces take a while.
            self.next_look = began + began.elapsed() * 20;
        }
        self.counted.look();
    }

    fn snapshot(&mut self) -> Snapshot {
        let Self { ground, view, counted, lost, source, .. } = self;
        // That what is attached now cannot be found is no reason not to say what was.
        let _ = counted.find_new(ground);
        counted.look();
        let rows = counted.rows(&view.shown).filter(|row| view.is_shown(row.ifindex, row.hook));
        Snapshot {
            netns: Arc::clone(ground.netns.label()),
            counters: rows.map(|row| (view.names.get(row.ifindex), row)).collect(),
            lost: lost.load(Ordering::Relaxed) + source.unshown.dropped(),
            attached: Vec::new(),
            missing: Vec::new(),
            lacking: Vec::new(),
        }
    }
}

/// A connection on its way to the sinks.
struct Stream {
    feeder: Feeder,
    pins: Option<Pins>,
    view: View,
    source: Source,
    writer: Writer,
    lost: Arc<AtomicU64>,
}

impl Stream {
    /// Shows what is handed out, until it is told to stop or there will be no more.
    async fn follow(
        mut self,
        mut connection: Connection,
        mut stop: watch::Receiver<()>,
    ) -> Result<()> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let received = tokio::select! {
                received = connection.read() => received,
                _ = stop.changed() => return self.finish(connection).await,
                _ = tick.tick() => {
                    if self.is_there() {
                        continue;
                    }
                    return self.finish(connection).await;
                }
            };
            let is_over = received.is_over;
            if !self.show(received).await {
                return Ok(());
            }
            if is_over {
                if matches!(self.feeder.feed(), Feed::Run(_)) || !self.is_there() {
                    return Ok(());
                }
                let again = self.feeder.connect().await;
                connection = again.with_context(|| cannot(&self.feeder))?;
            }
        }
    }

    /// Whether what was pinned is still attached. A run says itself when it ends.
    fn is_there(&self) -> bool {
        match (self.feeder.feed(), &self.pins) {
            (Feed::Pins(maps), Some(pins)) => pins.event_maps().is_ok_and(|now| now == maps),
            _ => true,
        }
    }

    /// Shows what has come already.
    async fn finish(&self, mut connection: Connection) -> Result<()> {
        loop {
            let received = connection.read_now();
            let is_last = received.is_over || (received.samples.is_empty() && received.lost == 0);
            if !self.show(received).await || is_last {
                return Ok(());
            }
        }
    }

    /// Says whether there is still somebody to show it to.
    async fn show(&self, Received { mut samples, lost, .. }: Received) -> bool {
        samples.retain(|sample| self.view.shows(sample));
        self.lost.fetch_add(lost, Ordering::Relaxed);
        self.writer.show(&self.source, samples).await && self.writer.miss(&self.source, lost).await
    }
}

fn cannot(feeder: &Feeder) -> String {
    match feeder.feed() {
        Feed::Run(pid) => format!(
            "cannot watch the `fixer run` with process id {pid} (its own output has the events too)"
        ),
        Feed::Pins(_) => "cannot watch what `fixer attach` left".to_owned(),
    }
}
