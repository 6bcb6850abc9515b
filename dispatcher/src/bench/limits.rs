//! What Redis and HTTP reach on this machine when they do nothing useful.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use redis::AsyncCommands;
use tokio::task::JoinSet;

use super::client::{Client, http_client};
use super::report::Figure;
use super::{Bench, rate};

/// Clients side by side, each waiting for its answer before it asks again.
pub(super) const CLIENTS: usize = 8;

/// Redis: `GET` of a key that does not exist.
pub(super) async fn redis(bench: &Bench) -> Result<Vec<Figure>> {
    let Some(url) = &bench.args.redis_url else {
        return Ok(vec![Figure::skipped("redis", "--redis-url is not set")]);
    };
    let client = redis::Client::open(url.expose()).context("read the Redis URL")?;
    let mut connections = Vec::new();
    for _ in 0..CLIENTS {
        connections.push(client.get_multiplexed_async_connection().await?);
    }
    let (count, took) = hammer(bench, connections, |mut connection| async move {
        let _absent: Option<String> = connection.get("clawlink-bench").await?;
        anyhow::Ok(connection)
    })
    .await?;
    let what = "Redis GET, 8 clients";
    Ok(vec![rate("redis", what, count, took)])
}

/// HTTP: `GET /health/live` over connections that stay open.
pub(super) async fn http(bench: &Bench) -> Result<Vec<Figure>> {
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| Ok((bench.client.clone(), http_client(None)?)))
        .collect::<Result<_>>()?;
    let (count, took) = hammer(bench, clients, |(client, http): (Client, _)| async move {
        client.ping(&http).await?;
        anyhow::Ok((client, http))
    })
    .await?;
    let what = "HTTP GET /health/live, 8 clients";
    Ok(vec![rate("http", what, count, took)])
}

/// Repeats something with each connection for the configured time; how often, in what time.
/// `work` hands the connection back.
pub(super) async fn hammer<C, F, Fut>(
    bench: &Bench,
    connections: Vec<C>,
    work: F,
) -> Result<(u64, Duration)>
where
    C: Send + 'static,
    F: Fn(C) -> Fut + Copy + Send + 'static,
    Fut: Future<Output = Result<C>> + Send,
{
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(bench.args.counts.seconds);
    let mut tasks = JoinSet::new();
    for mut connection in connections {
        tasks.spawn(async move {
            let mut count = 0;
            while Instant::now() < end {
                connection = work(connection).await?;
                count += 1;
            }
            anyhow::Ok(count)
        });
    }
    let mut count = 0;
    while let Some(ended) = tasks.join_next().await {
        count += ended.context("measure a limit")??;
    }
    Ok((count, start.elapsed()))
}
