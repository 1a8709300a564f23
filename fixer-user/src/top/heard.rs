//! What was heard from those who hand out events: the events, and the exchanges that they are part of.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Display,
    net::Ipv4Addr,
    sync::Arc,
    time::Duration,
};

use fixer_common::verdict;
use jiff::{SignedDuration, Timestamp};

use super::model::{LINES, Told, push};
use crate::{
    event::Event,
    exchange::{Ending, Now, Tracker},
    net::netns::HOST,
    share::Feed,
    sink::Missing,
};

/// After how long a silence an exchange is over.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who has not looked for longer than this was stopped, and has not heard what was said meanwhile.
const STOPPED: Duration = Duration::from_secs(10);

/// What can be heard from one who hands out events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Voice {
    /// Every event of the exchanges between clients and servers.
    Whole,
    /// Events, of which some exchanges may lack half.
    Half,
    /// Nothing, for this reason.
    None(String),
}

/// Something from one who hands out events.
#[derive(Debug)]
pub struct News {
    /// The network namespace's label.
    pub netns: Arc<str>,
    /// Who it is from.
    pub feed: Feed,
    /// What it is.
    pub what: What,
}

/// What is new.
#[derive(Debug)]
pub enum What {
    /// Events.
    Events(Vec<Event>),
    /// So many events are missing; all of them had come by this moment on `CLOCK_MONOTONIC`.
    Lost(u64, Duration),
    /// What can be heard has changed.
    Voice(Voice),
    /// There is nobody any more.
    Gone,
}

/// An exchange, over or not.
#[derive(Clone, Debug)]
pub struct Talk {
    /// How it ended; or would end, if nothing more came.
    pub ending: Ending,
    /// Whether it goes on.
    pub goes_on: bool,
}

impl Talk {
    /// When the client began it.
    pub fn began(&self) -> Timestamp {
        let length = SignedDuration::try_from_secs_f64(self.ending.exchange.seconds);
        let began = length.ok().and_then(|length| self.ending.time.checked_sub(length).ok());
        began.unwrap_or(self.ending.time)
    }

    /// The address that the client got, or was offered.
    pub fn address(&self) -> Option<Ipv4Addr> {
        let exchange = &self.ending.exchange;
        exchange.your_ip.or(exchange.offered)
    }

    /// The server that had the last word, or that was asked, or that made the first offer.
    pub fn server(&self) -> Option<Ipv4Addr> {
        let exchange = &self.ending.exchange;
        exchange
            .server
            .or_else(|| exchange.servers.iter().chain(&exchange.boot_servers).copied().next())
    }
}

/// All that was heard.
#[derive(Clone, Debug)]
pub struct Heard {
    voices: BTreeMap<(Arc<str>, Feed), Voice>,
    lines: VecDeque<Told>,
    tracker: Tracker,
    over: VecDeque<Ending>,
    now: Option<Now>,
}

impl Default for Heard {
    fn default() -> Self {
        let (voices, lines, over, now) = Default::default();
        Self { voices, lines, tracker: Tracker::new(PATIENCE), over, now }
    }
}

impl Heard {
    /// Takes what is new.
    pub fn take(&mut self, news: News) {
        let from = (news.netns, news.feed);
        match news.what {
            What::Events(events) => {
                let is_whole = self.voices.get(&from) == Some(&Voice::Whole);
                events.iter().for_each(|event| self.event(event, is_whole));
            }
            What::Lost(lost, until) => {
                self.lost(&from.0, lost);
                self.tracker.doubt(&from.0, until);
            }
            What::Voice(voice) => drop(self.voices.insert(from, voice)),
            What::Gone => drop(self.voices.remove(&from)),
        }
        if !self.voices.values().any(|voice| *voice == Voice::Whole) {
            // Half a conversation would be told as one that nobody answers.
            self.tracker.clear();
        }
    }

    fn event(&mut self, event: &Event, is_whole: bool) {
        if event.verdict.bit() & verdict::NOTABLE != 0 {
            self.tell(&event.interface, words(event));
        }
        if is_whole {
            let over = self.tracker.see(event).over;
            self.end(over);
        }
    }

    fn lost(&mut self, netns: &str, lost: u64) {
        let Some(Now { time, .. }) = self.now else { return };
        let netns = if netns == HOST { String::new() } else { format!("{netns}: ") };
        self.tell("", format!("{} {netns}{}", time_of(time), Missing::of_events(lost)));
    }

    fn tell(&mut self, interface: &str, line: String) {
        push(&mut self.lines, Told { interface: interface.to_owned(), line }, LINES);
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Now) {
        let before = self.now.replace(now);
        if before.is_some_and(|before| now.monotonic.saturating_sub(before.monotonic) > STOPPED) {
            for (netns, _) in self.voices.keys() {
                self.tracker.doubt(netns, now.monotonic);
            }
        }
        let over = self.tracker.tick(now).over;
        self.end(over);
    }

    fn end(&mut self, over: Vec<Ending>) {
        over.into_iter().for_each(|ending| push(&mut self.over, ending, LINES));
    }

    /// The events, the latest first.
    pub fn lines(&self) -> impl Iterator<Item = &Told> {
        self.lines.iter().rev()
    }

    /// The exchanges: first those that go on, then those that are over, the latest first.
    pub fn talks(&self) -> impl Iterator<Item = Talk> {
        let open = self.now.into_iter().flat_map(|now| self.tracker.going_on(now).take(LINES));
        let open = open.map(|ending| Talk { ending, goes_on: true });
        let over = self.over.iter().rev().cloned();
        open.chain(over.map(|ending| Talk { ending, goes_on: false }))
    }

    /// What to say where there is no exchange to show; `None` where nobody hands out events.
    pub fn no_talks(&self) -> Option<String> {
        let has = |wanted: &Voice| self.voices.values().any(|voice| voice == wanted);
        let failed = self.voices.values().find_map(|voice| match voice {
            Voice::None(reason) => Some(reason.clone()),
            _ => None,
        });
        let is_run = |feed: &Feed| matches!(feed, Feed::Run(_));
        match self.voices.keys().map(|(_, feed)| is_run(feed)).max() {
            _ if has(&Voice::Whole) => Some("none yet".to_owned()),
            _ if failed.is_some() => failed,
            Some(true) => Some(format!("none: this `fixer run` {HALF}")),
            Some(false) => Some(format!("none: `fixer attach` {HALF}")),
            None => None,
        }
    }
}

/// Why there are no exchanges, and what to do.
const HALF: &str = "sees one side; `fixer run --all --hook both` sees both";

/// An event in a line. `fixer watch` tells more of it: here is little room, so that what matters comes first.
fn words(event: &Event) -> String {
    let Event { time, netns, interface, hook, verdict, packet, .. } = event;
    let netns = if &**netns == HOST { String::new() } else { format!("{netns}/") };
    let (time, hook, verdict) = (time_of(*time), hook.name(), verdict.name());
    let mut words = format!("{time} {netns}{interface} {hook}: {verdict}");
    if let Some(dhcp) = &event.dhcp {
        words += &format!(", DHCP {}", dhcp.message_type);
        words.extend(dhcp.client_mac.map(|client| format!(" {client}")));
    }
    if let (Some(src), Some(dst)) = (packet.src, packet.dst) {
        let port = |port: Option<u16>| port.map_or_else(String::new, |port| format!(".{port}"));
        words += &format!(", {src}{} > {dst}{}", port(packet.sport), port(packet.dport));
    }
    if let (Some(stored), Some(expected)) = (event.checksum, event.expected) {
        words += &format!(", {stored:#06x} -> {expected:#06x}");
    }
    words
}

fn time_of(time: Timestamp) -> impl Display {
    time.strftime("%H:%M:%S")
}
