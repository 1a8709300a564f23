//! Columns of text: each as wide as its widest cell, and as many as fit.

use ratatui::{style::Style, text::Span};

/// What is between two columns.
pub const GAP: usize = 2;

/// A column of a table of these.
pub struct Column<T: 'static> {
    /// What stands above it.
    pub title: &'static str,
    /// How early it is left out where there is no room: the greatest first, 0 never.
    spare: u8,
    /// Whether its cells are numbers, which are aligned on the right.
    is_number: bool,
    cell: fn(&T) -> String,
}

impl<T> Column<T> {
    /// A column of text.
    pub const fn text(title: &'static str, spare: u8, cell: fn(&T) -> String) -> Self {
        Self { title, spare, is_number: false, cell }
    }

    /// A column of numbers.
    pub const fn number(title: &'static str, spare: u8, cell: fn(&T) -> String) -> Self {
        Self { title, spare, is_number: true, cell }
    }

    fn padded(&self, cell: &str, width: usize) -> String {
        let gap = " ".repeat(GAP);
        if self.is_number { format!("{cell:>width$}{gap}") } else { format!("{cell:<width$}{gap}") }
    }
}

/// Columns, each with its width.
pub struct Columns<T: 'static>(Vec<(&'static Column<T>, usize)>);

impl<T> Columns<T> {
    /// As many of these columns as fit into so many characters, for these rows.
    pub fn new<'a>(
        columns: impl IntoIterator<Item = &'static Column<T>>,
        rows: impl IntoIterator<Item = &'a T> + Clone,
        room: usize,
    ) -> Self {
        let width = |column: &Column<T>| {
            let cells = rows.clone().into_iter().map(|row| (column.cell)(row).chars().count());
            cells.chain([column.title.len()]).max().unwrap_or(0)
        };
        let widths = columns.into_iter().map(|column| (column, width(column)));
        let mut columns = Self(widths.collect());
        while columns.width() > room {
            let most = columns.0.iter().map(|(column, _)| column.spare).max().unwrap_or(0);
            if most == 0 {
                break;
            }
            columns.0.retain(|(column, _)| column.spare < most);
        }
        columns
    }

    /// What they take, with the gap behind the last one.
    pub fn width(&self) -> usize {
        self.0.iter().map(|(_, width)| width + GAP).sum()
    }

    /// The titles.
    pub fn titles(&self) -> Vec<Span<'static>> {
        self.0.iter().map(|(column, width)| column.padded(column.title, *width).into()).collect()
    }

    /// A row, each cell in the style of its column.
    pub fn cells(&self, row: &T, style: impl Fn(&Column<T>) -> Style) -> Vec<Span<'static>> {
        let cell = |(column, width): &(&'static Column<T>, usize)| {
            Span::styled(column.padded(&(column.cell)(row), *width), style(column))
        };
        self.0.iter().map(cell).collect()
    }
}
