//! Where `run` and `watch` show events.

use std::{
    fs::File,
    io::{self, BufWriter, LineWriter},
};

use anyhow::{Context as _, Result};

use crate::{
    cli::{Events, Output},
    say::wants_colour,
    sink::{Json, Pcapng, Sink as _, Text},
    stream::Sinks,
};

/// What was asked for. A capture file is made, or made anew.
pub fn sinks(output: &Output) -> Result<Sinks> {
    let mut sinks = Sinks::default();
    let stdout = io::stdout();
    match output.events {
        Events::Text => {
            let colour = wants_colour(&stdout);
            sinks.stream = Some(Box::new(Text::new(LineWriter::new(stdout), colour)));
        }
        Events::Json => sinks.stream = Some(Box::new(Json::new(LineWriter::new(stdout)))),
        Events::None => {}
    }
    if let Some(path) = &output.pcapng {
        let cannot = || format!("cannot write the capture file {}", path.display());
        let file = File::create(path).with_context(cannot)?;
        let mut capture = Pcapng::new(BufWriter::new(file)).with_context(cannot)?;
        // A full disk is found now, and not with the first event.
        capture.flush().with_context(cannot)?;
        sinks.capture = Some(Box::new(capture));
    }
    Ok(sinks)
}
