//! Draws a state: a line of title, the table, the selected hook by verdict, the exchanges, what happened
//! last, the keys.
//!
//! What does not fit is left out, the least important first. Nothing is said by colour alone.

use anstyle::AnsiColor;
use fixer_common::verdict::{TABLE, Verdict};
use ratatui::{
    buffer::Buffer,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
};

use super::{
    exchanges,
    model::Row,
    state::State,
    table::{self, Table},
};
use crate::sink;

/// A body of fewer lines has room for the table only.
const ROOMY: u16 = 12;
/// Lines of what happened last are at least so many, and of the table with its titles.
const LINES: u16 = 3;
const ROWS: u16 = 4;

/// Draws a state.
pub fn draw(state: &State, area: Rect, buffer: &mut Buffer) {
    let rows = state.rows();
    let selected = state.selected(&rows);
    let [title, body, keys] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)])
            .areas(area);
    let mut table = Table::new(&rows, selected, state.looks, area.width);
    let mut verdicts = rows.get(selected).map_or_else(Vec::new, |row| by_verdict(row, state));
    if let (false, Some(row)) = (table.has_past(), rows.get(selected)) {
        verdicts.push(table::past_line(row, state.looks, area.width).into());
    }
    let exchanges = exchange_lines(state, area.width);
    let heights = heights(body.height, [rows.len(), verdicts.len(), exchanges.len()]);
    let [top, middle, talks, bottom] =
        Layout::vertical(heights.map(Constraint::Length)).areas(body);

    table.fit(top.height);
    draw_title(state, &rows, &table, title, buffer);
    if rows.is_empty() {
        line(nothing(state).into(), 0, top, buffer);
    } else {
        table.draw(top, buffer);
    }
    if let Some(row) = rows.get(selected) {
        let place = &row.reading.place;
        let heading = format!("{} {} by verdict", place.interface, place.hook.name());
        pane(state, &heading, verdicts.into_iter(), middle, buffer);
    }
    pane(state, "last exchanges", exchanges.into_iter(), talks, buffer);
    let (heading, lines) = state.lines();
    pane(state, heading, lines.into_iter().map(Line::from), bottom, buffer);
    line(keys_line(state), 0, keys, buffer);
}

/// How a frame reads as text.
pub fn text(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width.max(1));
    let mut text = String::new();
    for cells in buffer.content.chunks(width) {
        let line: String = cells.iter().map(ratatui::buffer::Cell::symbol).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The fewest lines that show these rows whole, with the panes below them.
pub fn whole(rows: usize) -> u16 {
    let lines = rows + TABLE.len() + usize::from(LINES) + 5;
    u16::try_from(lines).unwrap_or(u16::MAX)
}

/// The lines of the table, of the selected hook, of exchanges and of what happened.
fn heights(body: u16, [rows, verdicts, exchanges]: [usize; 3]) -> [u16; 4] {
    if body < ROOMY {
        return [body, 0, 0, 0];
    }
    let middle = if rows == 0 { 0 } else { verdicts as u16 + 1 }.min(body - ROWS - LINES - 1);
    let most = body - middle - (LINES + 1);
    let top = u16::try_from(rows + 1).unwrap_or(u16::MAX).clamp(2, most);
    let rest = body - top - middle;
    let wanted = if exchanges == 0 { 0 } else { u16::try_from(exchanges + 1).unwrap_or(u16::MAX) };
    let most = if rest < 2 * (LINES + 1) { rest } else { rest - (LINES + 1) };
    let talks = wanted.min(most);
    [top, middle, talks, rest - talks]
}

/// The table of exchanges, or why there is none; nothing where nobody tells of any.
fn exchange_lines(state: &State, width: u16) -> Vec<Line<'static>> {
    let talks = state.talks();
    if talks.is_empty() {
        return state.model().heard.no_talks().into_iter().map(Line::from).collect();
    }
    exchanges::lines(&talks, state.looks, width)
}

fn line(line: Line<'_>, at: u16, area: Rect, buffer: &mut Buffer) {
    if at < area.height {
        buffer.set_line(area.x, area.y + at, &line, area.width);
    }
}

/// What is attached and what it does; on the right when this was.
fn draw_title(state: &State, rows: &[&Row], table: &Table<'_>, area: Rect, buffer: &mut Buffer) {
    let rate = table::rate(rows.iter().map(|row| row.rate()).sum());
    let all = state.model().rows().count();
    let mut words = format!("fixer top: {all} attached, {rate}/s");
    if !state.filter.is_empty() {
        words = format!("fixer top: {} of {all} with '{}', {rate}/s", rows.len(), state.filter);
    }
    if let Some((first, last)) = table.part() {
        words.push_str(&format!(" (rows {first}-{last})"));
    }
    let bold = Modifier::BOLD;
    let taken = words.chars().count();
    line(Span::styled(words, bold).into(), 0, area, buffer);
    // That the picture is held is said first, and last given up.
    let time = state.model().time.map(|time| time.strftime("%H:%M:%S UTC").to_string());
    let held = state.is_paused().then(|| "paused".to_owned());
    let both = held.iter().chain(&time).cloned().collect::<Vec<_>>().join("  ");
    let room = usize::from(area.width).saturating_sub(taken);
    let fits = |right: &String| right.chars().count() + 2 <= room;
    if let Some(right) = [Some(both), held].into_iter().flatten().find(fits) {
        let at = area.width - right.chars().count() as u16;
        let area = Rect { x: area.x + at, width: area.width - at, ..area };
        line(Span::styled(right, bold).into(), 0, area, buffer);
    }
}

fn nothing(state: &State) -> String {
    if state.model().time.is_none() {
        return "looking for what is attached".to_owned();
    }
    match &*state.filter {
        "" => "nothing is attached; `fixer attach` and `fixer run` attach".to_owned(),
        filter => format!("no attached interface has '{filter}' in its name"),
    }
}

/// A line for each verdict that was seen.
fn by_verdict(row: &Row, state: &State) -> Vec<Line<'static>> {
    let (rates, counts) = (row.rates(), row.reading.counts);
    let seen = TABLE.iter().filter(|it| counts[it.verdict as usize] > 0);
    let lines = seen.map(|it| {
        let (rate, count) = (rates[it.verdict as usize], counts[it.verdict as usize]);
        let (rate, count) = (table::rate(rate), table::total(count));
        let name = Span::styled(format!("{:<9}", it.name), style(it.verdict, state.looks.colour));
        Line::from(vec![name, format!(" {rate:>6}/s {count:>8}  {}", it.help).into()])
    });
    let mut lines: Vec<_> = lines.collect();
    if lines.is_empty() {
        lines.push("no packet matched yet".into());
    }
    lines
}

/// How a verdict looks, here as in lines of events.
pub(super) fn style(verdict: Verdict, colour: bool) -> Style {
    style_of(sink::colour(verdict), colour)
}

/// A colour of lines of events, here.
pub(super) fn style_of(like: AnsiColor, colour: bool) -> Style {
    if !colour {
        return Style::new();
    }
    Style::new().fg(match like {
        AnsiColor::Green => Color::Green,
        AnsiColor::Yellow => Color::Yellow,
        _ => Color::Red,
    })
}

/// A heading on a rule, and lines below it.
fn pane<'a>(
    state: &State,
    heading: &str,
    lines: impl Iterator<Item = Line<'a>>,
    area: Rect,
    buffer: &mut Buffer,
) {
    let rule = if state.looks.unicode { "─" } else { "-" };
    let rest = usize::from(area.width).saturating_sub(heading.chars().count() + 4);
    let heading = format!("{} {heading} {}", rule.repeat(2), rule.repeat(rest));
    line(Span::styled(heading, Modifier::BOLD).into(), 0, area, buffer);
    for (at, text) in (1..area.height).zip(lines) {
        line(text, at, area, buffer);
    }
}

fn keys_line(state: &State) -> Line<'static> {
    if state.typing {
        return Line::from(format!("name: {}_  (Enter keeps it, Esc drops it)", state.filter));
    }
    let sort = format!("sort: {}", state.sort.name());
    let pause = if state.is_paused() { "go on" } else { "pause" };
    let arrows = if state.looks.unicode { "↑↓" } else { "j k" };
    let keys = [("q", "quit"), ("p", pause), ("/", "filter"), ("s", &*sort), (arrows, "select")];
    let mut spans = Vec::new();
    for (key, meaning) in keys {
        spans.push(Span::styled(key.to_owned(), Modifier::REVERSED));
        spans.push(Span::raw(format!(" {meaning}  ")));
    }
    spans.into()
}
