//! Many idle event streams at one time: what each costs the dispatcher, and that each still
//! gets its last event.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clawlink_shared::id::ExecutionId;
use futures::StreamExt;
use reqwest::Response;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::client::http_client;
use super::idle::resident_bytes;
use super::report::{Figure, Stat, Unit};
use super::{Bench, rate};

/// Executions that the streams follow.
const EXECUTIONS: u32 = 100;
/// Streams being opened at one time.
const OPENERS: usize = 64;
/// One source address has room for this many connections to one port.
const PER_ADDRESS: usize = 20_000;
/// Open files beside the streams'.
const OTHER_FILES: u64 = 200;
/// Memory is read when nothing has happened for so long.
const SETTLE: Duration = Duration::from_secs(2);
/// All have their last event within this.
const END_WITHIN: Duration = Duration::from_secs(120);

/// Opens them, looks at the dispatcher's memory, ends their executions, reads them to the end.
pub(super) async fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let wanted = bench.args.counts.streams;
    raise_open_files(u64::from(wanted) + OTHER_FILES)?;
    let mut executions = Vec::new();
    for _ in 0..EXECUTIONS.min(wanted) {
        let accepted = bench.client.submit("true").await?;
        executions.push(accepted.context("the queue is full")?.execution_id);
    }
    let before = bench.args.pid.map(resident_bytes).transpose()?;
    let start = Instant::now();
    let opened = open(bench, &executions).await?;
    let took = start.elapsed();
    let errors = u64::from(wanted) - opened.len() as u64;
    tokio::time::sleep(SETTLE).await;
    let opening = rate(
        "streams_opened",
        "streams opened",
        opened.len() as u64,
        took,
    );
    let mut figures = vec![opening.errors(errors)];
    figures.push(match (bench.args.pid, before) {
        (Some(pid), Some(before)) => {
            let grown = resident_bytes(pid)?.saturating_sub(before);
            let each = grown as f64 / 1024.0 / opened.len().max(1) as f64;
            let what = "memory per idle stream";
            Figure::value(
                "stream_memory",
                what,
                Unit::Kibibytes,
                opened.len() as u64,
                each,
            )
            .at_most(Stat::Value, 20.0)
            .note("growth of the dispatcher's VmRSS, divided by the streams")
        }
        _ => Figure::skipped("stream_memory", "the dispatcher's --pid is not known"),
    });
    figures.push(end(bench, &executions, opened).await?);
    Ok(figures)
}

/// The streams that could be opened, each with its first bytes read.
async fn open(bench: &Bench, executions: &[ExecutionId]) -> Result<Vec<Response>> {
    let count = bench.args.counts.streams as usize;
    let clients: Vec<_> = (0..count.div_ceil(PER_ADDRESS))
        .map(|number| http_client(source(number)))
        .collect::<Result<_>>()?;
    let responses = futures::stream::iter(0..count).map(async |number| {
        let http = &clients[number / PER_ADDRESS];
        let execution = executions[number % executions.len()];
        let mut response = bench.client.open_stream(http, execution).await?;
        response
            .chunk()
            .await?
            .context("the stream ended at once")?;
        anyhow::Ok(response)
    });
    let responses = responses.buffer_unordered(OPENERS);
    Ok(responses
        .filter_map(async |response| response.ok())
        .collect()
        .await)
}

/// Cancels the executions; how many streams then ended with that.
async fn end(bench: &Bench, executions: &[ExecutionId], opened: Vec<Response>) -> Result<Figure> {
    let start = Instant::now();
    for execution in executions {
        bench.client.cancel(*execution).await?;
    }
    let count = opened.len();
    let ended = futures::stream::iter(opened.into_iter().map(ends_cancelled))
        .buffer_unordered(count.max(1))
        .take_until(tokio::time::sleep(END_WITHIN))
        .fold(0, async |sum, ended| sum + u64::from(ended))
        .await;
    let took = start.elapsed().as_millis();
    let missing = count as u64 - ended;
    Ok(Figure::value(
        "streams_without_end",
        "streams without their last event",
        Unit::Count,
        count as u64,
        missing as f64,
    )
    .at_most(Stat::Value, 0.0)
    .note(format!(
        "all executions were cancelled and their streams read to the end in {took} ms"
    )))
}

/// Reads to the end: was its last event `cancelled`?
async fn ends_cancelled(mut response: Response) -> bool {
    let mut tail = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        tail.extend_from_slice(&chunk);
        // Only the last event matters; it is short.
        let surplus = tail.len().saturating_sub(4096);
        tail.drain(..surplus);
    }
    String::from_utf8_lossy(&tail).contains("\"cancelled\"")
}

/// The first client lets the kernel choose; more need loopback addresses of their own.
fn source(number: usize) -> Option<IpAddr> {
    let last = u8::try_from(number).ok().filter(|number| *number > 0)?;
    Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last.saturating_add(1))))
}

fn raise_open_files(wanted: u64) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let raised = Rlimit {
        current: Some(limit.maximum.map_or(wanted, |maximum| maximum.min(wanted))),
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).context("raise the limit of open files")?;
    anyhow::ensure!(
        limit.maximum.is_none_or(|maximum| maximum >= wanted),
        "{wanted} open files are needed and the hard limit is lower: raise it with `ulimit -Hn`"
    );
    Ok(())
}
