//! POST until the acknowledgement of a worker that was waiting is answered.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::Bench;
use super::report::{Figure, Stat};
use super::stats::Samples;
use super::worker::Worker;

/// Not counted: connections open, caches fill.
const WARM_UP: u32 = 5;
/// The worker's claim is certainly waiting after this.
const SETTLE: Duration = Duration::from_millis(15);
/// How long it waits.
const WAIT: Duration = Duration::from_secs(20);

/// One after the other, each run to its end.
pub(super) async fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let worker = Worker::new(&bench.client, bench.pool_token()?)?;
    let mut samples = Samples::new();
    for round in 0..WARM_UP + bench.args.counts.samples {
        let claimed = async {
            let held = worker.claim(WAIT).await?;
            let held = held.context("nothing was offered")?;
            worker.acknowledge(&held).await?;
            anyhow::Ok((held, Instant::now()))
        };
        let submitted = async {
            tokio::time::sleep(SETTLE).await;
            let start = Instant::now();
            let accepted = bench.client.submit("true").await?;
            accepted.context("the queue is full")?;
            anyhow::Ok(start)
        };
        let ((held, acknowledged), start) = tokio::try_join!(claimed, submitted)?;
        if round >= WARM_UP {
            samples.add(acknowledged - start);
        }
        worker.running(&held).await?;
        worker.complete(&held).await?;
    }
    let what = "submit to claim acknowledged";
    let figure = Figure::durations("submit_to_claim", what, &samples);
    Ok(vec![figure.at_most(Stat::P95, 25.0)])
}
