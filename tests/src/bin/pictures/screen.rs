//! A terminal's screen as a picture: text where it stands, in its colours.

use std::fmt::Write as _;

use vt100::{Cell, Color, Screen};

/// The size of a cell, of the letters in it, and of the frame around all.
const CELL: [f64; 2] = [8.4, 18.0];
const LETTERS: u32 = 14;
const FRAME: f64 = 12.0;

/// Where letters stand in a cell, from its top.
const BASE: f64 = 13.5;

const PAPER: &str = "#16181d";
const INK: &str = "#d5d8df";

/// The eight colours that terminals have, and as bright ones once more.
const COLOURS: [&str; 16] = [
    "#5c6370", "#e8636f", "#8cc265", "#e0b05c", "#61aeee", "#c678dd", "#56b6c2", "#d5d8df",
    "#7f848e", "#f0808a", "#a5d67f", "#f0c674", "#82c0f5", "#d49ae6", "#7bcad4", "#ffffff",
];

/// How a cell looks.
#[derive(PartialEq)]
struct Look {
    ink: &'static str,
    paper: &'static str,
    is_bold: bool,
}

impl Look {
    fn of(cell: &Cell) -> Self {
        let [ink, paper] = [(cell.fgcolor(), INK), (cell.bgcolor(), PAPER)];
        let [ink, paper] = [ink, paper].map(|(colour, plain)| match colour {
            Color::Idx(index) => COLOURS.get(usize::from(index)).copied().unwrap_or(plain),
            Color::Default | Color::Rgb(..) => plain,
        });
        let [ink, paper] = if cell.inverse() { [paper, ink] } else { [ink, paper] };
        Self { ink, paper, is_bold: cell.bold() }
    }
}

/// The picture of a screen.
pub fn draw(screen: &Screen) -> String {
    let (lines, columns) = screen.size();
    let (lines, columns) = (lines.get(), columns.get());
    let [width, height] = [(columns, CELL[0]), (lines, CELL[1])]
        .map(|(cells, size)| f64::from(cells) * size + 2.0 * FRAME);
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-family="ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace" font-size="{LETTERS}">
<rect width="100%" height="100%" rx="8" fill="{PAPER}"/>
"#
    );
    for line in 0..lines {
        let cells: Vec<_> =
            (0..columns).filter_map(|column| screen.cell(line, column)).map(drawn).collect();
        let mut first = 0;
        for run in cells.chunk_by(|(_, one), (_, other)| one == other) {
            let text: String = run.iter().map(|(text, _)| *text).collect();
            draw_run(&mut svg, [first, usize::from(line)], &text, &run[0].1);
            first += run.len();
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn drawn(cell: &Cell) -> (&str, Look) {
    let text = if cell.has_contents() { cell.contents() } else { " " };
    (text, Look::of(cell))
}

/// Draws cells that look alike.
fn draw_run(svg: &mut String, [column, line]: [usize; 2], text: &str, look: &Look) {
    let [x, y] = [(column, CELL[0]), (line, CELL[1])].map(|(at, size)| at as f64 * size + FRAME);
    let width = text.chars().count() as f64 * CELL[0];
    // Writing to a string cannot fail.
    let _ = match look.paper {
        PAPER => Ok(()),
        paper => writeln!(
            svg,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="18" fill="{paper}"/>"#
        ),
    };
    let weight = if look.is_bold { r#" font-weight="bold""# } else { "" };
    for (at, words) in words(text) {
        let x = x + at as f64 * CELL[0];
        let ink = look.ink;
        let letters = words.chars().count() as f64 * CELL[0];
        let _ = match words.chars().next() {
            Some('▁'..='█') => draw_bars(svg, [x, y], words, ink),
            Some('─') => writeln!(
                svg,
                r#"<path d="M{x:.1} {:.1}h{letters:.1}" stroke="{ink}" stroke-opacity="0.6"/>"#,
                y + CELL[1] / 2.0
            ),
            _ => writeln!(
                svg,
                r#"<text x="{x:.1}" y="{:.1}" textLength="{letters:.1}" fill="{ink}"{weight} xml:space="preserve">{}</text>"#,
                y + BASE,
                escaped(words)
            ),
        };
    }
}

/// Bars of so many eighths of a cell: fonts draw them as they like.
fn draw_bars(svg: &mut String, [x, y]: [f64; 2], bars: &str, ink: &str) -> std::fmt::Result {
    bars.chars().zip(0_u32..).try_for_each(|(bar, at)| {
        let height = f64::from(bar as u32 - '▁' as u32 + 1) * CELL[1] / 8.0;
        let [x, y] = [x + f64::from(at) * CELL[0], y + CELL[1] - height];
        let width = CELL[0] - 0.6;
        writeln!(
            svg,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{ink}"/>"#
        )
    })
}

/// The words of a text, each with its place; bars and rules are words of their own.
fn words(text: &str) -> Vec<(usize, &str)> {
    let kind = |letter: char| match letter {
        ' ' => 0,
        '▁'..='█' => 1,
        '─' => 2,
        _ => 3,
    };
    let letters: Vec<_> = text.char_indices().enumerate().collect();
    let words = letters.chunk_by(|(_, (_, one)), (_, (_, other))| kind(*one) == kind(*other));
    let word = |word: &[(usize, (usize, char))]| {
        let (at, (first, _)) = *word.first()?;
        let (_, (last, letter)) = *word.last()?;
        Some((at, &text[first..last + letter.len_utf8()]))
    };
    words.filter_map(word).filter(|(_, word)| !word.starts_with(' ')).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
