//! The table of exchanges between clients and servers: as many columns as fit.

use anstyle::AnsiColor;
use ratatui::{
    style::{Modifier, Style},
    text::Line,
};

use super::{
    columns::{Column, Columns, GAP},
    heard::Talk,
    state::Looks,
    view::style_of,
};
use crate::{net::netns::HOST, sink};

static COLUMNS: [Column<Talk>; 8] = [
    Column::text("BEGAN", 6, |talk| talk.began().strftime("%H:%M:%S").to_string()),
    Column::text("INTERFACE", 7, |talk| match &*talk.ending.netns {
        HOST => talk.ending.interface.to_string(),
        netns => format!("{netns}/{}", talk.ending.interface),
    }),
    Column::text("CLIENT", 0, client),
    Column::text("SAID", 3, |talk| talk.ending.exchange.messages.to_string()),
    Column::text(OUTCOME, 0, |talk| match talk.goes_on {
        true => "waiting".to_owned(),
        false => talk.ending.exchange.outcome.row().name.to_owned(),
    }),
    Column::text("ADDRESS", 1, |talk| shown(talk.address())),
    Column::text("SERVER", 4, |talk| shown(talk.server())),
    Column::number("TOOK", 2, |talk| took(talk.ending.exchange.seconds)),
];

const OUTCOME: &str = "OUTCOME";

/// A line of titles and one for each exchange, in so many characters.
pub fn lines(talks: &[Talk], looks: Looks, width: u16) -> Vec<Line<'static>> {
    let columns = Columns::new(&COLUMNS, talks, usize::from(width) + GAP);
    let style = |column: &Column<Talk>, talk: &Talk| match column.title == OUTCOME {
        true => outcome_style(talk, looks),
        false => Style::new(),
    };
    let titles = Line::from(columns.titles()).style(Modifier::BOLD);
    let rows = talks.iter().map(|talk| columns.cells(talk, |column| style(column, talk)).into());
    [titles].into_iter().chain(rows).collect()
}

fn outcome_style(talk: &Talk, looks: Looks) -> Style {
    let colour = match talk.goes_on {
        true => AnsiColor::Yellow,
        false => sink::outcome_colour(talk.ending.exchange.outcome),
    };
    style_of(colour, looks.colour)
}

fn client(talk: &Talk) -> String {
    let exchange = &talk.ending.exchange;
    let client = match exchange.client_mac {
        Some(mac) => mac.to_string(),
        None => format!("xid {}", exchange.xid),
    };
    if exchange.pxe { format!("{client} PXE") } else { client }
}

fn shown<T: ToString>(what: Option<T>) -> String {
    what.map_or_else(|| "-".to_owned(), |what| what.to_string())
}

/// A length of time, in six characters up to a quarter of an hour.
fn took(seconds: f64) -> String {
    match seconds {
        few if few < 0.009_95 => format!("{:.1} ms", few * 1e3),
        some if some < 0.999_5 => format!("{:.0} ms", some * 1e3),
        many if many < 99.95 => format!("{many:.1} s"),
        lots => format!("{lots:.0} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_stay_short() {
        let times = [0.0, 0.0042, 0.00996, 0.9994, 0.9996, 99.94, 99.96, 9999.0].map(took);
        let short = ["0.0 ms", "4.2 ms", "10 ms", "999 ms", "1.0 s", "99.9 s", "100 s", "9999 s"];
        assert_eq!(times, short);
    }
}
