//! What panels have in common: where they are, how text looks on them, and the colours.

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use plotters::{
    coord::Shift,
    prelude::{DrawingArea, IntoFont as _, RGBColor, SVGBackend},
    style::{
        Color as _, TextStyle,
        text_anchor::{HPos, Pos, VPos},
    },
};

/// A part of the picture.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

pub const PAGE: RGBColor = RGBColor(17, 18, 23);
pub const PAPER: RGBColor = RGBColor(24, 27, 31);
pub const LINE: RGBColor = RGBColor(52, 56, 64);
pub const INK: RGBColor = RGBColor(214, 217, 224);
pub const FAINT: RGBColor = RGBColor(150, 155, 165);

/// Colours as Grafana names them.
const NAMED: [(&str, RGBColor); 9] = [
    ("green", RGBColor(115, 191, 105)),
    ("blue", RGBColor(87, 148, 242)),
    ("light-blue", RGBColor(138, 184, 255)),
    ("orange", RGBColor(255, 152, 48)),
    ("red", RGBColor(242, 73, 92)),
    ("dark-red", RGBColor(196, 22, 42)),
    ("dark-orange", RGBColor(250, 100, 0)),
    ("purple", RGBColor(184, 119, 217)),
    ("#888888", RGBColor(136, 136, 136)),
];

/// The colours of series that have none of their own, in this order.
const OTHERS: [RGBColor; 8] = [
    RGBColor(242, 204, 12),
    RGBColor(87, 148, 242),
    RGBColor(255, 120, 10),
    RGBColor(242, 73, 92),
    RGBColor(184, 119, 217),
    RGBColor(86, 182, 194),
    RGBColor(229, 192, 160),
    RGBColor(115, 191, 105),
];

/// A colour by its name, which the dashboard has.
pub fn named(name: &str) -> Result<RGBColor> {
    let found = NAMED.iter().find(|(known, _)| *known == name);
    Ok(found.with_context(|| format!("how does '{name}' look?"))?.1)
}

/// The colour of the series with this number, if it has none by its name.
pub fn numbered(number: usize) -> RGBColor {
    OTHERS[number % OTHERS.len()]
}

/// How text looks.
pub fn text(size: u32, colour: RGBColor, align: HPos) -> TextStyle<'static> {
    ("system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif", size)
        .into_font()
        .color(&colour.to_rgba())
        .pos(Pos::new(align, VPos::Top))
}

/// Writes words into an area.
pub fn write(area: &Area<'_>, words: &str, style: &TextStyle<'_>, at: (i32, i32)) -> Result<()> {
    Ok(area.draw_text(words, style, at)?)
}

/// A time of day.
pub fn time(seconds: f64) -> String {
    let time = Timestamp::from_second(seconds as i64);
    time.map(|time| time.strftime("%H:%M:%S").to_string()).unwrap_or_default()
}

/// A value in a unit, as Grafana calls units.
pub fn value(unit: &str, value: f64) -> String {
    let short = |value: f64| match value {
        0.0 => "0".to_owned(),
        some if some.abs() < 9.95 => format!("{some:.1}").trim_end_matches(".0").to_owned(),
        many => format!("{many:.0}"),
    };
    match unit {
        "pps" => format!("{} p/s", short(value)),
        "ops" => format!("{} ops/s", short(value)),
        "s" if value != 0.0 && value < 0.9995 => format!("{} ms", short(value * 1e3)),
        "s" => format!("{} s", short(value)),
        _ => short(value),
    }
}

/// The size of an area.
pub fn size(area: &Area<'_>) -> (i32, i32) {
    let (width, height) = area.dim_in_pixel();
    (width as i32, height as i32)
}

/// An area that begins at this place in another, with this size.
pub fn part<'a>(area: &Area<'a>, at: (i32, i32), size: (i32, i32)) -> Area<'a> {
    area.clone().shrink(at, size)
}
