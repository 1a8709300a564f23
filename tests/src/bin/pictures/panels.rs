//! Each kind of panel.

use std::{collections::BTreeSet, ops::Range};

use anyhow::{Context as _, Result};
use fixer_tests::dashboard::Panel;
use plotters::{
    chart::{ChartBuilder, ChartContext},
    coord::{cartesian::Cartesian2d, types::RangedCoordf64},
    element::{PathElement, Polygon, Rectangle},
    prelude::{RGBColor, SVGBackend},
    style::{Color as _, TRANSPARENT, text_anchor::HPos},
};

use crate::{
    chart::{Area, FAINT, INK, LINE, named, numbered, part, size, text, time, value, write},
    series::Series,
};

/// What the legend beside a chart takes, and a line of it.
const LEGEND: i32 = 214;
const LINE_HEIGHT: i32 = 14;

/// What the labels below a chart take, and those on its left.
const BELOW: u32 = 20;
const LEFT: u32 = 54;

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// The one number that matters.
pub fn stat(area: &Area<'_>, panel: &Panel, series: &[Series]) -> Result<()> {
    let last = series[0].last().context("no value")?;
    let colour = named(panel.field_config.colour_of(last).context("no colour")?)?;
    let (width, height) = size(area);
    let number = value(&panel.field_config.defaults.unit, last);
    write(area, &number, &text(34, colour, HPos::Center), (width / 2, height / 2 - 20))
}

/// Lines over time, or areas that stand on each other, with a legend beside them.
pub fn timeseries(area: &Area<'_>, panel: &Panel, series: &[Series]) -> Result<()> {
    let unit = &*panel.field_config.defaults.unit;
    let series: Vec<_> = series.iter().filter(|it| it.last().is_some()).collect();
    let coloured =
        series.iter().enumerate().map(|(number, it)| Ok((*it, colour(panel, it, number)?)));
    let coloured = coloured.collect::<Result<Vec<_>>>()?;
    let (width, height) = size(area);
    let legend_width = LEGEND.min(width * 3 / 5);
    legend(&part(area, (width - legend_width, 0), (legend_width, height)), unit, &coloured)?;

    let is_stacked = panel.field_config.is_stacked();
    let stacked = stack(&series);
    let highest = match is_stacked {
        true => stacked.iter().flatten().map(|(_, _, top)| *top).fold(0.0, f64::max),
        false => series.iter().filter_map(|it| it.max()).fold(0.0, f64::max),
    };
    let top = if highest > 0.0 { highest * 1.1 } else { 1.0 };
    let place = part(area, (0, 0), (width - legend_width - 8, height));
    let mut chart = chart(&place, span(&series)?, top, LEFT)?;
    mesh(&mut chart, 4, &|it| value(unit, *it))?;
    for ((series, colour), stacked) in coloured.iter().zip(&stacked).rev() {
        if is_stacked {
            let up = stacked.iter().map(|(time, _, top)| (*time, *top));
            let down = stacked.iter().rev().map(|(time, bottom, _)| (*time, *bottom));
            let edge: Vec<_> = up.clone().collect();
            chart
                .draw_series([Polygon::new(up.chain(down).collect::<Vec<_>>(), colour.mix(0.3))])?;
            chart.draw_series([PathElement::new(edge, colour.stroke_width(1))])?;
            continue;
        }
        for piece in series.pieces() {
            chart.draw_series([PathElement::new(piece, colour.stroke_width(2))])?;
        }
    }
    Ok(())
}

/// When each series begins and ends on top of those before it: times, bottoms and tops.
fn stack(series: &[&Series]) -> Vec<Vec<(f64, f64, f64)>> {
    let below = |number: usize, time: f64| -> f64 {
        let values = series[..number].iter().filter_map(|it| {
            it.points
                .iter()
                .find(|[at, value]| *at == time && !value.is_nan())
                .map(|[_, value]| value)
        });
        values.sum()
    };
    let on_top = |(number, series): (usize, &&Series)| {
        let points = series.pieces().flatten();
        let stacked = points.map(|(time, value)| {
            let bottom = below(number, time);
            (time, bottom, bottom + value)
        });
        stacked.collect()
    };
    series.iter().enumerate().map(on_top).collect()
}

fn colour(panel: &Panel, series: &Series, number: usize) -> Result<RGBColor> {
    panel.field_config.colour(&series.name).map_or_else(|| Ok(numbered(number)), named)
}

/// The first moment and the last.
fn span(series: &[&Series]) -> Result<Range<f64>> {
    let times = series.iter().flat_map(|it| it.points.iter().map(|[time, _]| *time));
    let first = times.clone().reduce(f64::min).context("no point")?;
    Ok(first..times.fold(first + 1.0, f64::max))
}

fn chart<'a, 'b>(
    area: &'a Area<'b>,
    span: Range<f64>,
    top: f64,
    left: u32,
) -> Result<Chart<'a, 'b>> {
    let mut builder = ChartBuilder::on(area);
    builder.x_label_area_size(BELOW).y_label_area_size(left).margin_top(6).margin_right(4);
    Ok(builder.build_cartesian_2d(span, 0.0..top)?)
}

/// Lines, and labels at them.
fn mesh(chart: &mut Chart<'_, '_>, rows: usize, label: &dyn Fn(&f64) -> String) -> Result<()> {
    let (width, _) = chart.plotting_area().dim_in_pixel();
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(LINE)
        .axis_style(LINE)
        .label_style(text(11, FAINT, HPos::Left))
        .x_labels(width as usize / 50)
        .y_labels(rows)
        .x_label_formatter(&|it| time(*it))
        .y_label_formatter(label)
        .draw()?;
    Ok(())
}

/// A line for each series: its name, its last value and its greatest.
fn legend(area: &Area<'_>, unit: &str, series: &[(&Series, RGBColor)]) -> Result<()> {
    let (width, height) = size(area);
    let [left, right] = [HPos::Left, HPos::Right].map(|align| text(11, INK, align));
    let head = text(10, FAINT, HPos::Right);
    let (max, last) = (width - 2, width - 52);
    write(area, "Last", &head, (last, 0))?;
    write(area, "Max", &head, (max, 0))?;
    let lines = (1..(height / LINE_HEIGHT)).zip(series);
    for (number, (series, colour)) in lines {
        let y = number * LINE_HEIGHT;
        area.draw(&Rectangle::new([(0, y + 6), (10, y + 8)], colour.filled()))?;
        let room = (last - 57) / 6;
        write(area, &shortened(&series.name, room as usize), &left, (15, y))?;
        for (place, number) in [(last, series.last()), (max, series.max())] {
            let number = number.map_or_else(String::new, |number| value(unit, number));
            write(area, &number, &right, (place, y))?;
        }
    }
    Ok(())
}

fn shortened(name: &str, room: usize) -> String {
    if name.chars().count() <= room {
        return name.to_owned();
    }
    name.chars().take(room - 1).chain(['…']).collect()
}

/// A bar for each series, in the colour of what it is.
pub fn states(area: &Area<'_>, panel: &Panel, series: &[Series]) -> Result<()> {
    let (width, height) = size(area);
    let names = 170;
    let row = ((height - BELOW as i32 - 6) / series.len() as i32).min(34);
    let all: Vec<_> = series.iter().collect();
    let bars = part(area, (0, 0), (width, row * series.len() as i32 + BELOW as i32 + 6));
    let mut chart = chart(&bars, span(&all)?, series.len() as f64, names)?;
    mesh(&mut chart, 1, &|_| String::new())?;
    for (number, series) in series.iter().rev().enumerate() {
        let (low, high) = (number as f64 + 0.15, number as f64 + 0.85);
        for piece in series.points.chunk_by(|[_, one], [_, other]| one == other) {
            let colour = named(panel.field_config.colour_of(piece[0][1]).context("no colour")?)?;
            let ends = [(piece[0][0], low), (piece[piece.len() - 1][0], high)];
            chart.draw_series([Rectangle::new(ends, colour.mix(0.75).filled())])?;
        }
    }
    for (number, series) in (0..).zip(series) {
        let at = (names as i32 - 8, 6 + row * number + row / 2 - 7);
        write(area, &series.name, &text(11, INK, HPos::Right), at)?;
    }
    Ok(())
}

/// How many exchanges took how long: the more, the brighter.
pub fn heatmap(area: &Area<'_>, panel: &Panel, series: &[Series]) -> Result<()> {
    let bound = |it: &Series| it.labels.get("le").and_then(|le| le.parse::<f64>().ok());
    let mut buckets: Vec<_> = series.iter().filter_map(|it| Some((bound(it)?, it))).collect();
    buckets.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    let all: Vec<_> = series.iter().collect();
    let mut chart = chart(area, span(&all)?, buckets.len() as f64, LEFT)?;
    let unit = &*panel.field_config.defaults.unit;
    // A cell ends at the bound of its bucket, and begins at that of the one below.
    let label = |at: &f64| match (*at as usize).checked_sub(1).map(|below| buckets[below].0) {
        Some(bound) if bound.is_finite() => value(unit, bound),
        Some(_) => String::new(),
        None => value(unit, 0.0),
    };
    mesh(&mut chart, buckets.len(), &label)?;
    let cells = cells(&buckets.iter().map(|(_, it)| *it).collect::<Vec<_>>());
    let most = cells.iter().map(|(.., count)| *count).fold(0.0, f64::max);
    for (time, row, count) in cells {
        let colour = RGBColor(255, 140, 30).mix(0.15 + 0.85 * count / most);
        let corners = [(time - STEP as f64, row as f64), (time, row as f64 + 1.0)];
        chart.draw_series([Rectangle::new(corners, colour.filled())])?;
    }
    Ok(())
}

/// How many seconds a cell of a heat map is wide.
const STEP: usize = 3;

/// What is in a bucket and not in the one below it, wherever something is: the time, the bucket's
/// number, and how much.
fn cells(buckets: &[&Series]) -> Vec<(f64, usize, f64)> {
    let times: BTreeSet<u64> =
        buckets.iter().flat_map(|it| it.points.iter().map(|[time, _]| *time as u64)).collect();
    let at = |row: usize, time: u64| {
        let points = buckets[row].points.iter();
        points.clone().find(|[at, _]| *at as u64 == time).map_or(0.0, |[_, value]| *value)
    };
    let mut cells = Vec::new();
    for time in times.into_iter().skip(STEP).step_by(STEP) {
        for row in 0..buckets.len() {
            let below = if row == 0 { 0.0 } else { at(row - 1, time) };
            let count = at(row, time) - below;
            if count > 0.01 {
                cells.push((time as f64, row, count));
            }
        }
    }
    cells
}

/// A line for each series, a column for each label.
pub fn table(area: &Area<'_>, series: &[Series]) -> Result<()> {
    let labels: BTreeSet<_> = series.iter().flat_map(|it| it.labels.keys()).collect();
    let (width, _) = size(area);
    let column = width / labels.len().max(1) as i32;
    for (x, label) in (0..).map(|number| number * column).zip(&labels) {
        write(area, label, &text(12, FAINT, HPos::Left), (x, 4))?;
        for (y, series) in (1..).map(|line| 8 + line * 20).zip(series) {
            let cell = series.labels.get(*label).map_or("", String::as_str);
            // What a kernel's release has behind a dash tells where the picture was drawn, and no more.
            let cell = cell.split('-').next().unwrap_or(cell);
            write(area, cell, &text(12, INK, HPos::Left), (x, y))?;
        }
    }
    area.draw(&PathElement::new([(0, 23), (width, 23)], LINE.stroke_width(1)))?;
    Ok(())
}
