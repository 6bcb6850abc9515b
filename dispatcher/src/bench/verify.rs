//! Reads executions' streams back: no event may be lost, doubled or out of order.

use std::time::Duration;

use anyhow::{Context, Result};
use clawlink_shared::id::ExecutionId;
use futures::{StreamExt, TryStreamExt};

use super::client::Client;
use super::cycle::EVENTS;
use super::line::Envelope;

/// Streams read at one time.
const READERS: usize = 8;
/// The stream of an ended execution is read to its end within this.
const WITHIN: Duration = Duration::from_secs(30);

/// How many streams were read, and how many of them were not as they must be.
pub(super) async fn check(client: &Client, executions: Vec<ExecutionId>) -> Result<(u64, u64)> {
    futures::stream::iter(executions)
        .map(async |execution| {
            tokio::time::timeout(WITHIN, is_whole(client, execution))
                .await
                .with_context(|| format!("the stream of execution {execution} did not end"))?
        })
        .buffer_unordered(READERS)
        .try_fold((0, 0), async |(checked, wrong), whole| {
            Ok((checked + 1, wrong + u64::from(!whole)))
        })
        .await
}

/// Ids from 1 without gaps, lines in order and each once, `completed` at the end.
async fn is_whole(client: &Client, execution: ExecutionId) -> Result<bool> {
    let mut events = client.follow(execution).await?;
    let (mut seq, mut lines, mut last) = (0_u64, Vec::new(), String::new());
    while let Some(event) = events.next().await? {
        seq += 1;
        if event.id != Some(seq.to_string()) {
            return Ok(false);
        }
        let envelope: Envelope = serde_json::from_slice(&event.data).context("read envelope")?;
        lines.extend(envelope.data.map(|data| data.index));
        last = envelope.kind;
    }
    Ok(last == "completed" && lines.into_iter().eq(0..EVENTS))
}
