//! Everything at once, for as long as one likes: replies at full speed through bridges that fixer is
//! attached to, while interfaces, namespaces, other programs and fixer itself come, go and are killed.
//!
//! What may be asked of each bridge is said by [`Line::mean`]: a bridge under `fixer attach` that is
//! upgraded all the time, also by upgrades that are killed half-way, is always attached; one that fixer
//! is taken off counts from the word that it is attached until somebody sets about taking it off.

mod churn;
pub mod left;
mod line;
mod report;
mod runs;

use std::{
    collections::BTreeMap,
    io,
    ops::ControlFlow,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;
use fixer_user::net::netns::NetNs;

use crate::{
    command::{Ended, PATIENCE, Process, Running, fixer},
    mounts::private_mounts,
};
use left::Marker;
use line::{Line, Tally};
pub use report::Report;
use report::{Held, Replies};

/// How often progress is told.
const TELL: Duration = Duration::from_secs(10);

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// For how long.
    pub length: Duration,
    /// The seed of what is done when.
    pub seed: u64,
    /// Something wrong on purpose, to see that it is noticed.
    pub fault: Option<Fault>,
}

/// What can be wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A bridge that fixer is not attached to counts as attached.
    NeverAttached,
    /// What was attached is not detached at the end.
    NotDetached,
}

/// What all share.
struct Soak {
    plan: Plan,
    marker: Marker,
    is_over: AtomicBool,
    tally: Tally,
    done: Mutex<BTreeMap<&'static str, u64>>,
    faults: Mutex<Vec<String>>,
    /// The run that lasts, at the start and at the end.
    lasting: Mutex<[Held; 2]>,
}

/// Soaks. The calling thread has mounts of its own afterwards. `tell` hears of progress.
///
/// # Errors
///
/// When something could not be set up or looked at; what fixer did wrong is in the report.
pub fn run(plan: Plan, tell: impl Fn(&str)) -> Result<Report> {
    private_mounts(true)?;
    let soak = Soak {
        plan,
        marker: Marker::at_random(),
        is_over: AtomicBool::new(false),
        tally: Tally::default(),
        done: Mutex::default(),
        faults: Mutex::default(),
        lasting: Mutex::default(),
    };
    let hosts = ["upgraded", "moved", "killed", "kept"];
    let [upgraded, moved, killed, kept] = hosts.map(NetNs::scratch);
    let (upgraded, moved, killed, kept) = (upgraded?, moved?, killed?, kept?);
    let [by_tcx, by_clsact] = [Line::new(&upgraded, 0)?, Line::new(&upgraded, 1)?];
    let [here, there] = [Line::new(&moved, 0)?, Line::new(&moved, 1)?];
    let (killed, kept) = (Line::new(&killed, 0)?, Line::new(&kept, 0)?);
    let lines = [&by_tcx, &by_clsact, &here, &there, &killed, &kept];

    let mut actors: Vec<Actor<'_>> = vec![
        Box::new(|soak, rng| churn::upgrades(soak, rng, &by_tcx, "tcx")),
        Box::new(|soak, rng| churn::upgrades(soak, rng, &by_clsact, "clsact")),
        Box::new(|soak, rng| churn::moves(soak, rng, [&here, &there])),
        Box::new(churn::namespaces),
        Box::new(|soak, rng| runs::killed(soak, rng, &killed)),
        Box::new(|soak, rng| runs::kept(soak, rng, &kept)),
    ];
    for line in lines {
        actors.push(Box::new(|soak, _| {
            give_way()?;
            line.send_until(&soak.is_over, &soak.tally)
        }));
    }
    let before = soak.marker.loaded();
    let start = Instant::now();
    thread::scope(|scope| {
        for (number, act) in actors.into_iter().enumerate() {
            let (soak, rng) = (&soak, Rng::with_seed(plan.seed.wrapping_add(number as u64)));
            scope.spawn(move || soak.watch(act, rng));
        }
        soak.wait(start, tell);
    });
    let mut report = soak.report(start.elapsed());
    report.start.loaded = before;
    // What dies with a process or with a pin dies a little later.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = left::behind(&lines)?;
        report.end.loaded = soak.marker.loaded();
        if (left.is_empty() && report.end.loaded == before) || Instant::now() >= deadline {
            report.faults.extend(left);
            return Ok(report);
        }
    }
}

/// Lets the calling thread have what time the others leave: senders never wait for anything, and would
/// hardly let fixer run.
fn give_way() -> Result<()> {
    const LEAST: i32 = 19;
    // SAFETY: takes and returns numbers only; 0 is the calling thread.
    let outcome = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, LEAST) };
    ensure!(outcome == 0, "a sender cannot give way: {}", io::Error::last_os_error());
    Ok(())
}

/// One who does something again and again.
type Actor<'a> = Box<dyn FnOnce(&Soak, Rng) -> Result<()> + Send + 'a>;

impl Soak {
    /// Lets somebody act. What fails ends the soak for all.
    fn watch(&self, act: Actor<'_>, rng: Rng) {
        if let Err(error) = act(self, rng) {
            self.fault(format!("{error:#}"));
            self.is_over.store(true, Ordering::Relaxed);
        }
    }

    /// Waits until the time is up or something failed, and tells how it goes.
    fn wait(&self, start: Instant, tell: impl Fn(&str)) {
        let mut told = start;
        while !self.is_over() && start.elapsed() < self.plan.length {
            thread::park_timeout(Duration::from_millis(50));
            if told.elapsed() >= TELL {
                told = Instant::now();
                let Replies { sent, fixed, unfixed, lost, .. } = self.replies();
                tell(&format!(
                    "{:>4} s  {sent} replies sent, {fixed} fixed, {unfixed} unfixed, {lost} lost",
                    start.elapsed().as_secs()
                ));
            }
        }
        self.is_over.store(true, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn fault(&self, told: String) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).push(told);
    }

    /// Counts something that was done.
    fn did(&self, what: &'static str) {
        *self.done.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += 1;
    }

    fn replies(&self) -> Replies {
        let Tally { sent, fixed, unfixed, lost, beside, .. } = &self.tally;
        let [sent, fixed, unfixed, lost, beside] =
            [sent, fixed, unfixed, lost, beside].map(|count| count.load(Ordering::Relaxed));
        Replies { sent, fixed, unfixed, lost, beside }
    }

    fn report(&self, took: Duration) -> Report {
        let [start, end] = *self.lasting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut faults = self.tally.first.lock().unwrap_or_else(PoisonError::into_inner).clone();
        faults.extend(self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone());
        Report {
            seed: self.plan.seed,
            seconds: took.as_secs(),
            replies: self.replies(),
            done: self.done.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            start,
            end,
            faults,
        }
    }

    /// What `--match` is given everywhere.
    fn rules(&self) -> String {
        format!("dhcp,{}", self.marker.rule())
    }

    /// `fixer attach` to a bridge.
    fn attach(&self, line: &Line, mode: &str) -> Vec<String> {
        let rules = self.rules();
        let bridge = &line.bridge;
        ["attach", "-i", bridge, "--attach-mode", mode, "--skip-selftest", "--match", &rules]
            .map(str::to_owned)
            .to_vec()
    }
}

/// Starts `fixer` beside a bridge.
fn start(line: &Line, arguments: &[String]) -> Result<Running> {
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    Running::start(&line.host, fixer(&arguments)?)
}

/// Runs `fixer` to its end, which must be a good one.
fn well(line: &Line, arguments: &[String]) -> Result<Ended> {
    let ended = start(line, arguments)?.end().and_then(Ended::ok);
    ended.with_context(|| format!("fixer {}", arguments.join(" ")))
}

/// Runs `fixer` and kills it at a moment at random, before most of them come to their end.
fn killed(line: &Line, arguments: &[String], rng: &mut Rng) -> Result<ControlFlow<Ended>> {
    let running = start(line, arguments)?;
    let moment = Duration::from_micros(rng.u64(..60_000));
    if Process::of(running.pid())?.ends_within(moment)? {
        return running.end()?.ok().map(ControlFlow::Break);
    }
    // Dropped, it is killed and waited for.
    drop(running);
    Ok(ControlFlow::Continue(()))
}
