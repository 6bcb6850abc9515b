//! Executions per second through the full cycle: accept, claim, acknowledge, running, five
//! events, complete. Simulated workers drive the real worker API; nothing is left out but the
//! agent, the repository and the archive.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use clawlink_shared::id::ExecutionId;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::client::Client;
use super::line::Line;
use super::report::{Figure, Stat, Unit};
use super::stats::Samples;
use super::worker::{Held, Worker, timed};
use super::{Bench, rate, verify};

/// Events of each execution.
pub(super) const EVENTS: u32 = 5;
/// Clients that submit at one time.
const SUBMITTERS: u32 = 8;
/// Executions that wait for each worker: the queue is never empty, and never near its bound.
const BACKLOG: u32 = 4;
/// Executions that open connections, fill caches and let each connection settle on its plans
/// (Postgres plans a statement anew for its first five calls), not counted.
const WARM_UP: u32 = 500;
/// How long one claim waits; it ends earlier when all is done.
const WAIT: Duration = Duration::from_secs(20);
/// Before a full queue is tried again.
const BUSY_PAUSE: Duration = Duration::from_millis(20);
/// One variant ends within this, whatever is missing.
const BOUND: Duration = Duration::from_secs(300);
/// Executions whose events are read back.
const VERIFIED: usize = 500;
/// The target where TPC-B is not known or faster.
const TARGET: f64 = 500.0;

/// How the five events are sent.
#[derive(Clone, Copy, PartialEq)]
enum Batches {
    /// All in one.
    One,
    /// Each by itself.
    Five,
}

/// What a variant did.
#[derive(Default)]
struct Outcome {
    executions: Mutex<Vec<ExecutionId>>,
    stages: Mutex<Stages>,
    started: AtomicU32,
    settled: AtomicU32,
    errors: AtomicU64,
    first_error: Mutex<Option<String>>,
    done: CancellationToken,
}

/// How long each call took.
#[derive(Default)]
struct Stages {
    submit: Samples,
    claim: Samples,
    acknowledge: Samples,
    running: Samples,
    events: Samples,
    complete: Samples,
}

/// Both variants, then the check that no event is lost or doubled.
pub(super) async fn measure(bench: &Bench, tpcb: Option<f64>) -> Result<Vec<Figure>> {
    let count = bench.args.counts.executions;
    run(bench, WARM_UP.min(count), Batches::One).await?;
    let (one, took) = run(bench, count, Batches::One).await?;
    let target = tpcb.map_or(TARGET, |tpcb| TARGET.min(tpcb / 10.0));
    let mut figures = vec![
        figure("cycle", "full cycle, 5 events in 1 batch", &one, took)
            .at_least(Stat::Value, target),
    ];
    figures.extend(stages(&one));
    let (five, took) = run(bench, count, Batches::Five).await?;
    figures.push(figure(
        "cycle_five_batches",
        "full cycle, 5 events in 5 batches",
        &five,
        took,
    ));
    let mut sample = executions(&one, VERIFIED);
    sample.extend(executions(&five, VERIFIED));
    let (checked, wrong) = verify::check(&bench.client, sample).await?;
    let loss = Figure::value(
        "cycle_loss",
        "executions with lost or doubled events",
        Unit::Count,
        checked,
        wrong as f64,
    );
    figures.push(loss.at_most(Stat::Value, 0.0));
    Ok(figures)
}

/// Submitters and workers side by side, until all executions have settled.
async fn run(bench: &Bench, count: u32, batches: Batches) -> Result<(Arc<Outcome>, Duration)> {
    let outcome = Arc::new(Outcome::default());
    let workers = bench.args.counts.simulated_workers;
    let room = Arc::new(Semaphore::new((workers * BACKLOG) as usize));
    let mut tasks = JoinSet::new();
    let start = Instant::now();
    for _ in 0..workers {
        let worker = Worker::new(&bench.client, bench.pool_token()?)?;
        tasks.spawn(work(worker, outcome.clone(), room.clone(), count, batches));
    }
    for _ in 0..SUBMITTERS {
        let client = bench.client.clone();
        tasks.spawn(submit(client, outcome.clone(), room.clone(), count));
    }
    tokio::select! {
        () = outcome.done.cancelled() => {}
        () = tokio::time::sleep(BOUND) => {
            outcome.fail("the bound of 300 s was reached");
            outcome.done.cancel();
        }
    }
    let took = start.elapsed();
    tasks.join_all().await;
    Ok((outcome, took))
}

/// One client: submits whenever there is room.
async fn submit(client: Client, outcome: Arc<Outcome>, room: Arc<Semaphore>, count: u32) {
    let mut times = Samples::new();
    while outcome.started.fetch_add(1, Ordering::Relaxed) < count {
        let permit = tokio::select! {
            permit = room.acquire() => permit.expect("nobody closes it"),
            () = outcome.done.cancelled() => break,
        };
        permit.forget();
        match submit_one(&client, &outcome.done).await {
            Ok((Some(execution), took)) => {
                times.add(took);
                outcome.lock(&outcome.executions).push(execution);
            }
            Ok((None, _)) => break,
            Err(error) => {
                outcome.fail(&format!("{error:#}"));
                outcome.settle(count);
                room.add_permits(1);
            }
        }
    }
    outcome.lock(&outcome.stages).submit.join(&times);
}

/// Submits one, again while the queue is full; none when the run ended meanwhile.
async fn submit_one(
    client: &Client,
    done: &CancellationToken,
) -> Result<(Option<ExecutionId>, Duration)> {
    while !done.is_cancelled() {
        let (accepted, took) = timed(client.submit("true")).await?;
        if let Some(accepted) = accepted {
            return Ok((Some(accepted.execution_id), took));
        }
        tokio::time::sleep(BUSY_PAUSE).await;
    }
    Ok((None, Duration::ZERO))
}

/// One simulated worker: executions until all have settled.
async fn work(
    worker: Worker,
    outcome: Arc<Outcome>,
    room: Arc<Semaphore>,
    count: u32,
    batches: Batches,
) {
    let mut stages = Stages::default();
    while !outcome.done.is_cancelled() {
        let claimed = tokio::select! {
            claimed = timed(worker.claim(WAIT)) => claimed,
            () = outcome.done.cancelled() => break,
        };
        let ended = match claimed {
            Ok((None, _)) => continue,
            Ok((Some(held), took)) => {
                stages.claim.add(took);
                perform(&worker, held, &mut stages, batches).await
            }
            // Somebody else's execution, or a dispatcher that is away: nothing of ours settles.
            Err(error) => {
                outcome.fail(&format!("{error:#}"));
                tokio::time::sleep(BUSY_PAUSE).await;
                continue;
            }
        };
        if let Err(error) = ended {
            outcome.fail(&format!("{error:#}"));
        }
        outcome.settle(count);
        room.add_permits(1);
    }
    outcome.lock(&outcome.stages).join(&stages);
}

async fn perform(
    worker: &Worker,
    mut held: Held,
    stages: &mut Stages,
    batches: Batches,
) -> Result<()> {
    stages
        .acknowledge
        .add(timed(worker.acknowledge(&held)).await?.1);
    stages.running.add(timed(worker.running(&held)).await?.1);
    let epoch = Instant::now();
    let lines: Vec<_> = (0..EVENTS).map(|index| Line::new(index, epoch)).collect();
    let size = match batches {
        Batches::One => lines.len(),
        Batches::Five => 1,
    };
    for batch in lines.chunks(size) {
        let sent = timed(worker.events(&mut held, batch)).await?;
        stages.events.add(sent.1);
    }
    stages.complete.add(timed(worker.complete(&held)).await?.1);
    Ok(())
}

fn figure(name: &str, what: &str, outcome: &Outcome, took: Duration) -> Figure {
    let errors = outcome.errors.load(Ordering::Relaxed);
    let settled = outcome.settled.load(Ordering::Relaxed);
    let well = u64::from(settled).saturating_sub(errors);
    let figure = rate(name, what, well, took).errors(errors);
    match &*outcome.lock(&outcome.first_error) {
        Some(error) => figure.note(format!("first error: {error}")),
        None => figure,
    }
}

/// The calls of a cycle, each under the full load.
fn stages(outcome: &Outcome) -> Vec<Figure> {
    let stages = outcome.lock(&outcome.stages);
    [
        ("cycle_submit", "  submit", &stages.submit),
        ("cycle_claim", "  claim", &stages.claim),
        ("cycle_acknowledge", "  acknowledge", &stages.acknowledge),
        ("cycle_running", "  running", &stages.running),
        ("cycle_events", "  events", &stages.events),
        ("cycle_complete", "  complete", &stages.complete),
    ]
    .map(|(name, what, samples)| Figure::durations(name, what, samples))
    .into()
}

/// So many of the executions, spread over the run.
fn executions(outcome: &Outcome, most: usize) -> Vec<ExecutionId> {
    let all = outcome.lock(&outcome.executions);
    let step = all.len().div_ceil(most).max(1);
    all.iter().step_by(step).copied().collect()
}

impl Outcome {
    /// One execution has ended, well or not.
    fn settle(&self, count: u32) {
        if self.settled.fetch_add(1, Ordering::Relaxed) + 1 >= count {
            self.done.cancel();
        }
    }

    fn fail(&self, error: &str) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        let mut first = self.lock(&self.first_error);
        first.get_or_insert_with(|| error.to_owned());
    }

    fn lock<'a, T>(&self, mutex: &'a Mutex<T>) -> std::sync::MutexGuard<'a, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stages {
    fn join(&mut self, other: &Self) {
        self.claim.join(&other.claim);
        self.acknowledge.join(&other.acknowledge);
        self.running.join(&other.running);
        self.events.join(&other.events);
        self.complete.join(&other.complete);
    }
}
