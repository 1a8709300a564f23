//! `fixer run`: attach, stream events, serve metrics; detach at the end.

use std::{io, time::Duration};

use anyhow::{Context as _, Result};
use nix::unistd::User;
use tokio::{net::TcpListener, signal::unix::Signal};

use super::{Outcome, checks, sinks::sinks};
use crate::{
    cli::{self, Events, Metrics},
    exchange::Ledger,
    metrics::{Exports, Push},
    net::netns::NetNs,
    privileges::{self, Act, TO_ATTACH, TO_STAY},
    service,
    session::{Plan, Session},
    signals::{Request, Signals, hangup},
    sink::SinkError,
    stream::{Follower, Writer},
    summary,
};

/// Runs until a signal, or until nobody reads the events any more.
pub fn run(args: &cli::Run, verbose: u8) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Who asks for a reload while the self-test runs must not end it. Who wants the end gets it at once.
    let early = args.config.as_ref().map(|_| {
        let _entered = runtime.enter();
        hangup()
    });
    let early = early.transpose()?;
    let acts = [TO_ATTACH, if args.user.is_some() { &[Act::Become] } else { &[] }].concat();
    checks::privileges(&acts, &args.select, Some(&args.what))?;
    let user = args.user.as_deref().map(privileges::user).transpose()?;
    let namespaces = checks::namespaces_now(&args.select)?;
    let config = checks::proven(&args.what, args.config(verbose > 1))?;
    let (config, is_proven) = checks::foreseen(args, config);
    let plan = Plan::new(args, config, is_proven);
    checks::open_many_files();
    for netns in &namespaces {
        checks::wait_for_others(netns)?;
    }
    let outcome = runtime.block_on(work(args, namespaces, plan, user.as_ref(), early));
    // A request for metrics that is still open must not keep us.
    runtime.shutdown_background();
    outcome.map(|()| Outcome::Done)
}

async fn work(
    args: &cli::Run,
    namespaces: Vec<NetNs>,
    mut plan: Plan,
    user: Option<&User>,
    early: Option<Signal>,
) -> Result<()> {
    let mut signals = match early {
        Some(hangup) => Signals::with(hangup, Request::Reload)?,
        None => Signals::new(Request::End)?,
    };
    let listener = listen(args.metrics).await?;
    let pause = Duration::from_secs(args.otlp_interval);
    let push = args.otlp.as_ref().map(|endpoint| Push::new(endpoint, pause));
    let mut exports = Exports { listener, push };

    let (mut sites, mut found) = (Vec::new(), Vec::new());
    for netns in namespaces {
        let (site, links) = plan.site(netns.clone()).await?;
        if args.select.requires(netns.spec()) {
            checks::every_name_will_do(&args.select, &netns, &links)?;
        }
        sites.push(site);
        found.push(links);
    }
    // Only now: until here a mistake must not have cost anyone an old capture file.
    let sinks = sinks(&args.output)?;
    let ledger = Ledger::default();
    ledger.follow(args.sees_exchanges());
    let mut session = Session::new(sites, &plan, ledger.clone())?;
    let begun = session.attach(found, &plan).and_then(|()| {
        // Threads that are there already would keep their privileges: so the writer comes after.
        privileges::keep(&later(args), user).context("cannot give up privileges")?;
        let patience = Duration::from_secs(args.exchange_timeout);
        let writer = Writer::start(sinks, Follower::new(ledger.clone(), patience))?;
        session.show(writer, plan.config().events)
    });
    let lived = match begun {
        Ok(()) => session.live(&mut exports, &mut signals, &mut plan).await,
        Err(error) => Err(error),
    };
    service::stopping();
    let closed = session.close().await;
    let (lived, ended) = match lived {
        Ok(Some(ended)) => (Ok(()), Some(ended)),
        Ok(None) => (Ok(()), session.finish().await),
        Err(error) => (Err(error), session.finish().await),
    };
    if lived.is_ok() {
        // The events may have a reader that wants no other lines, or one that is stuck.
        let to_stderr = args.output.events == Events::Json || ended.is_none();
        summary::print(session.snapshots(), to_stderr);
    }
    exports.finish(session.snapshots().collect(), &ledger).await;
    lived?;
    closed?;
    match ended.unwrap_or(Ok(())) {
        Err(SinkError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        ended => ended.context("cannot write the events"),
    }
}

/// What is still done once it is attached.
fn later(args: &cli::Run) -> Vec<Act> {
    let mut acts = TO_STAY.to_vec();
    let loads = args.config.is_some() || args.select.globs().next().is_some();
    acts.extend(loads.then_some(Act::Load));
    acts.extend((!args.select.netns.is_empty()).then_some(Act::Enter));
    acts
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
