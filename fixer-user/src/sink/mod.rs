//! Where events go: lines of text, lines of JSON, or a capture file.
//!
//! A stream that has lost events says so itself, wherever it goes: [`Sink::lost`].

mod exchange;
mod json;
mod pcapng;
mod text;

use std::{fmt, io};

use fixer_common::verdict::Verdict;
use thiserror::Error;

pub(crate) use self::{exchange::colour as outcome_colour, text::colour};
pub use self::{json::Json, pcapng::Pcapng, text::Text};
use crate::{
    event::{Event, Lost, Transport},
    exchange::Ending,
};

/// Somewhere that events go, one after the other.
///
/// The sinks write each line in one piece and buffer nothing themselves; a capture file is written
/// in small pieces and wants a buffered writer.
pub trait Sink {
    /// Writes one event.
    fn event(&mut self, event: &Event) -> Result<(), SinkError>;

    /// Tells how an exchange ended. Not every sink has words for it.
    fn exchange(&mut self, _ending: &Ending) -> Result<(), SinkError> {
        Ok(())
    }

    /// Says that events are missing here.
    fn lost(&mut self, lost: &Lost) -> Result<(), SinkError>;

    /// Hands everything written so far on to where it goes.
    fn flush(&mut self) -> Result<(), SinkError>;

    /// Says what is left to say at the end of the stream, and flushes.
    fn finish(&mut self) -> Result<(), SinkError> {
        self.flush()
    }
}

/// Why an event could not be written.
#[derive(Debug, Error)]
pub enum SinkError {
    /// What the events are written to refused. A closed pipe is the reader's way to say enough.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The event cannot be said in a capture file.
    #[error("the capture file cannot hold this packet")]
    Pcapng(#[source] pcap_file::pcapng::PcapNgWriteError),
}

impl From<pcap_file::pcapng::PcapNgWriteError> for SinkError {
    fn from(error: pcap_file::pcapng::PcapNgWriteError) -> Self {
        match error {
            pcap_file::pcapng::PcapNgWriteError::Io(error) => Self::Io(error),
            error => Self::Pcapng(error),
        }
    }
}

/// What was found in a packet, in the words of tcpdump, and the verdict: `bad udp cksum 0x1bc7 -> 0x072b!
/// fixed`, `udp cksum ok valid`, `no cksum unchecked`.
struct Finding<'a> {
    event: &'a Event,
    /// How the verdict looks; the empty style where it must not.
    style: anstyle::Style,
}

impl fmt::Display for Finding<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { event, style } = self;
        let verdict = event.verdict;
        let transport = event.packet.transport.unwrap_or(Transport::Udp).name();
        match (verdict, event.checksum, event.expected) {
            (Verdict::Valid, ..) => write!(f, "{transport} cksum ok ")?,
            (Verdict::Unchecked, ..) => f.write_str("no cksum ")?,
            (_, Some(stored), Some(expected)) => {
                write!(f, "bad {transport} cksum {stored:#06x} -> {expected:#06x}! ")?;
            }
            _ => {}
        }
        write!(f, "{style}{}{style:#}", verdict.name())?;
        match verdict {
            // The words before it have said it all.
            Verdict::Valid
            | Verdict::Unchecked
            | Verdict::Fixed
            | Verdict::Partial
            | Verdict::Corrupt => Ok(()),
            _ => write!(f, ": {}", verdict.row().help),
        }
    }
}

/// What is missing: `12 events were lost`, `12 events and the ends of 3 exchanges were lost`.
pub(crate) struct Missing {
    pub events: u64,
    pub exchanges: u64,
}

impl Missing {
    /// Nothing but events.
    pub(crate) const fn of_events(events: u64) -> Self {
        Self { events, exchanges: 0 }
    }
}

impl From<&Lost> for Missing {
    fn from(lost: &Lost) -> Self {
        Self { events: lost.lost, exchanges: lost.exchanges }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.events {
            1 => f.write_str("1 event")?,
            events => write!(f, "{events} events")?,
        }
        match self.exchanges {
            0 => {}
            1 => f.write_str(" and the end of 1 exchange")?,
            exchanges => write!(f, " and the ends of {exchanges} exchanges")?,
        }
        f.write_str(if self.events == 1 && self.exchanges == 0 {
            " was lost"
        } else {
            " were lost"
        })
    }
}
