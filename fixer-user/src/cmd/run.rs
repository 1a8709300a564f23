//! `fixer run`: attach, stream events, serve metrics; detach at the end.

use std::{
    fs::File,
    io::{self, BufWriter, IsTerminal as _, LineWriter},
};

use anyhow::{Context as _, Result};
use tokio::net::TcpListener;

use super::{Outcome, checks};
use crate::{
    bpf::load::Config,
    cli::{self, Events, Metrics},
    net::netns::NetNs,
    session::Session,
    signals::Signals,
    sink::{Json, Pcapng, Sink, SinkError, Text},
    site::Site,
    stream::{Sinks, Writer},
    summary,
};

/// Runs until a signal, or until nobody reads the events any more.
pub fn run(args: &cli::Run, verbose: u8) -> Result<Outcome> {
    checks::privileges()?;
    let namespaces = checks::namespaces(&args.select)?;
    let config = checks::proven(&args.what, args.what.config(args.all, verbose > 1))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(work(args, namespaces, &config));
    // A request for metrics that is still open must not keep us.
    runtime.shutdown_background();
    outcome.map(|()| Outcome::Done)
}

async fn work(args: &cli::Run, namespaces: Vec<NetNs>, config: &Config) -> Result<()> {
    let mut signals = Signals::new()?;
    let listener = listen(args.metrics).await?;

    let (hooks, wish) = (args.what.hook.each(), args.what.attach_mode);
    let (mut sites, mut found) = (Vec::new(), Vec::new());
    for netns in namespaces {
        let selection = args.select.selection();
        let (site, links) = Site::new(netns.clone(), config, selection, hooks, wish).await?;
        checks::every_name_will_do(&args.select, &netns, &links)?;
        sites.push(site);
        found.push(links);
    }
    // Only now: until here a mistake must not have cost anyone an old capture file.
    let writer = Writer::start(sinks(args)?)?;
    let mut session = Session::new(sites, writer)?;

    let lived = session.live(found, listener, &mut signals).await;
    let closed = session.close().await;
    let (lived, ended) = match lived {
        Ok(Some(ended)) => (Ok(()), Some(ended)),
        Ok(None) => (Ok(()), session.finish().await),
        Err(error) => (Err(error), session.finish().await),
    };
    if lived.is_ok() {
        // The events may have a reader that wants no other lines, or one that is stuck.
        let to_stderr = args.events == Events::Json || ended.is_none();
        summary::print(session.sites(), to_stderr);
    }
    lived?;
    closed?;
    match ended.unwrap_or(Ok(())) {
        Err(SinkError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        ended => ended.context("cannot write the events"),
    }
}

async fn listen(Metrics(address): Metrics) -> Result<Option<TcpListener>> {
    let Some(address) = address else { return Ok(None) };
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!(
            "cannot serve metrics on {address} (nothing was attached; choose another place with \
             --metrics ADDR:PORT, or none with --metrics off)"
        )
    })?;
    Ok(Some(listener))
}

fn sinks(args: &cli::Run) -> Result<Sinks> {
    let mut sinks = Sinks::default();
    let stdout = io::stdout();
    match args.events {
        Events::Text => {
            let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let colour = stdout.is_terminal() && !no_color;
            sinks.stream = Some(Box::new(Text::new(LineWriter::new(stdout), colour)));
        }
        Events::Json => sinks.stream = Some(Box::new(Json::new(LineWriter::new(stdout)))),
        Events::None => {}
    }
    if let Some(path) = &args.pcapng {
        let cannot = || format!("cannot write the capture file {}", path.display());
        let file = File::create(path).with_context(cannot)?;
        let mut capture = Pcapng::new(BufWriter::new(file)).with_context(cannot)?;
        // A full disk is found now, and not with the first event.
        capture.flush().with_context(cannot)?;
        sinks.capture = Some(Box::new(capture));
    }
    Ok(sinks)
}
