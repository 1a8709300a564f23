//! `fixer top`: a live view of what is attached.

use std::{
    env,
    io::{self, IsTerminal as _},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use crossterm::event::{Event, EventStream};
use futures_util::StreamExt as _;
use ratatui::{DefaultTerminal, buffer::Buffer, layout::Rect};
use tokio::{
    sync::mpsc::{self, Receiver},
    time::{MissedTickBehavior, interval},
};

use super::{Outcome, checks};
use crate::{
    cli::{self, Hooks},
    privileges::{self, Act},
    say::print,
    signals::{Request, Signals},
    top::{
        ears::Ears,
        model::Sample,
        sampler::Sampler,
        state::{Flow, Looks, State},
        view,
    },
};

/// How often the counters are read.
const EVERY: Duration = Duration::from_secs(1);

/// How often a new picture is drawn, at most: events may come by the thousand, and a terminal be far away.
const FRAME: Duration = Duration::from_millis(100);

/// The size of a frame that is printed where nobody says another width.
const WIDTH: u16 = 80;

/// Shows a picture until a key or a signal ends it, or prints one.
pub fn run(args: &cli::Top) -> Result<Outcome> {
    if !args.once {
        check_terminal()?;
    }
    checks::privileges(privileges::TO_LOOK, &args.select, None)?;
    checks::open_many_files();
    let namespaces = checks::namespaces(&args.select)?;
    let enters = (!args.select.netns.is_empty()).then_some(Act::Enter);
    // The process that reads pinned events inherits what there is, and gives slow readers more room.
    let acts = privileges::TO_LOOK.iter().copied().chain(enters).chain([Act::Attach]);
    let acts: Vec<_> = acts.collect();
    privileges::keep(&acts, None).context("cannot give up privileges")?;
    let sampler = Sampler::new(namespaces, args.select.clone(), args.hook);
    if args.once { once(sampler) } else { live(sampler, Ears::new(args.hook == Hooks::Both)) }?;
    Ok(Outcome::Done)
}

/// A terminal that cannot move its cursor would only show a heap of characters.
fn check_terminal() -> Result<()> {
    if !io::stdout().is_terminal() {
        bail!(
            "standard output is no terminal to show a live view on; \
             `fixer top --once` prints one frame, and `fixer status --json` is for programs"
        );
    }
    let term = env::var("TERM").unwrap_or_default();
    if term.is_empty() || term == "dumb" {
        bail!(
            "this terminal (TERM={term}) cannot show a live view; use `fixer status` or \
             `fixer top --once`, or set TERM to what the terminal is"
        );
    }
    Ok(())
}

/// What the environment says of the terminal.
fn looks() -> Looks {
    let is_set = |name: &&str| env::var_os(name).is_some_and(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find(|name| is_set(name));
    let locale = locale.and_then(|name| env::var(name).ok()).unwrap_or_default().to_lowercase();
    let unicode = locale.contains("utf-8") || locale.contains("utf8");
    let term = env::var("TERM").unwrap_or_default();
    Looks { colour: !is_set(&"NO_COLOR") && has_colour(&term), unicode }
}

/// Terminals without colour are called so, as `xterm-mono` and `linux-m`, or are as old as `vt220`.
fn has_colour(term: &str) -> bool {
    !term.starts_with("vt") && !["-m", "-mono"].iter().any(|end| term.ends_with(end))
}

/// Prints what is seen within a second.
fn once(mut sampler: Sampler) -> Result<()> {
    let mut state = State::new(looks());
    state.sample(sampler.sample()?);
    thread::sleep(EVERY);
    state.sample(sampler.sample()?);
    let columns = env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let width = columns.filter(|columns| *columns > 0).unwrap_or(WIDTH);
    let area = Rect::new(0, 0, width, view::whole(state.rows().len()));
    let mut buffer = Buffer::empty(area);
    view::draw(&state, area, &mut buffer);
    let text = view::text(&buffer);
    // The last line names the keys, and there are none.
    let lines: Vec<_> = text.lines().collect();
    let frame = lines[..lines.len().saturating_sub(1)].join("\n");
    Ok(print(format_args!("{}\n", frame.trim_end()))?)
}

/// The terminal as a picture. However this ends, also in a panic, it is left as it was found.
struct Screen(DefaultTerminal);

impl Screen {
    fn new() -> Result<Self> {
        let restore_again = |error| {
            ratatui::restore();
            error
        };
        let terminal = ratatui::try_init().map_err(restore_again);
        terminal.map(Self).context("cannot take over the terminal; `fixer status` needs none")
    }

    fn draw(&mut self, state: &State) -> Result<()> {
        let draw = |frame: &mut ratatui::Frame<'_>| {
            view::draw(state, frame.area(), frame.buffer_mut());
        };
        self.0.draw(draw).context("cannot draw on the terminal")?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

#[tokio::main(flavor = "current_thread")]
async fn live(sampler: Sampler, mut ears: Ears) -> Result<()> {
    let mut signals = Signals::new(Request::End)?;
    let mut samples = samples(sampler)?;
    // What cannot be seen at all is said before the terminal is taken over.
    let first = samples.recv().await.context("the sampler has ended")??;
    let mut state = State::new(looks());
    take(first, &mut state, &mut ears);
    let mut screen = Screen::new()?;
    let mut events = EventStream::new();
    let mut frames = interval(FRAME);
    frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_old = true;
    loop {
        tokio::select! {
            _ = frames.tick(), if is_old => {
                screen.draw(&state)?;
                is_old = false;
                continue;
            }
            _ = signals.any() => return Ok(()),
            sample = samples.recv() => {
                take(sample.context("the sampler has ended")??, &mut state, &mut ears);
            }
            Some(news) = ears.next() => state.live().hear(news),
            event = events.next() => match event {
                Some(Ok(Event::Key(key))) if state.key(key) == Flow::Quit => return Ok(()),
                // Whatever else came, a new size among it, the picture is drawn anew.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error).context("cannot read from the terminal"),
                None => return Ok(()),
            },
        }
        is_old = true;
    }
}

/// A sample is for the picture, and says who is to be listened to.
fn take(sample: Sample, state: &mut State, ears: &mut Ears) {
    let gone = ears.turn_to(&sample.speakers);
    state.sample(sample);
    gone.into_iter().for_each(|news| state.live().hear(news));
}

/// A sample every second, taken on a thread of its own: keys do not wait for the kernel.
fn samples(mut sampler: Sampler) -> Result<Receiver<Result<Sample>>> {
    let (sender, samples) = mpsc::channel(1);
    let take = move || {
        loop {
            let sample = sampler.sample();
            let is_last = sample.is_err();
            if sender.blocking_send(sample).is_err() || is_last {
                return;
            }
            thread::sleep(EVERY);
        }
    };
    thread::Builder::new().name("sampler".to_owned()).spawn(take)?;
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_terminals_have_no_colour() {
        assert!(["xterm", "xterm-256color", "linux", "tmux"].into_iter().all(has_colour));
        assert!(!["vt100", "vt220", "xterm-mono", "linux-m"].into_iter().any(has_colour));
    }
}
