//! `clawlink bench`: what an install reaches, beside what its machine could reach.
//!
//! Everything goes through the two public APIs, as clients and workers use them; the bench and
//! the install share the machine, so all figures include the bench's own work. Simulated workers
//! must not do real work and real workers must not do theirs: idle real workers are parked with
//! sleeping executions meanwhile, and an offered execution that is not the bench's is left alone.
//! Whatever was made is deleted at the end, also after an interruption or an error.

pub mod args;
pub mod report;
pub mod sse;
pub mod stats;

mod claim;
mod client;
mod connected;
mod cycle;
mod idle;
mod limits;
mod line;
mod parking;
mod postgres;
mod shell;
mod start;
mod streams;
mod verify;
mod worker;

use anyhow::{Context, Result, bail};
use clawlink_shared::secret::Secret;

use args::{BenchArgs, Measure};
use client::Client;
use report::{Figure, Report, Unit};

/// One run's settings and its client.
struct Bench {
    args: BenchArgs,
    client: Client,
}

impl Bench {
    /// What simulated workers show.
    fn pool_token(&self) -> Result<&Secret> {
        self.args
            .pool_token
            .as_ref()
            .context("simulated workers need --pool-token")
    }
}

/// Measures, cleans up, and says what was found. Ends early, in order, at an interrupt.
pub async fn run(args: BenchArgs) -> Result<Report> {
    let args = args.complete()?;
    let key = args.key.clone().context("--key is not set")?;
    let client = Client::new(&args.url, key)?;
    let bench = Bench { args, client };
    let measured = tokio::select! {
        report = Box::pin(measure_all(&bench)) => report,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    let left = bench.client.clean_up().await;
    let dropped = postgres::clean_up(&bench).await;
    let mut report = measured?;
    if left > 0 {
        report
            .notes
            .push(format!("{left} sessions of this run could not be deleted"));
    }
    if let Err(error) = dropped {
        report.notes.push(format!("{error:#}"));
    }
    Ok(report)
}

async fn measure_all(bench: &Bench) -> Result<Report> {
    let status = bench.client.status().await?;
    if status.queue.depth > 0 || status.workers.busy > 0 {
        bail!(
            "the install is working: {} executions wait and {} run; measure it while it is idle",
            status.queue.depth,
            status.workers.busy
        );
    }
    let mut report = Report {
        url: bench.client.base().to_owned(),
        version: env!("CARGO_PKG_VERSION"),
        processors: std::thread::available_parallelism().map_or(0, Into::into),
        notes: vec!["the bench ran on the same processors unless the URL is elsewhere".to_owned()],
        figures: Vec::new(),
    };
    add(bench, &mut report, Measure::Idle, idle::measure(bench)).await;
    add(bench, &mut report, Measure::Start, start::measure(bench)).await;
    add(bench, &mut report, Measure::Shell, shell::measure(bench)).await;
    let simulated = [
        Measure::Connected,
        Measure::Claim,
        Measure::Line,
        Measure::Cycle,
        Measure::Streams,
    ];
    if simulated.into_iter().any(|one| bench.args.wants(one)) {
        match parking::park(bench).await.context("park the real workers")? {
            0 => {}
            parked => report.notes.push(format!(
                "{parked} real workers were parked with sleeping executions during what follows `shell`"
            )),
        }
    }
    add(
        bench,
        &mut report,
        Measure::Connected,
        connected::measure(bench),
    )
    .await;
    add(bench, &mut report, Measure::Claim, claim::measure(bench)).await;
    add(bench, &mut report, Measure::Line, line::measure(bench)).await;
    add(
        bench,
        &mut report,
        Measure::Postgres,
        postgres::measure(bench),
    )
    .await;
    add(bench, &mut report, Measure::Redis, limits::redis(bench)).await;
    add(bench, &mut report, Measure::Http, limits::http(bench)).await;
    let tpcb = report.number("postgres_tpcb");
    add(
        bench,
        &mut report,
        Measure::Cycle,
        cycle::measure(bench, tpcb),
    )
    .await;
    report.ratio(
        "cycle_to_tpcb",
        "full cycle / TPC-B",
        "cycle",
        "postgres_tpcb",
    );
    report.ratio(
        "cycle_to_inserts",
        "full cycle / INSERT",
        "cycle",
        "postgres_inserts",
    );
    report.ratio("cycle_to_redis", "full cycle / Redis", "cycle", "redis");
    report.ratio("cycle_to_http", "full cycle / HTTP", "cycle", "http");
    add(
        bench,
        &mut report,
        Measure::Streams,
        streams::measure(bench),
    )
    .await;
    Ok(report)
}

/// Runs one measurement if it is asked for. One that fails becomes a figure that says why.
async fn add(
    bench: &Bench,
    report: &mut Report,
    measure: Measure,
    work: impl Future<Output = Result<Vec<Figure>>>,
) {
    if !bench.args.wants(measure) {
        return;
    }
    tracing::info!("measuring {}", measure.name());
    match Box::pin(work).await {
        Ok(figures) => report.figures.extend(figures),
        Err(error) => {
            let failed = Figure::skipped(&measure.name(), format!("failed: {error:#}"));
            report.figures.push(failed.errors(1));
        }
    }
}

/// A rate: so many in that time.
fn rate(name: &str, what: &str, count: u64, took: std::time::Duration) -> Figure {
    let per_second = count as f64 / took.as_secs_f64().max(1e-9);
    Figure::value(name, what, Unit::PerSecond, count, per_second)
}
