//! The life of `fixer run`: interfaces come and go, events flow, somebody asks for metrics.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use futures_util::stream::{BoxStream, SelectAll, StreamExt as _};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    metrics,
    net::links::{Change, Link},
    say::say,
    signals::Signals,
    sink::SinkError,
    site::{Site, SiteError, place},
    stream::{PATIENCE, Source, Writer},
};

/// How often losses are told and the programs' log lines passed on.
const TICK: Duration = Duration::from_secs(1);

/// How the writer of the events ended.
pub type Ended = Result<(), SinkError>;

/// Everything that runs, and in the end is undone.
pub struct Session {
    sites: Vec<Site>,
    /// What happens to interfaces, with the number of the site.
    changes: SelectAll<BoxStream<'static, (usize, Change)>>,
    writer: Option<Writer>,
    end: oneshot::Receiver<Ended>,
    sources: Vec<Source>,
    /// Losses that the stream has told, by site.
    told: Vec<u64>,
    readers: Vec<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Session {
    /// Starts to read the sites' events. Nothing is attached yet.
    pub fn new(
        mut sites: Vec<Site>,
        changes: SelectAll<BoxStream<'static, (usize, Change)>>,
        (writer, end): (Writer, oneshot::Receiver<Ended>),
    ) -> Result<Self> {
        let (mut sources, mut readers) = (Vec::new(), Vec::new());
        for site in &mut sites {
            let source =
                Source { netns: Arc::clone(site.netns.label()), names: site.names.clone() };
            let (stop, stopped) = oneshot::channel();
            let ring = site.object.take_ring()?;
            let reader = tokio::spawn(writer.clone().follow(ring, source.clone(), stopped));
            sources.push(source);
            readers.push((stop, reader));
        }
        let told = vec![0; sites.len()];
        Ok(Self { sites, changes, writer: Some(writer), end, sources, told, readers })
    }

    /// Attaches, and serves until it is time to end. If the writer ended first, says how.
    pub async fn live(
        &mut self,
        found: Vec<Vec<Link>>,
        listener: Option<TcpListener>,
        signals: &mut Signals,
    ) -> Result<Option<Ended>> {
        for (number, links) in found.into_iter().enumerate() {
            for link in links {
                self.take(number, &link)?;
            }
            let site = &self.sites[number];
            if site.attachments().next().is_none() {
                say(format_args!("no interface of '{}' is selected yet; waiting", site.netns));
            }
        }
        let (ask, mut asked) = mpsc::channel(16);
        let mut server = std::pin::pin!(serve(listener, ask));
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = signals.any() => return Ok(None),
                ended = &mut self.end => return Ok(Some(ended.unwrap_or(Ok(())))),
                Some((number, change)) = self.changes.next() => self.change(number, change),
                Some(answer) = asked.recv() => {
                    // Whoever asked may have gone away.
                    let _ = answer.send(self.sites.iter().map(Site::snapshot).collect());
                }
                _ = tick.tick() => self.tick(),
                outcome = &mut server => outcome.context("cannot serve metrics any more")?,
            }
        }
    }

    fn take(&mut self, number: usize, link: &Link) -> Result<(), SiteError> {
        let site = &mut self.sites[number];
        if let Some(mode) = site.take(link)? {
            let hooks: Vec<_> = site
                .attachments()
                .filter(|(ifindex, ..)| *ifindex == link.ifindex)
                .map(|(_, hook, _)| hook.name())
                .collect();
            let place = place(&site.netns, &link.name);
            say(format_args!("attached to {} of {place} ({mode})", hooks.join(" and ")));
        }
        Ok(())
    }

    /// An interface that came later and cannot be taken is no reason to leave the others alone.
    fn change(&mut self, number: usize, change: Change) {
        match change {
            Change::Present(link) => {
                if let Err(error) = self.take(number, &link) {
                    say(error);
                }
            }
            Change::Gone(ifindex) => {
                let site = &mut self.sites[number];
                let name = site.names.get(ifindex);
                if site.forget(ifindex) {
                    say(format_args!("{} is gone", place(&site.netns, &name)));
                }
            }
        }
    }

    fn tick(&mut self) {
        for (number, site) in self.sites.iter_mut().enumerate() {
            site.object.flush_log();
            let lost = site.object.lost().unwrap_or_default();
            let new = lost - self.told[number];
            let told = |writer: &Writer| writer.lose(&self.sources[number], new);
            if new > 0 && self.writer.as_ref().is_some_and(told) {
                self.told[number] = lost;
            }
        }
    }

    /// The sites, for a last look at their counters.
    pub fn sites(&self) -> &[Site] {
        &self.sites
    }

    /// Detaches from everything, and lets the readers empty the ring buffers.
    pub async fn close(&mut self) -> Result<()> {
        let outcomes: Vec<_> = self.sites.iter_mut().map(Site::close).collect();
        for (stop, reader) in self.readers.drain(..) {
            let _ = stop.send(());
            // A reader that waits for a writer that is stuck would wait for ever.
            let _ = timeout(PATIENCE, reader).await;
        }
        self.tick();
        outcomes.into_iter().collect::<Result<(), _>>().map_err(Into::into)
    }

    /// Lets the writer finish what it has, and waits for it. `None`: it is stuck, because nobody
    /// empties the pipe that it writes to.
    pub async fn finish(&mut self) -> Option<Ended> {
        self.writer = None;
        let ended = timeout(PATIENCE, &mut self.end).await.ok()?;
        Some(ended.unwrap_or(Ok(())))
    }
}

/// Serves metrics, if a place for that was chosen; else waits for ever.
async fn serve(listener: Option<TcpListener>, ask: metrics::Ask) -> std::io::Result<()> {
    match listener {
        Some(listener) => metrics::serve(listener, ask).await,
        None => std::future::pending().await,
    }
}
