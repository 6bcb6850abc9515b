//! Keeps real workers away from the bench's executions: each idle one gets a sleep.

use std::time::Duration;

use anyhow::{Context, Result};

use super::Bench;

/// An idle worker that offers `shell` has taken its sleep within this.
const WITHIN: Duration = Duration::from_secs(5);
/// How often that is looked at.
const POLL: Duration = Duration::from_millis(20);
/// No pool is larger.
const MOST: usize = 1000;
/// Longer than any bench; cleaning up cancels it.
const SLEEP: &str = "sleep 3600";

/// Parks every idle worker that offers `shell`; how many.
pub(super) async fn park(bench: &Bench) -> Result<usize> {
    for parked in 0..MOST {
        if bench.client.status().await?.workers.idle == 0 {
            return Ok(parked);
        }
        // One at a time: a worker that just went away must leave at most one untaken.
        let accepted = bench.client.submit(SLEEP).await?;
        let accepted = accepted.context("the queue is full")?;
        let taken = tokio::time::timeout(WITHIN, taken(bench)).await;
        if let Ok(taken) = taken {
            taken?;
        } else {
            bench.client.cancel(accepted.execution_id).await?;
            return Ok(parked);
        }
    }
    anyhow::bail!("more than {MOST} workers are idle")
}

async fn taken(bench: &Bench) -> Result<()> {
    while bench.client.status().await?.queue.depth > 0 {
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}
