//! Writes, and waits for whoever reads what is written.

use std::sync::mpsc::{Receiver, TryRecvError};

use super::backlog::{Batch, Behind, Line};
use crate::{
    say::say,
    sink::{Sink, SinkError},
};

/// Where events go.
#[derive(Default)]
pub struct Sinks {
    /// The stream on standard output. When it ends, so does the run: its reader has seen enough.
    pub stream: Option<Box<dyn Sink + Send>>,
    /// The capture file. When it cannot be written any more (a full disk), the fix goes on without.
    pub capture: Option<Box<dyn Sink + Send>>,
}

impl Sinks {
    fn each(
        &mut self,
        mut act: impl FnMut(&mut dyn Sink) -> Result<(), SinkError>,
    ) -> Result<(), SinkError> {
        if let Some(capture) = &mut self.capture
            && let Err(error) = act(capture.as_mut())
        {
            self.capture = None;
            say(format_args!("cannot write the capture file any more, and go on without: {error}"));
        }
        self.stream.as_mut().map_or(Ok(()), |stream| act(stream.as_mut()))
    }

    fn line(&mut self, line: Line) -> Result<(), SinkError> {
        match line {
            Line::Event(event, unshown) => {
                self.each(|sink| sink.event(&event))?;
                unshown.show();
                Ok(())
            }
            Line::Exchange(ending) => self.each(|sink| sink.exchange(&ending)),
            Line::Lost(lost) => self.each(|sink| sink.lost(&lost)),
            Line::Failure(error) => Err(error),
        }
    }
}

/// Writes what comes, until nobody is left from whom something could come.
pub(super) fn write(
    lines: &Receiver<Batch>,
    behind: &Behind,
    mut sinks: Sinks,
) -> Result<(), SinkError> {
    loop {
        let batch = match lines.try_recv() {
            Ok(batch) => batch,
            Err(TryRecvError::Disconnected) => return sinks.each(|sink| sink.finish()),
            Err(TryRecvError::Empty) => {
                sinks.each(|sink| sink.flush())?;
                match lines.recv() {
                    Ok(batch) => batch,
                    Err(_) => continue,
                }
            }
        };
        batch.lines.into_iter().try_for_each(|line| sinks.line(line))?;
        behind.less(batch.size);
    }
}
