//! The life of `fixer run`: interfaces come and go, events flow, somebody asks for metrics, or has
//! it read its configuration again.

mod reload;

use std::{
    collections::BTreeSet,
    io,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use futures_util::future::{FutureExt as _, select_all};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    bpf::ring::Ring,
    exchange::Ledger,
    metrics::{Exports, Snapshot},
    net::{
        lifetime::Mounts,
        links::{Change, Link},
    },
    say::say,
    service,
    share::{Door, Feed, Listener, Share},
    signals::{Request, Signals},
    sink::SinkError,
    site::{Happening, Outcome, Site, change::LINGER},
    stream::{PATIENCE, Source, Writer},
};

/// How often losses are told and the programs' log lines passed on.
const TICK: Duration = Duration::from_secs(1);

/// How often something is tried again that failed.
const RETRY: Duration = Duration::from_secs(5);

pub use reload::Plan;

/// How the writer of the events ended.
pub type Ended = Result<(), SinkError>;

/// Everything that runs, and in the end is undone.
pub struct Session {
    sites: Vec<Site>,
    /// Tells when a namespace may have lost or got its name.
    mounts: Mounts,
    writer: Option<Writer>,
    end: Option<oneshot::Receiver<Ended>>,
    sources: Vec<Source>,
    /// What the stream has counted.
    ledger: Ledger,
    /// Losses that the stream has told, by site.
    told: Vec<u64>,
    /// Who hands the events on to watchers, and where those come in, by site.
    shares: Vec<Share>,
    doors: Vec<Option<Door>>,
    /// The same places until the doors are opened.
    listeners: Vec<io::Result<Listener>>,
    /// Losses that the watchers were told, by site.
    handed: Vec<u64>,
    /// Who reads the events of each site's programs.
    readers: Vec<Reader>,
    /// Who reads those of programs that were replaced, and since when they have been.
    leaving: Vec<(Instant, Reader)>,
    /// When what could not be attached is tried again.
    retry: Instant,
    /// Why a namespace was given up that has not ended.
    failure: Option<anyhow::Error>,
}

/// A task that reads events until it is stopped and there are no more.
struct Reader {
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Session {
    /// A session of these sites. Nothing is attached yet.
    pub fn new(sites: Vec<Site>, ledger: Ledger) -> Result<Self> {
        let source =
            |site: &Site| Source { netns: site.label().clone(), names: site.names.clone() };
        let sources = sites.iter().map(source).collect();
        let told = vec![0; sites.len()];
        let mounts = Mounts::listen().context("cannot follow what is mounted")?;
        let handed = told.clone();
        let (writer, end, readers, leaving, failure) = Default::default();
        let (shares, doors, listeners) = Default::default();
        let retry = Instant::now() + RETRY;
        Ok(Self {
            sites,
            mounts,
            writer,
            end,
            sources,
            ledger,
            told,
            shares,
            doors,
            listeners,
            handed,
            readers,
            leaving,
            retry,
            failure,
        })
    }

    /// Attaches to what was found.
    pub fn attach(&mut self, found: Vec<Vec<Link>>) -> Result<()> {
        for (number, links) in found.into_iter().enumerate() {
            let outcomes = self.sites[number].follow(vec![Change::All(links)]);
            // What was selected at the start has to be attached.
            let news: Vec<_> = outcomes.into_iter().collect::<Result<_, _>>()?;
            news.iter().for_each(say);
            self.tell_if_idle(number);
            // As whoever it was started as: watchers look who it is.
            self.listeners.push(self.listen(number));
        }
        Ok(())
    }

    /// Starts to read the sites' events, of which the stream shows these verdicts.
    pub fn show(
        &mut self,
        (writer, end): (Writer, oneshot::Receiver<Ended>),
        verdicts: u32,
    ) -> Result<()> {
        (self.writer, self.end) = (Some(writer), Some(end));
        for number in 0..self.sites.len() {
            self.shares.push(Share::new(self.sites[number].object.take_wanted()?, verdicts));
            let ring = self.sites[number].object.take_ring()?;
            self.readers.extend(self.reader(number, ring));
        }
        for (number, listener) in std::mem::take(&mut self.listeners).into_iter().enumerate() {
            let door = self.open(number, listener);
            self.doors.push(door);
        }
        Ok(())
    }

    /// Takes the name under which watchers find this run in a namespace.
    fn listen(&self, number: usize) -> io::Result<Listener> {
        let name = Feed::Run(std::process::id()).name();
        let netns = self.sites[number].netns().ok_or(io::ErrorKind::NotFound)?;
        netns.run(|| Listener::bind(&name))?
    }

    /// Lets watchers in. That nobody can watch is no reason not to run.
    fn open(&self, number: usize, listener: io::Result<Listener>) -> Option<Door> {
        let opened = listener.and_then(|listener| self.shares[number].open(listener));
        let label = self.sites[number].label();
        opened.map_err(|error| say(format_args!("nobody can watch '{label}': {error}"))).ok()
    }

    fn reader(&self, number: usize, ring: Ring) -> Option<Reader> {
        let writer = self.writer.clone()?;
        let share = self.shares[number].clone();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(writer.follow(ring, self.sources[number].clone(), share, stopped));
        Some(Reader { stop: Some(stop), task })
    }

    /// Serves until it is time to end. If the writer ended first, says how.
    pub async fn live(
        &mut self,
        exports: &mut Exports,
        signals: &mut Signals,
        plan: &mut Plan,
    ) -> Result<Option<Ended>> {
        // A name may have been lost while the programs were loaded and attached.
        self.look_for_namespaces().await;
        let (ask, mut asked) = mpsc::channel(16);
        let mut exported = std::pin::pin!(exports.live(ask, self.ledger.clone()));
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        service::ready(&self.status());
        loop {
            tokio::select! {
                request = signals.any() => match request {
                    Request::End => return Ok(None),
                    Request::Reload => self.reload(plan),
                },
                ended = ended(&mut self.end) => return Ok(Some(ended)),
                (number, happening) = happening(&mut self.sites) => {
                    self.react(number, happening);
                    if !self.sites.iter().any(Site::has_future) {
                        if let Some(failure) = self.failure.take() {
                            return Err(failure);
                        }
                        say("no network namespace is left that could come back; that is all");
                        return Ok(None);
                    }
                }
                outcome = self.mounts.change() => {
                    outcome.context("cannot follow what is mounted any more")?;
                    self.look_for_namespaces().await;
                }
                Some(answer) = asked.recv() => {
                    // Whoever asked may have gone away.
                    let _ = answer.send(self.snapshots().collect());
                }
                _ = tick.tick() => {
                    self.tick();
                    self.retry();
                }
                never = &mut exported => match never {},
            }
        }
    }

    /// An interface that came later and cannot be taken is no reason to leave the others alone.
    fn react(&mut self, number: usize, happening: Happening) {
        match happening {
            Happening::Changes(changes) => tell(self.sites[number].follow(changes)),
            Happening::End => self.leave(number, "its process has ended"),
            Happening::Failed(error) => {
                let label = self.sites[number].label();
                let failure = anyhow!("cannot follow the interfaces of '{label}': {error}");
                self.leave(number, &failure.to_string());
                self.failure = Some(failure);
            }
        }
    }

    fn leave(&mut self, number: usize, why: &str) {
        // A socket would keep the namespace.
        self.doors[number] = None;
        let site = &mut self.sites[number];
        let outcome = site.leave();
        say(format_args!("let go of the network namespace '{}': {why}", site.label()));
        outcome.err().into_iter().for_each(say);
    }

    /// Gives up namespaces that have lost their names, and enters those that have got them.
    async fn look_for_namespaces(&mut self) {
        for number in 0..self.sites.len() {
            let site = &self.sites[number];
            let (named, present) = (site.named(), site.identity());
            if !site.is_named() || named == present {
                continue;
            }
            if present.is_some() {
                self.leave(number, "it was deleted; waiting for the name to come back");
            }
            // The same namespace under two names is one site.
            let is_taken = self.sites.iter().any(|site| site.identity() == named);
            if named.is_some() && !is_taken {
                self.enter(number).await;
            }
        }
    }

    async fn enter(&mut self, number: usize) {
        let site = &mut self.sites[number];
        match site.enter().await {
            Ok(outcomes) => {
                say(format_args!("the network namespace '{}' is there again", site.label()));
                tell(outcomes);
                self.tell_if_idle(number);
                self.doors[number] = self.open(number, self.listen(number));
            }
            Err(error) => say(error),
        }
    }

    fn tell_if_idle(&self, number: usize) {
        let site = &self.sites[number];
        if site.attachments().next().is_none() {
            say(format_args!("no interface of '{}' is selected yet; waiting", site.label()));
        }
    }

    fn retry(&mut self) {
        if Instant::now() > self.retry {
            self.sites.iter_mut().for_each(|site| tell(site.retry()));
            self.retry = Instant::now() + RETRY;
        }
    }

    fn tick(&mut self) {
        service::alive();
        if let Some(writer) = &self.writer {
            writer.tick();
        }
        for (since, reader) in &mut self.leaving {
            if since.elapsed() > LINGER {
                reader.stop = None;
            }
        }
        self.leaving.retain(|(_, reader)| !reader.task.is_finished());
        for (number, site) in self.sites.iter_mut().enumerate() {
            site.object.flush_log();
            site.let_go();
            let mut lost = site.lost();
            if let Some(share) = self.shares.get(number) {
                share.lose(lost - self.handed[number]);
                share.tick();
                self.handed[number] = lost;
                lost += share.missed();
            }
            let new = lost - self.told[number];
            let told = |writer: &Writer| writer.lose(&self.sources[number], new);
            if new > 0 && self.writer.as_ref().is_some_and(told) {
                self.told[number] = lost;
            }
        }
    }

    /// What is attached and counted at this moment, by namespace.
    pub fn snapshots(&self) -> impl Iterator<Item = Snapshot> + '_ {
        self.sites.iter().map(Site::snapshot)
    }

    /// Detaches from everything, and lets the readers empty the ring buffers.
    pub async fn close(&mut self) -> Result<()> {
        let outcomes: Vec<_> = self.sites.iter_mut().map(Site::close).collect();
        let leaving = self.leaving.drain(..).map(|(_, reader)| reader);
        for Reader { stop, task } in leaving.chain(self.readers.drain(..)) {
            drop(stop);
            // A reader that waits for a writer that is stuck would wait for ever.
            let _ = timeout(PATIENCE, task).await;
        }
        self.tick();
        self.doors.clear();
        outcomes.into_iter().collect::<Result<(), _>>().map_err(Into::into)
    }

    /// Lets the writer finish what it has, and waits for it. `None`: it is stuck, because nobody
    /// empties the pipe that it writes to.
    pub async fn finish(&mut self) -> Option<Ended> {
        self.writer = None;
        if self.end.is_none() {
            return Some(Ok(()));
        }
        timeout(PATIENCE, ended(&mut self.end)).await.ok()
    }

    /// Where it is attached, for whoever asks the service manager.
    fn status(&self) -> String {
        let attached = |site: &Site| {
            let names = site.attachments().map(|(ifindex, ..)| site.names.get(ifindex));
            names.map(|name| site.place(&name)).collect::<BTreeSet<_>>()
        };
        let places: Vec<_> = self.sites.iter().flat_map(attached).collect();
        if places.is_empty() {
            "waiting for an interface".to_owned()
        } else {
            format!("attached to {}", places.join(", "))
        }
    }
}

/// How the writer ended, once it has.
async fn ended(end: &mut Option<oneshot::Receiver<Ended>>) -> Ended {
    match end {
        Some(end) => end.await.unwrap_or(Ok(())),
        None => std::future::pending().await,
    }
}

/// Waits until something happens in one of the namespaces.
async fn happening(sites: &mut [Site]) -> (usize, Happening) {
    let each = sites.iter_mut().enumerate();
    let each = each.map(|(number, site)| site.happening().map(move |what| (number, what)).boxed());
    select_all(each).await.0
}

fn tell(outcomes: Vec<Outcome>) {
    for outcome in outcomes {
        match outcome {
            Ok(news) => say(news),
            Err(error) => say(error),
        }
    }
}
