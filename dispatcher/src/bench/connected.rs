//! POST until the first event of its stream.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::Bench;
use super::report::{Figure, Stat};
use super::stats::Samples;

/// Not counted: connections open, caches fill.
const WARM_UP: u32 = 10;

/// One after the other; each execution is cancelled when its `connected` has come.
pub(super) async fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let mut samples = Samples::new();
    for round in 0..WARM_UP + bench.args.counts.samples {
        let start = Instant::now();
        let (accepted, mut events) = bench.client.submit_and_follow("sleep 60").await?;
        let first = events.next().await?.context("the stream ended at once")?;
        let took = start.elapsed();
        ensure!(
            first.id.as_deref() == Some("1"),
            "the first event's id is {:?}",
            first.id
        );
        drop(events);
        bench.client.cancel(accepted.execution_id).await?;
        if round >= WARM_UP {
            samples.add(took);
        }
    }
    let figure = Figure::durations("post_to_connected", "POST to `connected`", &samples);
    Ok(vec![figure.at_most(Stat::P50, 5.0)])
}
