//! A whole `shell` run on a real worker: accept, claim, agent, archive, end.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Bench;
use super::line::Envelope;
use super::report::Figure;
use super::stats::Samples;

/// A worker that ended is replaced within this.
const IDLE_WITHIN: Duration = Duration::from_secs(10);
/// How often that is looked at.
const POLL: Duration = Duration::from_millis(10);
/// A run of `true` ends within this.
const RUN_WITHIN: Duration = Duration::from_secs(60);

/// One after the other, each with a worker that waits.
pub(super) async fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    if bench.client.status().await?.workers.idle == 0 {
        let why = "no real worker is idle: start the install with workers";
        return Ok(vec![Figure::skipped("shell_run", why)]);
    }
    let mut samples = Samples::new();
    for _ in 0..bench.args.counts.runs {
        tokio::time::timeout(IDLE_WITHIN, idle(bench))
            .await
            .context("no worker became idle")??;
        let start = Instant::now();
        let (_, mut events) = bench.client.submit_and_follow("true").await?;
        let to_end = async {
            let mut last = String::new();
            while let Some(event) = events.next().await? {
                last = serde_json::from_slice::<Envelope>(&event.data)?.kind;
            }
            anyhow::Ok(last)
        };
        let last = tokio::time::timeout(RUN_WITHIN, to_end)
            .await
            .context("the run did not end in time: does a worker offer shell?")??;
        ensure!(last == "completed", "the run's last event is {last:?}");
        samples.add(start.elapsed());
    }
    let what = "whole `shell` run";
    let figure = Figure::durations("shell_run", what, &samples);
    Ok(vec![
        figure.note("`true`, no repository, to the stream's end"),
    ])
}

async fn idle(bench: &Bench) -> Result<()> {
    while bench.client.status().await?.workers.idle == 0 {
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}
