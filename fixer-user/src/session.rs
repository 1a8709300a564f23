//! The life of `fixer run`: interfaces come and go, events flow, somebody asks for metrics, or has
//! it read its configuration again.

mod member;
mod namespaces;
mod plan;
mod reload;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use futures_util::future::{FutureExt as _, select_all};
use tokio::{
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval, timeout},
};

use self::{
    member::{Leaving, Member},
    namespaces::Past,
};
use crate::{
    event::Clock,
    exchange::Ledger,
    metrics::{Exports, Snapshot},
    net::{lifetime::Mounts, links::Link},
    say::say,
    service,
    signals::{Request, Signals},
    sink::SinkError,
    site::{Happening, Outcome, Site, standing::Budget},
    stream::{PATIENCE, Writer},
};

/// How often the time is told and the programs' log lines passed on.
const TICK: Duration = Duration::from_secs(1);

/// How often something is tried again that failed.
const RETRY: Duration = Duration::from_secs(5);

pub use plan::Plan;

/// How the writer of the events ended.
pub type Ended = Result<(), SinkError>;

/// Everything that runs, and in the end is undone.
pub struct Session {
    members: Vec<Member>,
    /// What was counted in namespaces that are forgotten otherwise.
    past: Past,
    /// What was said about namespaces that could not be taken, by name.
    refused: BTreeMap<String, String>,
    /// Tells when a namespace may have lost or got its name.
    mounts: Mounts,
    writer: Option<Writer>,
    end: Option<oneshot::Receiver<Ended>>,
    /// What the stream has counted.
    ledger: Ledger,
    /// Who reads the events of programs that are at their end.
    leaving: Leaving,
    /// When what could not be attached is tried again.
    retry: Instant,
    /// Which member is looked at next.
    looked: usize,
    /// Why a namespace was given up that has not ended.
    failure: Option<anyhow::Error>,
}

impl Session {
    /// A session of these sites. Nothing is attached yet.
    pub fn new(sites: Vec<Site>, plan: &Plan, ledger: Ledger) -> Result<Self> {
        let members = sites.into_iter().map(|site| Member::new(site, plan)).collect();
        let mounts = Mounts::listen().context("cannot follow what is mounted")?;
        let (past, refused, writer, end, leaving, looked, failure) = Default::default();
        let retry = Instant::now() + RETRY;
        Ok(Self {
            members,
            past,
            refused,
            mounts,
            writer,
            end,
            ledger,
            leaving,
            retry,
            looked,
            failure,
        })
    }

    /// Attaches to what was found.
    pub fn attach(&mut self, found: Vec<Vec<Link>>, plan: &Plan) -> Result<()> {
        for (member, links) in self.members.iter_mut().zip(found) {
            // What was selected at the start has to be attached.
            let news: Vec<_> = member.attach(links).into_iter().collect::<Result<_, _>>()?;
            news.iter().for_each(say);
            member.tell_if_idle();
            // As whoever it was started as: watchers look who it is.
            member.listen();
        }
        self.tell_idle_globs(plan);
        Ok(())
    }

    /// Starts to read the sites' events, of which the stream shows these verdicts.
    pub fn show(
        &mut self,
        (writer, end): (Writer, oneshot::Receiver<Ended>),
        verdicts: u32,
    ) -> Result<()> {
        self.end = Some(end);
        let (writer, ledger) = (self.writer.insert(writer), &self.ledger);
        let show = |member: &mut Member| member.show(writer, verdicts, ledger.clone());
        Ok(self.members.iter_mut().try_for_each(show)?)
    }

    /// Serves until it is time to end. If the writer ended first, says how.
    pub async fn live(
        &mut self,
        exports: &mut Exports,
        signals: &mut Signals,
        plan: &mut Plan,
    ) -> Result<Option<Ended>> {
        // A name may have been lost while the programs were loaded and attached.
        self.look_for_namespaces(plan).await;
        let (ask, mut asked) = mpsc::channel(16);
        let mut exported = std::pin::pin!(exports.live(ask, self.ledger.clone()));
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        service::ready(&self.status());
        loop {
            tokio::select! {
                request = signals.any() => match request {
                    Request::End => return Ok(None),
                    Request::Reload => self.reload(plan).await,
                },
                ended = ended(&mut self.end) => return Ok(Some(ended)),
                (number, happening) = happening(&mut self.members) => {
                    self.react(number, happening);
                    let waits = plan.select().globs().next().is_some();
                    if !waits && !self.members.iter().any(Member::has_future) {
                        if let Some(failure) = self.failure.take() {
                            return Err(failure);
                        }
                        say("no network namespace is left that could come back; that is all");
                        return Ok(None);
                    }
                }
                outcome = self.mounts.change() => {
                    outcome.context("cannot follow what is mounted any more")?;
                    self.look_for_namespaces(plan).await;
                }
                Some(answer) = asked.recv() => {
                    // Whoever asked may have gone away.
                    let _ = answer.send(self.snapshots().collect());
                }
                _ = tick.tick() => {
                    self.tick();
                    self.look();
                    self.retry(plan).await;
                }
                never = &mut exported => match never {},
            }
        }
    }

    /// An interface that came later and cannot be taken is no reason to leave the others alone.
    fn react(&mut self, number: usize, happening: Happening) {
        let member = &mut self.members[number];
        match happening {
            Happening::Changes(changes) => tell(member.site.follow(changes)),
            Happening::End => member.leave("its process has ended"),
            Happening::Failed(error) => {
                let label = member.site.label();
                let failure = anyhow!("cannot follow the interfaces of '{label}': {error}");
                member.leave(&failure.to_string());
                if !member.is_required {
                    // It is forgotten, and taken anew.
                    self.refused.insert(member.site.label().to_string(), failure.to_string());
                }
                self.failure = Some(failure);
            }
        }
    }

    async fn retry(&mut self, plan: &Plan) {
        if Instant::now() > self.retry {
            self.members.iter_mut().for_each(|member| tell(member.site.retry()));
            if !self.refused.is_empty() || self.members.iter().any(Member::is_missed) {
                self.look_for_namespaces(plan).await;
            }
            self.retry = Instant::now() + RETRY;
        }
    }

    /// Looks at some interfaces, in turn, whether what is attached still stands.
    fn look(&mut self) {
        let (mut budget, count) = (Budget::default(), self.members.len());
        for _ in 0..count {
            let number = self.looked % count;
            let (outcomes, is_through) = self.members[number].site.look(&mut budget);
            tell(outcomes);
            self.looked = number + usize::from(is_through);
            if budget.is_spent() {
                break;
            }
        }
    }

    fn tick(&mut self) {
        service::alive();
        self.leaving.tick();
        self.members.iter_mut().for_each(Member::tick);
        // What was not read yet may be the answer that somebody waits for.
        let read = self.members.iter().filter_map(Member::horizon).chain(self.leaving.horizons());
        let until = read.min().or_else(|| Clock::monotonic().ok());
        if let (Some(writer), Some(until)) = (&self.writer, until) {
            writer.tick(until);
        }
    }

    /// What is attached and counted at this moment, by namespace.
    pub fn snapshots(&self) -> impl Iterator<Item = Snapshot> + '_ {
        self.members.iter().map(Member::snapshot).chain(self.past.iter().cloned())
    }

    /// Detaches from everything, and lets the readers empty the ring buffers.
    pub async fn close(&mut self) -> Result<()> {
        let outcomes: Vec<_> = self.members.iter_mut().map(|member| member.site.close()).collect();
        let readers = self.members.iter_mut().filter_map(Member::reader);
        let readers: Vec<_> = self.leaving.take().chain(readers).collect();
        for mut reader in readers {
            reader.stop();
            // A reader that waits for a writer that is stuck would wait for ever.
            let _ = timeout(PATIENCE, reader.task).await;
        }
        self.tick();
        self.members.iter_mut().for_each(Member::shut);
        outcomes.into_iter().collect::<Result<(), _>>().map_err(Into::into)
    }

    /// Lets the writer finish what it has, and waits for it. `None`: it is stuck, because nobody
    /// empties the pipe that it writes to.
    pub async fn finish(&mut self) -> Option<Ended> {
        self.writer = None;
        if self.end.is_none() {
            return Some(Ok(()));
        }
        let ended = timeout(PATIENCE, ended(&mut self.end)).await.ok();
        if ended.is_none() {
            self.members.iter().for_each(Member::give_up);
        }
        ended
    }

    /// Where it is attached, for whoever asks the service manager.
    fn status(&self) -> String {
        let attached = |site: &Site| {
            let names = site.attachments().map(|(ifindex, ..)| site.names.get(ifindex));
            names.map(|name| site.place(&name)).collect::<BTreeSet<_>>()
        };
        let places: Vec<_> =
            self.members.iter().flat_map(|member| attached(&member.site)).collect();
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
async fn happening(members: &mut [Member]) -> (usize, Happening) {
    if members.is_empty() {
        return std::future::pending().await;
    }
    let each = members.iter_mut().enumerate();
    let each = each
        .map(|(number, member)| member.site.happening().map(move |what| (number, what)).boxed());
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
