//! A worker's event until the client has it; every event must come exactly once.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::Bench;
use super::client::Events;
use super::report::{Figure, Stat, Unit};
use super::stats::Samples;
use super::worker::Worker;

/// Between two lines, as of an agent that streams fast.
const PAUSE: Duration = Duration::from_millis(5);
/// How long the claim waits.
const WAIT: Duration = Duration::from_secs(20);
/// The whole measurement must end within this, beyond its pauses.
const BOUND: Duration = Duration::from_secs(120);

/// Fields of the events that the bench sends.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Line {
    /// Who.
    pub(super) provider: String,
    /// What.
    pub(super) data: Data,
}

/// A line's content.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Data {
    /// Counted from 0 within the execution.
    pub(super) index: u32,
    /// When it was sent, in nanoseconds since the measurement began.
    pub(super) sent_nanos: u64,
}

impl Line {
    /// A line that is sent now.
    pub(super) fn new(index: u32, epoch: Instant) -> Self {
        let sent_nanos = u64::try_from(epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Self {
            provider: "bench".to_owned(),
            data: Data { index, sent_nanos },
        }
    }
}

/// The part of an envelope that is looked at.
#[derive(Deserialize)]
pub(super) struct Envelope {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) data: Option<Data>,
}

/// One execution, its lines one after the other, one client.
pub(super) async fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let count = bench.args.counts.samples;
    let worker = Worker::new(&bench.client, bench.pool_token()?)?;
    let (_, events) = bench.client.submit_and_follow("true").await?;
    let held = worker.claim(WAIT).await?;
    let mut held = held.context("nothing was offered")?;
    worker.acknowledge(&held).await?;
    worker.running(&held).await?;
    let epoch = Instant::now();
    let send = async {
        for index in 0..count {
            let line = Line::new(index, epoch);
            worker.events(&mut held, &[line]).await?;
            tokio::time::sleep(PAUSE).await;
        }
        worker.complete(&held).await
    };
    let receive = receive(events, epoch, count as usize);
    let both = async { tokio::try_join!(send, receive) };
    let bound = BOUND + PAUSE * count;
    let ((), (samples, seen)) = tokio::time::timeout(bound, both)
        .await
        .context("the stream did not end in time")??;
    let wrong = seen.iter().filter(|times| **times != 1).count();
    let figure = Figure::durations("line_to_client", "agent line to client event", &samples)
        .at_most(Stat::P50, 10.0)
        .at_most(Stat::P99, 50.0)
        .note("from the worker's send to the client's receipt, one event a batch");
    let loss = Figure::value(
        "line_loss",
        "lines lost or doubled",
        Unit::Count,
        u64::from(count),
        wrong as f64,
    );
    Ok(vec![figure, loss.at_most(Stat::Value, 0.0)])
}

/// Reads to the end: how long each line took, and how often each was seen.
async fn receive(mut events: Events, epoch: Instant, count: usize) -> Result<(Samples, Vec<u32>)> {
    let mut samples = Samples::new();
    let mut seen = vec![0; count];
    let mut last = String::new();
    while let Some(event) = events.next().await? {
        let arrived = epoch.elapsed();
        let envelope: Envelope = serde_json::from_slice(&event.data).context("read envelope")?;
        if let Some(data) = envelope.data {
            samples.add(arrived.saturating_sub(Duration::from_nanos(data.sent_nanos)));
            let times = seen.get_mut(data.index as usize);
            *times.context("a line came that nobody sent")? += 1;
        }
        last = envelope.kind;
    }
    ensure!(last == "completed", "the stream's last event is {last:?}");
    Ok((samples, seen))
}
