//! Listens to everyone who hands out events of what is attached, as `fixer watch` does.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use fixer_common::verdict;
use tokio::{
    sync::mpsc::{self, Receiver, Sender},
    task::AbortHandle,
    time::sleep,
};

use super::heard::{News, Voice, What};
use crate::{
    event::{Clock, Event},
    names::Names,
    net::netns::NetNs,
    share::{Connection, Feed, Feeder, Wish},
    stream::{self, Source},
};

/// News that may wait until they are taken. What comes then waits at whoever hands it out, who does not
/// wait: it counts what is lost.
const WAITING: usize = 16;

/// How long until somebody who does not answer is asked again: longer than it takes to find out that
/// there is nobody any more.
const AGAIN: Duration = Duration::from_secs(3);

/// Somebody who hands out events.
#[derive(Clone, Debug)]
pub struct Speaker {
    /// In which namespace.
    pub netns: NetNs,
    /// Who.
    pub feed: Feed,
    /// The names of the interfaces there.
    pub names: Names,
}

/// Everyone who is listened to.
pub struct Ears {
    wish: Wish,
    ears: Vec<Ear>,
    sender: Sender<News>,
    news: Receiver<News>,
}

/// One who is listened to, until this is dropped.
struct Ear {
    netns: Arc<str>,
    feed: Feed,
    task: AbortHandle,
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Ears {
    /// Nobody is listened to yet. Exchanges are heard of only where both hooks are looked at.
    pub fn new(both_hooks: bool) -> Self {
        let wish = Wish { verdicts: verdict::NOTABLE, exchanges: both_hooks };
        let (sender, news) = mpsc::channel(WAITING);
        Self { wish, ears: Vec::new(), sender, news }
    }

    /// Listens to these, and to no others any more. Who is not there any more is handed over. Must be
    /// called on a tokio runtime.
    pub fn turn_to(&mut self, speakers: &[Speaker]) -> Vec<News> {
        let is_there = |ear: &mut Ear| speakers.iter().any(|speaker| ear.is_on(speaker));
        let gone = self.ears.extract_if(.., |ear| !is_there(ear));
        let gone = gone.map(|ear| News {
            netns: Arc::clone(&ear.netns),
            feed: ear.feed,
            what: What::Gone,
        });
        let gone = gone.collect();
        for speaker in speakers {
            if !self.ears.iter().any(|ear| ear.is_on(speaker)) {
                let ear = Ear::new(speaker.clone(), self.wish, self.sender.clone());
                self.ears.push(ear);
            }
        }
        gone
    }

    /// Waits for what is new.
    pub async fn next(&mut self) -> Option<News> {
        self.news.recv().await
    }
}

impl Ear {
    fn new(speaker: Speaker, wish: Wish, sender: Sender<News>) -> Self {
        let (netns, feed) = (Arc::clone(speaker.netns.label()), speaker.feed);
        let source = Source::new(Arc::clone(&netns), speaker.names);
        let feeder = Feeder::new(speaker.netns, feed, wish);
        let listener = Listener { feeder, source, sender };
        let task = tokio::spawn(listener.listen()).abort_handle();
        Self { netns, feed, task }
    }

    fn is_on(&self, speaker: &Speaker) -> bool {
        (&self.netns, self.feed) == (speaker.netns.label(), speaker.feed)
    }
}

/// On the way to one who hands out events.
struct Listener {
    feeder: Feeder,
    source: Source,
    sender: Sender<News>,
}

impl Listener {
    /// Listens for as long as somebody takes the news.
    async fn listen(mut self) {
        while !self.sender.is_closed() {
            let voice = match self.feeder.connect().await {
                Ok(connection) => {
                    self.tell(What::Voice(Voice::Half)).await;
                    self.hear(connection).await;
                    Voice::Half
                }
                Err(error) => Voice::None(format!("{}: {error:#}", cannot(self.feeder.feed()))),
            };
            self.tell(What::Voice(voice)).await;
            sleep(AGAIN).await;
        }
    }

    /// Hands on what is handed out, until it is over.
    async fn hear(&self, mut connection: Connection) {
        // What waited in the ring buffer for nobody is old.
        let Ok(began) = Clock::monotonic() else { return };
        loop {
            let received = connection.read().await;
            let events = self.events(received.samples, began);
            if !events.is_empty() {
                self.tell(What::Events(events)).await;
            }
            if received.lost > 0 {
                let now = Clock::monotonic().unwrap_or(Duration::MAX);
                self.tell(What::Lost(received.lost, now)).await;
            }
            if let Some(follows) = received.follows {
                let voice = if follows { Voice::Whole } else { Voice::Half };
                self.tell(What::Voice(voice)).await;
            }
            if received.is_over {
                return;
            }
        }
    }

    fn events(&self, samples: Vec<Bytes>, began: Duration) -> Vec<Event> {
        let Ok(clock) = Clock::read() else { return Vec::new() };
        let samples = samples.into_iter();
        let events = samples.filter_map(|sample| stream::event(&self.source, sample, &clock));
        events.filter(|event| event.monotonic >= began).collect()
    }

    async fn tell(&self, what: What) {
        let netns = Arc::clone(&self.source.netns);
        // That nobody takes it any more is seen before the next look.
        let _ = self.sender.send(News { netns, feed: self.feeder.feed(), what }).await;
    }
}

fn cannot(feed: Feed) -> String {
    match feed {
        Feed::Run(pid) => format!("cannot hear `fixer run` {pid}"),
        Feed::Pins(_) => "cannot hear what `fixer attach` left".to_owned(),
    }
}
