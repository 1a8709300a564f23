//! The model, with what the user wants to see of it.

use std::cmp::Ordering;

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::{
    heard::Talk,
    model::{Model, Place, Row, Sample},
};

/// How far PgUp and PgDn go.
const PAGE: usize = 10;

/// What comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// By name: every row keeps its place.
    #[default]
    Name,
    /// The most packets a second first.
    Rate,
    /// The most packets first.
    Total,
}

impl Sort {
    /// Its name in the line of keys.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Rate => "rate",
            Self::Total => "total",
        }
    }

    const fn next(self) -> Self {
        match self {
            Self::Name => Self::Rate,
            Self::Rate => Self::Total,
            Self::Total => Self::Name,
        }
    }

    fn compare(self, one: &Row, other: &Row) -> Ordering {
        match self {
            Self::Name => Ordering::Equal,
            Self::Rate => other.rate().total_cmp(&one.rate()),
            Self::Total => other.total().cmp(&one.total()),
        }
    }
}

/// Whether to go on after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// To go on.
    Go,
    /// To end.
    Quit,
}

/// What the terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looks {
    /// Colours.
    pub colour: bool,
    /// Characters beyond ASCII.
    pub unicode: bool,
}

/// All that a picture is made of.
#[derive(Clone, Debug)]
pub struct State {
    live: Model,
    /// The model as it was when the picture was held.
    held: Option<Model>,
    /// What the terminal can show.
    pub looks: Looks,
    /// A part of the names of the interfaces that are shown.
    pub filter: String,
    /// Whether the filter is being typed.
    pub typing: bool,
    /// What comes first.
    pub sort: Sort,
    /// The selected row; it may be gone.
    selected: Option<Place>,
}

impl State {
    /// Nothing was seen yet.
    pub fn new(looks: Looks) -> Self {
        let (live, filter) = (Model::default(), String::new());
        Self { live, held: None, looks, filter, typing: false, sort: Sort::Name, selected: None }
    }

    /// Takes the next sample. While the picture is held it counts, and is not shown.
    pub fn sample(&mut self, sample: Sample) {
        self.live.sample(sample);
    }

    /// What is shown.
    pub fn model(&self) -> &Model {
        self.held.as_ref().unwrap_or(&self.live)
    }

    /// What goes on behind the picture, to be told of events.
    pub fn live(&mut self) -> &mut Model {
        &mut self.live
    }

    /// Whether the picture is held.
    pub const fn is_paused(&self) -> bool {
        self.held.is_some()
    }

    /// The rows that the filter lets through, in their order.
    pub fn rows(&self) -> Vec<&Row> {
        let rows = self.model().rows();
        let mut rows: Vec<_> = rows.filter(|row| self.lets(&row.reading.place.interface)).collect();
        rows.sort_by(|one, other| self.sort.compare(one, other));
        rows
    }

    /// The exchanges that the filter lets through.
    pub fn talks(&self) -> Vec<Talk> {
        self.model().heard.talks().filter(|talk| self.lets(&talk.ending.interface)).collect()
    }

    /// What the last lines are, and those that the filter lets through: what was counted, until there are
    /// events.
    pub fn lines(&self) -> (&'static str, Vec<&str>) {
        let model = self.model();
        let (heading, lines): (_, Vec<_>) = match model.heard.lines().next() {
            Some(_) => ("last events", model.heard.lines().collect()),
            None => ("last counted", model.lines().collect()),
        };
        let lines = lines.into_iter().filter(|told| self.lets(&told.interface));
        (heading, lines.map(|told| &*told.line).collect())
    }

    /// Whether the filter lets an interface through.
    fn lets(&self, interface: &str) -> bool {
        interface.to_lowercase().contains(&self.filter.to_lowercase())
    }

    /// Which of these rows is selected: the first, if the one that was is not among them.
    pub fn selected(&self, rows: &[&Row]) -> usize {
        let is_it = |row: &&Row| Some(&row.reading.place) == self.selected.as_ref();
        rows.iter().position(is_it).unwrap_or(0)
    }

    /// Does what a key asks for.
    pub fn key(&mut self, key: KeyEvent) -> Flow {
        if key.kind == KeyEventKind::Release {
            return Flow::Go;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match (key.code, control) {
            (KeyCode::Char('c'), true) => return Flow::Quit,
            (KeyCode::Up, _) => self.select(|at, _| at.saturating_sub(1)),
            (KeyCode::Down, _) => self.select(|at, _| at + 1),
            (KeyCode::PageUp, _) => self.select(|at, _| at.saturating_sub(PAGE)),
            (KeyCode::PageDown, _) => self.select(|at, _| at + PAGE),
            (KeyCode::Home, _) => self.select(|_, _| 0),
            (KeyCode::End, _) => self.select(|_, rows| rows),
            (KeyCode::Esc, _) => (self.typing, self.filter) = (false, String::new()),
            (_, true) => {}
            (code, false) if self.typing => self.type_filter(code),
            (KeyCode::Char(letter), false) => return self.letter(letter),
            _ => {}
        }
        Flow::Go
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(letter) => self.filter.push(letter),
            _ => {}
        }
    }

    fn letter(&mut self, letter: char) -> Flow {
        match letter {
            'q' => return Flow::Quit,
            '/' => self.typing = true,
            'p' | ' ' => {
                self.held = self.held.take().map_or_else(|| Some(self.live.clone()), |_| None)
            }
            's' => self.sort = self.sort.next(),
            'k' => self.select(|at, _| at.saturating_sub(1)),
            'j' => self.select(|at, _| at + 1),
            _ => {}
        }
        Flow::Go
    }

    /// Moves the selection, to the last row at most.
    fn select(&mut self, to: impl FnOnce(usize, usize) -> usize) {
        let rows = self.rows();
        let at = to(self.selected(&rows), rows.len()).min(rows.len().saturating_sub(1));
        self.selected = rows.get(at).map(|row| row.reading.place.clone());
    }
}
