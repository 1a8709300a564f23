//! `fixer doctor`: why does a guest get no lease, or not boot?

use std::{io, time::Duration};

use anyhow::Result;

use super::{Outcome, checks};
use crate::{
    cli, doctor,
    say::{print, say, wants_colour},
    signals::end_with_the_reader,
};

/// Looks at the host, and prints what was found.
pub fn run(args: &cli::Doctor) -> Result<Outcome> {
    end_with_the_reader()?;
    let listen = args.listen.map(Duration::from_secs);
    if let Some(seconds) = args.listen {
        say(format_args!("listening for {seconds} s: start the guest now"));
    }
    checks::open_many_files();
    let report = doctor::examine(&args.select, listen)?;
    print(match args.json {
        true => doctor::to_json(&report)? + "\n",
        false => doctor::to_text(&report, wants_colour(&io::stdout())),
    })?;
    Ok(if report.has_problem() { Outcome::Problem } else { Outcome::Done })
}
