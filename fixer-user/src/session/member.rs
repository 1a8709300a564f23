//! A namespace in a session: its site, and who hears of what happens there.

use std::{
    io, mem,
    time::{Duration, Instant},
};

use tokio::{sync::oneshot, task::JoinHandle};

use super::{plan::Plan, tell};
use crate::{
    bpf::{
        load::Object,
        ring::{Ring, Wanted},
    },
    exchange::Ledger,
    metrics::Snapshot,
    net::{
        links::{Change, Link},
        netns::Spec,
    },
    say::say,
    share::{Door, Listener, Share},
    site::{Outcome, Site, SiteError, change::LINGER},
    stream::{Horizon, Source, Writer},
};

/// A namespace, and everyone who hears of it.
pub(super) struct Member {
    pub(super) site: Site,
    /// Whether the user named just this one. What only a glob takes is forgotten when it is gone, and
    /// nothing is missed in it.
    pub(super) is_required: bool,
    source: Source,
    /// The place where watchers come in, until the door is opened.
    listener: Option<io::Result<Listener>>,
    shown: Option<Shown>,
}

/// Who reads its events, and hands them on to watchers.
struct Shown {
    share: Share,
    door: Option<Door>,
    reader: Option<Reader>,
}

/// A task that reads events until it is stopped and there are no more.
pub(super) struct Reader {
    stop: Option<oneshot::Sender<()>>,
    pub(super) task: JoinHandle<()>,
    horizon: Horizon,
}

impl Reader {
    fn start(writer: &Writer, ring: Ring, source: &Source, share: &Share) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (writer, source, share, horizon) =
            (writer.clone(), source.clone(), share.clone(), Horizon::default());
        let follow = writer.follow(ring, source, share, horizon.clone(), stopped);
        Self { stop: Some(stop), task: tokio::spawn(follow), horizon }
    }

    /// Until when it has read everything, as long as it reads.
    fn horizon(&self) -> Option<Duration> {
        (!self.task.is_finished()).then(|| self.horizon.get())
    }

    /// It ends once it has read what there is.
    pub(super) fn stop(&mut self) {
        self.stop = None;
    }
}

/// Readers of programs that were replaced or detached, and since when they have been.
#[derive(Default)]
pub(super) struct Leaving(Vec<(Instant, Reader)>);

impl Leaving {
    pub(super) fn add(&mut self, reader: Option<Reader>) {
        self.0.extend(reader.map(|reader| (Instant::now(), reader)));
    }

    /// Stops those whose programs cannot be at work any more.
    pub(super) fn tick(&mut self) {
        for (since, reader) in &mut self.0 {
            if since.elapsed() > LINGER {
                reader.stop();
            }
        }
        self.0.retain(|(_, reader)| !reader.task.is_finished());
    }

    /// Until when each has read everything.
    pub(super) fn horizons(&self) -> impl Iterator<Item = Duration> + '_ {
        self.0.iter().filter_map(|(_, reader)| reader.horizon())
    }

    /// Those that are not at their end yet.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Reader> + use<> {
        mem::take(&mut self.0).into_iter().map(|(_, reader)| reader)
    }
}

impl Member {
    /// A site that nobody hears of yet.
    pub(super) fn new(site: Site, plan: &Plan) -> Self {
        let source = Source::new(site.label().clone(), site.names.clone());
        let is_required = plan.select().requires(site.spec());
        let (listener, shown) = Default::default();
        Self { site, is_required, source, listener, shown }
    }

    /// Attaches to what was found.
    pub(super) fn attach(&mut self, found: Vec<Link>) -> Vec<Outcome> {
        self.site.follow(vec![Change::All(found)])
    }

    /// Takes the name under which watchers find this run in the namespace. They look who it is that
    /// does so.
    pub(super) fn listen(&mut self) {
        let netns = self.site.netns().ok_or_else(|| io::ErrorKind::NotFound.into());
        let listener = netns.and_then(|netns| netns.run(Listener::bind_for_run).flatten());
        self.listener = Some(listener);
    }

    /// Starts to read the site's events, of which the stream shows these verdicts.
    pub(super) fn show(
        &mut self,
        writer: &Writer,
        verdicts: u32,
        ledger: Ledger,
    ) -> Result<(), SiteError> {
        let share = Share::new(self.site.object.take_wanted()?, verdicts, ledger);
        let ring = self.site.object.take_ring()?;
        let reader = Some(Reader::start(writer, ring, &self.source, &share));
        self.shown = Some(Shown { share, door: None, reader });
        self.open();
        Ok(())
    }

    /// Lets watchers in. That nobody can watch is no reason not to run.
    fn open(&mut self) {
        let (Some(shown), Some(listener)) = (&mut self.shown, self.listener.take()) else { return };
        let opened = listener.and_then(|listener| shown.share.open(listener));
        let label = self.site.label();
        shown.door =
            opened.map_err(|error| say(format_args!("nobody can watch '{label}': {error}"))).ok();
    }

    /// Whether the namespace is there, or is waited for.
    pub(super) fn has_future(&self) -> bool {
        self.site.netns().is_some() || (self.is_required && self.site.is_named())
    }

    /// Whether the namespace has its name, and was let go of or could not be entered all the same.
    pub(super) fn is_missed(&self) -> bool {
        let site = &self.site;
        self.is_required && site.is_named() && site.netns().is_none() && site.named().is_some()
    }

    /// Gives the namespace up if it has lost its name.
    pub(super) fn follow_name(&mut self) {
        let (site, present) = (&self.site, self.site.identity());
        let has_lost = |spec: &Spec| present.is_some_and(|present| spec.has_lost(present));
        if site.is_named() && site.spec().is_some_and(has_lost) {
            self.leave(if self.is_required {
                "it was deleted; waiting for the name to come back"
            } else {
                "it was deleted"
            });
        }
    }

    /// Detaches, and lets go of the namespace.
    pub(super) fn leave(&mut self, why: &str) {
        // A socket would keep the namespace.
        if let Some(shown) = &mut self.shown {
            shown.door = None;
        }
        let outcome = self.site.leave();
        say(format_args!("let go of the network namespace '{}': {why}", self.site.label()));
        outcome.err().into_iter().for_each(say);
    }

    /// Enters the namespace that has the name now.
    pub(super) async fn enter(&mut self) {
        match self.site.enter().await {
            Ok(outcomes) => {
                say(format_args!("the network namespace '{}' is there again", self.site.label()));
                tell(outcomes);
                self.tell_if_idle();
                self.listen();
                self.open();
            }
            Err(error) => say(error),
        }
    }

    pub(super) fn tell_if_idle(&self) {
        if self.site.attachments().next().is_none() {
            say(format_args!("no interface of '{}' is selected yet; waiting", self.site.label()));
        }
    }

    /// Does what another plan says, with new programs if it needs any. Who read the events of the old
    /// ones is handed over.
    pub(super) fn change(
        &mut self,
        plan: &Plan,
        new: Option<(Object, (Ring, Wanted))>,
        writer: Option<&Writer>,
    ) -> Option<Reader> {
        let (object, events) = new.unzip();
        let mut old = None;
        if let (Some((ring, wanted)), Some(shown), Some(writer)) = (events, &mut self.shown, writer)
        {
            shown.share.replace(wanted, plan.config().events);
            old = shown.reader.replace(Reader::start(writer, ring, &self.source, &shown.share));
        }
        self.is_required = plan.select().requires(self.site.spec());
        tell(self.site.change(plan.select().selection(), plan.hooks(), object));
        old
    }

    /// Passes on what the programs say.
    pub(super) fn tick(&mut self) {
        self.site.object.flush_log();
        self.site.let_go();
        if let Some(Shown { share, .. }) = &self.shown {
            share.tick();
        }
    }

    /// Until when its events were all read, if they are read.
    pub(super) fn horizon(&self) -> Option<Duration> {
        self.shown.as_ref()?.reader.as_ref()?.horizon()
    }

    /// What waits to be shown never will be.
    pub(super) fn give_up(&self) {
        self.source.unshown.give_up();
    }

    /// What is attached and counted at this moment.
    pub(super) fn snapshot(&self) -> Snapshot {
        let mut snapshot = self.site.snapshot();
        snapshot.lost += self.source.unshown.dropped();
        if !self.is_required {
            snapshot.missing.clear();
        }
        snapshot
    }

    /// Who reads its events, who has to be waited for.
    pub(super) fn reader(&mut self) -> Option<Reader> {
        self.shown.as_mut()?.reader.take()
    }

    /// Shows watchers out.
    pub(super) fn shut(&mut self) {
        if let Some(shown) = &mut self.shown {
            shown.door = None;
        }
    }
}
