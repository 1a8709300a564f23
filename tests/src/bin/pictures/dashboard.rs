//! The dashboard: its panels in their places, each with what Prometheus answers to its own queries.

use anyhow::{Context as _, Result, bail};
use fixer_tests::{
    dashboard::{Dashboard, Grid, Panel},
    prometheus::Prometheus,
};
use plotters::prelude::{IntoDrawingArea as _, Rectangle, SVGBackend};
use plotters::style::{Color as _, text_anchor::HPos};

use crate::{
    chart::{Area, FAINT, INK, LINE, PAGE, PAPER, part, size, text, write},
    panels,
    series::Series,
};

/// The width of the picture, and the columns of Grafana's grid in it.
const WIDTH: u32 = 1040;
const COLUMNS: u32 = 24;

/// The height of a row of the grid.
const ROW: u32 = 26;

/// What is between two panels.
const GAP: i32 = 6;

/// The line of a panel's title.
const TITLE: i32 = 28;

/// The picture of the last seconds.
pub fn draw(prometheus: &Prometheus, seconds: u32) -> Result<String> {
    let dashboard = Dashboard::read()?;
    let ends = dashboard.panels.iter().map(|Panel { grid_pos: at, .. }| at.y + at.h);
    let height = ends.max().context("no panels")? * ROW + GAP as u32;
    let mut picture = String::new();
    {
        let page = SVGBackend::with_string(&mut picture, (WIDTH, height)).into_drawing_area();
        page.fill(&PAGE)?;
        for panel in &dashboard.panels {
            let place = place(&page, panel.grid_pos);
            let series = panel.targets.iter().map(|it| Series::ask(prometheus, it, seconds));
            let series = series.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
            draw_panel(&place, panel, series).with_context(|| panel.title.clone())?;
        }
        page.present()?;
    }
    Ok(picture)
}

fn place<'a>(page: &Area<'a>, Grid { x, y, w, h }: Grid) -> Area<'a> {
    let column = |at: u32| (at * (WIDTH - GAP as u32) / COLUMNS) as i32;
    let (left, right, top) = (column(x) + GAP, column(x + w), (y * ROW) as i32 + GAP);
    part(page, (left, top), (right - left, (h * ROW) as i32 - GAP))
}

fn draw_panel(area: &Area<'_>, panel: &Panel, series: Vec<Series>) -> Result<()> {
    let (width, height) = size(area);
    if panel.kind == "row" {
        return write(area, &format!("⌄  {}", panel.title), &text(15, INK, HPos::Left), (4, 1));
    }
    area.draw(&Rectangle::new([(0, 0), (width - 1, height - 1)], PAPER.filled()))?;
    area.draw(&Rectangle::new([(0, 0), (width - 1, height - 1)], LINE.stroke_width(1)))?;
    write(area, &panel.title, &text(13, INK, HPos::Left), (10, 8))?;
    let inside = part(area, (10, TITLE), (width - 20, height - TITLE - 6));
    if series.is_empty() {
        return write(&inside, "No data", &text(13, FAINT, HPos::Left), (0, 4));
    }
    match &*panel.kind {
        "stat" => panels::stat(&inside, panel, &series),
        "timeseries" => panels::timeseries(&inside, panel, &series),
        "state-timeline" => panels::states(&inside, panel, &series),
        "heatmap" => panels::heatmap(&inside, panel, &series),
        "table" => panels::table(&inside, &series),
        kind => bail!("how is a {kind} drawn?"),
    }
}
