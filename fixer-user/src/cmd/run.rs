//! `fixer run`: attach, stream events, serve metrics; detach at the end.

use std::{
    fs::File,
    io::{self, BufWriter, IsTerminal as _, LineWriter},
};

use anyhow::{Context as _, Result, bail};
use futures_util::stream::{StreamExt as _, select_all};
use tokio::net::TcpListener;

use super::Outcome;
use crate::{
    bpf::remedy::missing_capabilities,
    cli::{self, Events, Metrics},
    net::{
        links::{Link, follow},
        netns::NetNs,
    },
    proof::prove,
    session::Session,
    signals::Signals,
    sink::{Json, Pcapng, Sink, SinkError, Text},
    site::Site,
    stream::Writer,
    summary,
};

/// Runs until a signal, or until nobody reads the events any more.
pub fn run(args: &cli::Run, verbose: u8) -> Result<Outcome> {
    if let Some(remedy) = missing_capabilities() {
        bail!("attaching an eBPF program needs privileges that this process lacks; {remedy}");
    }
    let namespaces = namespaces(&args.select)?;
    if !args.what.skip_selftest {
        refuse_where_the_fix_fails(args)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(work(args, namespaces, verbose));
    // A request for metrics that is still open must not keep us.
    runtime.shutdown_background();
    outcome.map(|()| Outcome::Done)
}

fn namespaces(select: &cli::Select) -> Result<Vec<NetNs>> {
    if select.netns.is_empty() {
        return Ok(vec![NetNs::current().context("cannot open our own network namespace")?]);
    }
    Ok(select.netns.iter().map(NetNs::open).collect::<Result<_, _>>()?)
}

fn refuse_where_the_fix_fails(args: &cli::Run) -> Result<()> {
    let advice = "no interface was touched; --skip-selftest attaches all the same";
    let proof = prove(args.what.attach_mode)
        .with_context(|| format!("cannot prove that the fix works on this kernel ({advice})"))?;
    if let Some(finding) = proof.failure() {
        bail!(
            "the fix does not work on this kernel ({advice}): not true that {}{}; \
             `fixer selftest` tells more",
            finding.trial,
            finding.seen.as_ref().map(|seen| format!(", {seen}")).unwrap_or_default()
        );
    }
    Ok(())
}

async fn work(args: &cli::Run, namespaces: Vec<NetNs>, verbose: u8) -> Result<()> {
    let mut signals = Signals::new()?;
    let listener = listen(args.metrics).await?;
    let sinks = sinks(args)?;

    let (mut found, mut changes) = (Vec::new(), Vec::new());
    for (number, netns) in namespaces.iter().enumerate() {
        let (links, stream) = follow(netns)
            .await
            .with_context(|| format!("cannot list the interfaces of '{netns}'"))?;
        refuse_what_is_missing(args, netns, &links)?;
        found.push(links);
        changes.push(stream.map(move |change| (number, change)).boxed());
    }
    let config = args.what.config(args.all, verbose > 1);
    let (hooks, wish) = (args.select.hook.each(), args.what.attach_mode);
    let mut sites = Vec::new();
    for netns in namespaces {
        sites.push(Site::new(netns, &config, args.select.selection(), hooks, wish)?);
    }
    let mut session = Session::new(sites, select_all(changes), Writer::start(sinks)?)?;

    let lived = session.live(found, listener, &mut signals).await;
    let closed = session.close().await;
    let (lived, ended) = match lived {
        Ok(Some(ended)) => (Ok(()), ended),
        Ok(None) => (Ok(()), session.finish().await),
        Err(error) => (Err(error), session.finish().await),
    };
    if lived.is_ok() {
        summary::print(session.sites(), args.events == Events::Json);
    }
    lived?;
    closed?;
    match ended {
        Err(SinkError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        ended => ended.context("cannot write the events"),
    }
}

/// An interface that was named and is not there is a mistake, found before anything is attached.
fn refuse_what_is_missing(args: &cli::Run, netns: &NetNs, links: &[Link]) -> Result<()> {
    let selection = args.select.selection();
    let missing = selection.missing(links);
    if missing.is_empty() {
        return Ok(());
    }
    let there: Vec<_> = links.iter().map(|link| link.name.as_str()).take(20).collect();
    bail!(
        "no interface '{}' in the network namespace '{netns}'; there are: {}; to wait for one, \
         write it as a glob: -i '[{}]{}'",
        missing.join("', '"),
        there.join(", "),
        &missing[0][..1],
        &missing[0][1..]
    );
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

fn sinks(args: &cli::Run) -> Result<Vec<Box<dyn Sink + Send>>> {
    let mut sinks: Vec<Box<dyn Sink + Send>> = Vec::new();
    let stdout = io::stdout();
    match args.events {
        Events::Text => {
            let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let colour = stdout.is_terminal() && !no_color;
            sinks.push(Box::new(Text::new(LineWriter::new(stdout), colour)));
        }
        Events::Json => sinks.push(Box::new(Json::new(LineWriter::new(stdout)))),
        Events::None => {}
    }
    if let Some(path) = &args.pcapng {
        let file = File::create(path)
            .with_context(|| format!("cannot write the capture file {}", path.display()))?;
        sinks.push(Box::new(Pcapng::new(BufWriter::new(file))?));
    }
    Ok(sinks)
}
