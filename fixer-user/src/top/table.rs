//! The table of hooks: as many columns as fit, and the rows around the selected one.

use std::{cmp::Reverse, collections::BTreeSet};

use fixer_common::verdict::TABLE;
use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Modifier, Style},
    text::{Line, Span},
};

use super::{
    columns::{Column, Columns, GAP},
    model::{PAST, Row},
    state::Looks,
    view::style,
};
use crate::net::netns::HOST;

static COLUMNS: [Column<Row>; 6] = [
    Column::text("NETNS", 1, |row| row.reading.place.netns.to_string()),
    Column::text("INTERFACE", 0, |row| row.reading.place.interface.clone()),
    Column::text("HOOK", 2, |row| row.reading.place.hook.name().to_owned()),
    Column::text("MODE", 4, |row| row.reading.mode.to_owned()),
    Column::text("HELD BY", 3, |row| row.reading.held_by.clone()),
    Column::number("TOTAL", 0, |row| total(row.total())),
];

const RATES: &str = "PER SECOND";
/// What the rates take at least, in columns.
const RATES_WIDTH: usize = 14;
const PAST_TITLE: &str = "LAST 3 MIN";
/// More columns than this do not make the past clearer.
const PAST_WIDTH: usize = 60;

/// What of the rows is shown, and how.
pub struct Table<'a> {
    rows: &'a [&'a Row],
    /// The first row that is shown, how many are, and the selected one.
    first: usize,
    shown: usize,
    selected: usize,
    looks: Looks,
    columns: Columns<Row>,
    rates: usize,
    past: usize,
}

impl<'a> Table<'a> {
    /// What of these rows fits into so many columns.
    pub fn new(rows: &'a [&'a Row], selected: usize, looks: Looks, width: u16) -> Self {
        let (first, shown, width) = (0, rows.len(), usize::from(width));
        let columns = columns(rows, width.saturating_sub(RATES_WIDTH));
        let room = width.saturating_sub(columns.width());
        let widest = rows.iter().map(|row| rates(row, looks).width()).max().unwrap_or(0);
        let (mut rates, mut past) = (room, 0);
        if room >= RATES_WIDTH + GAP + PAST_TITLE.len() {
            rates = widest.clamp(RATES_WIDTH, room - GAP - PAST_TITLE.len());
            past = (room - rates - GAP).min(PAST_WIDTH);
        }
        Self { rows, first, shown, selected, looks, columns, rates, past }
    }

    /// What fits into so many lines, with that of the titles.
    pub fn fit(&mut self, height: u16) {
        self.shown = usize::from(height).saturating_sub(1).min(self.rows.len());
        self.first = self.selected.saturating_sub(self.shown / 2).min(self.rows.len() - self.shown);
    }

    /// Whether there is a column for the past.
    pub const fn has_past(&self) -> bool {
        self.past > 0
    }

    /// The numbers of the first and the last row that is shown, if not all are.
    pub const fn part(&self) -> Option<(usize, usize)> {
        if self.shown == self.rows.len() {
            return None;
        }
        Some((self.first + 1, self.first + self.shown))
    }

    /// Draws a line of titles, and the rows.
    pub fn draw(&self, area: Rect, buffer: &mut Buffer) {
        if area.is_empty() {
            return;
        }
        let titles = self.line(self.columns.titles(), RATES.into(), PAST_TITLE);
        buffer.set_line(area.x, area.y, &titles, area.width);
        let lines = area.rows().skip(1).zip(self.rows.iter().enumerate().skip(self.first));
        buffer.set_style(Rect { height: 1, ..area }, Modifier::BOLD);
        for (place, (number, row)) in lines {
            let past = past(row, self.past, self.looks);
            let cells = self.columns.cells(row, |_| Style::new());
            let line = self.line(cells, rates(row, self.looks), &past);
            buffer.set_line(place.x, place.y, &line, place.width);
            if number == self.selected {
                buffer.set_style(place, Style::new().add_modifier(Modifier::REVERSED));
            }
        }
    }

    fn line(
        &self,
        mut spans: Vec<Span<'static>>,
        rates: Line<'static>,
        past: &str,
    ) -> Line<'static> {
        let wide = rates.width();
        spans.extend(rates.spans);
        if self.past > 0 {
            let gap = (self.rates + GAP).saturating_sub(wide);
            spans.push(Span::raw(format!("{}{past}", " ".repeat(gap))));
        }
        spans.into()
    }
}

/// The columns that fit. The namespace is one where it is not always the host's.
fn columns(rows: &[&Row], room: usize) -> Columns<Row> {
    let namespaces: BTreeSet<_> = rows.iter().map(|row| &*row.reading.place.netns).collect();
    let only_host = namespaces.iter().all(|netns| *netns == HOST);
    Columns::new(COLUMNS.iter().skip(usize::from(only_host)), rows.iter().copied(), room)
}

/// `12 fixed, 0.3 valid`: the most frequent first, for the rest may be cut off.
fn rates(row: &Row, looks: Looks) -> Line<'static> {
    let mut seen: Vec<_> = TABLE.iter().zip(row.rates()).filter(|(_, rate)| *rate > 0.0).collect();
    seen.sort_by_key(|(_, packets)| Reverse((packets * 1e3) as u64));
    if seen.is_empty() {
        return "0".into();
    }
    let mut spans = Vec::new();
    for (it, packets) in seen {
        if !spans.is_empty() {
            spans.push(Span::raw(", "));
        }
        spans.push(Span::raw(format!("{} ", rate(packets))));
        spans.push(Span::styled(it.name, style(it.verdict, looks.colour)));
    }
    spans.into()
}

/// The past of a row as a line of its own.
pub fn past_line(row: &Row, looks: Looks, width: u16) -> String {
    let title = PAST_TITLE.to_lowercase();
    let room = usize::from(width).saturating_sub(title.len() + GAP).min(PAST_WIDTH);
    format!("{title}{}{}", " ".repeat(GAP), past(row, room, looks))
}

/// The past in this many columns, the latest on the right: in each the most that came in a second,
/// measured by the most of the whole row.
fn past(row: &Row, width: usize, looks: Looks) -> String {
    let levels = if looks.unicode { "▁▂▃▄▅▆▇█" } else { ".:-=+*#@" };
    let levels: Vec<_> = levels.chars().collect();
    if width == 0 {
        return String::new();
    }
    // A sample stays in its column until the column is full, so that what is drawn does not flicker.
    let samples = PAST.div_ceil(width);
    let mut columns = vec![0.0_f64; width];
    let now = row.samples.saturating_sub(1) / samples;
    let first = row.samples - row.past.len();
    for (number, packets) in (first..).zip(&row.past) {
        let ago = now - number / samples;
        if let Some(column) = width.checked_sub(ago + 1) {
            columns[column] = columns[column].max(*packets);
        }
    }
    let most = columns.iter().copied().fold(0.0, f64::max);
    let bar = |packets: &f64| {
        let level = (packets / most * levels.len() as f64).ceil() as usize;
        if *packets > 0.0 { levels[level.clamp(1, levels.len()) - 1] } else { ' ' }
    };
    columns.iter().map(bar).collect()
}

/// Packets a second, in at most five characters up to a thousand million.
pub fn rate(packets: f64) -> String {
    match packets {
        0.0 => "0".to_owned(),
        few if few < 0.05 => "<0.1".to_owned(),
        few if few < 9.95 => format!("{few:.1}"),
        some if some < 9_999.5 => format!("{some:.0}"),
        many if many < 999_500.0 => format!("{:.0}k", many / 1e3),
        lots => format!("{:.1}M", lots / 1e6),
    }
}

/// A number of packets, in eight characters unless there are more than a million million.
pub fn total(packets: u64) -> String {
    match packets {
        0..100_000_000 => packets.to_string(),
        100_000_000..1_000_000_000_000 => format!("{}M", packets / 1_000_000),
        _ => format!("{}G", packets / 1_000_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_short() {
        let rates = [0.0, 0.01, 0.1, 9.94, 9.96, 9_999.0, 10_000.0, 999_499.0, 2_340_000.0];
        let short = ["0", "<0.1", "0.1", "9.9", "10", "9999", "10k", "999k", "2.3M"];
        assert_eq!(rates.map(rate), short);
        let totals = [0, 99_999_999, 100_000_000, u64::MAX];
        assert_eq!(totals.map(total), ["0", "99999999", "100M", "18446744073G"]);
    }
}
