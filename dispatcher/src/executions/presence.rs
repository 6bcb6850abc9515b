//! Which workers there are: a hint in Redis, made by their calls, gone when they are.
//!
//! Sorted sets below the prefix, members are worker ids, scores the millisecond at which the
//! entry lapses: `alive:{kind}` (offers it, busy or not), `idle:{kind}` and `idle` (waits in
//! `claim`). Nothing is decided by them but what people are told about waiting.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clawlink_shared::agent::AgentKind;
use redis::{Pipeline, RedisResult};

use crate::app::App;
use crate::bus::Bus;

/// Longer than any pause between two calls of a live worker.
const GRACE: Duration = Duration::from_secs(5);
/// A worker that holds an execution counts as alive this long after its last heartbeat.
const BUSY_FOR: Duration = Duration::from_secs(120);

/// How many workers offer one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offer {
    /// In all.
    pub alive: u64,
    /// Of them waiting for work.
    pub idle: u64,
}

/// A worker waits in `claim`; dropping this says that it no longer does: it got work, or its
/// connection is gone.
pub struct Waiting {
    app: App,
    worker: String,
    kinds: Vec<AgentKind>,
    comes_back: bool,
}

impl Waiting {
    /// Enters a worker for as long as its call may take.
    pub async fn enter(app: &App, worker: &str, kinds: &[AgentKind], wait: Duration) -> Self {
        let bus = &app.bus;
        let waiting = Self {
            app: app.clone(),
            worker: worker.to_owned(),
            kinds: kinds.to_vec(),
            comes_back: false,
        };
        let (idle, alive) = (lapses_in(wait + GRACE), lapses_in(wait + BUSY_FOR));
        let mut pipe = redis::pipe();
        pipe.zadd(bus.key("idle"), worker, idle).ignore();
        for kind in kinds {
            pipe.zadd(bus.key(&format!("idle:{kind}")), worker, idle)
                .zadd(bus.key(&format!("alive:{kind}")), worker, alive)
                .ignore();
        }
        tell(bus, &pipe).await;
        waiting
    }

    /// Its time is over and it will call again at once: it stays idle for a moment.
    pub fn until_it_calls_again(mut self) {
        self.comes_back = true;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.comes_back {
            return;
        }
        let (bus, worker) = (self.app.bus.clone(), std::mem::take(&mut self.worker));
        let mut pipe = redis::pipe();
        pipe.zrem(bus.key("idle"), &worker).ignore();
        for kind in &self.kinds {
            pipe.zrem(bus.key(&format!("idle:{kind}")), &worker)
                .ignore();
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let tracker = self.app.shutdown.tracker();
            tracker.spawn_on(async move { tell(&bus, &pipe).await }, &runtime);
        }
    }
}

/// A worker got work without having waited: it is alive, and idle it was never.
pub fn began(app: &App, worker: &str, kinds: &[AgentKind]) {
    let (bus, alive) = (app.bus.clone(), lapses_in(BUSY_FOR));
    let mut pipe = redis::pipe();
    for kind in kinds {
        pipe.zadd(bus.key(&format!("alive:{kind}")), worker, alive)
            .ignore();
    }
    let tracker = app.shutdown.tracker();
    tracker.spawn(async move { tell(&bus, &pipe).await });
}

/// A worker that holds an execution was heard: it still offers what it offered.
pub async fn busy(bus: &Bus, worker: &str) {
    let mut pipe = redis::pipe();
    for kind in AgentKind::ALL {
        pipe.cmd("ZADD")
            .arg(bus.key(&format!("alive:{kind}")))
            .arg("XX")
            .arg(lapses_in(BUSY_FOR))
            .arg(worker)
            .ignore();
    }
    tell(bus, &pipe).await;
}

/// What is offered, by kind. Forgets lapsed entries on the way.
pub async fn offers(bus: &Bus) -> RedisResult<HashMap<AgentKind, Offer>> {
    let mut pipe = redis::pipe();
    for kind in AgentKind::ALL {
        count(&mut pipe, bus.key(&format!("alive:{kind}")));
        count(&mut pipe, bus.key(&format!("idle:{kind}")));
    }
    let counts: Vec<u64> = pipe.query_async(&mut bus.redis()).await?;
    Ok(AgentKind::ALL
        .into_iter()
        .zip(counts.chunks(2))
        .map(|(kind, pair)| {
            let offer = Offer {
                alive: pair[0],
                idle: pair[1],
            };
            (kind, offer)
        })
        .collect())
}

/// Workers that wait for work, of any kind.
pub async fn idle(bus: &Bus) -> RedisResult<u64> {
    let mut pipe = redis::pipe();
    count(&mut pipe, bus.key("idle"));
    let (idle,): (u64,) = pipe.query_async(&mut bus.redis()).await?;
    Ok(idle)
}

fn count(pipe: &mut Pipeline, key: String) {
    pipe.cmd("ZREMRANGEBYSCORE")
        .arg(&key)
        .arg("-inf")
        .arg(lapses_in(Duration::ZERO))
        .ignore()
        .cmd("ZCARD")
        .arg(key);
}

/// Presence is a hint: without Redis there is none.
async fn tell(bus: &Bus, pipe: &Pipeline) {
    if let Err(error) = pipe.query_async::<()>(&mut bus.redis()).await {
        tracing::debug!(%error, "presence not told");
    }
}

fn lapses_in(time: Duration) -> u64 {
    let at = SystemTime::now() + time;
    at.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
