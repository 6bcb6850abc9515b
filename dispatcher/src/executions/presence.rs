//! Which workers there are: a hint in Redis, made by their calls, gone when they are.
//!
//! Sorted sets below the prefix, members are worker ids, scores the millisecond at which the
//! entry lapses: `alive:{kind}` (offers it, busy or not), `idle:{kind}` and `idle` (waits in
//! `claim`). `offers:{worker}` lapses by itself and holds what the worker says that it has, with
//! versions. Nothing is decided by them but what people are told.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clawlink_shared::agent::{AgentKind, AgentOffer};
use redis::{Pipeline, RedisResult};

use crate::app::App;
use crate::bus::Bus;

/// Longer than any pause between two calls of a live worker.
const GRACE: Duration = Duration::from_secs(5);
/// A worker that holds an execution counts as alive this long after its last heartbeat.
const BUSY_FOR: Duration = Duration::from_secs(120);

/// Workers of a kind that are asked for their versions.
const SAMPLE: isize = 50;

/// A worker that calls, as it describes itself.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// Its name.
    pub worker: &'a str,
    /// What it can run.
    pub kinds: &'a [AgentKind],
    /// The same with versions.
    pub offers: &'a [AgentOffer],
}

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
    pub async fn enter(app: &App, caller: Caller<'_>, wait: Duration) -> Self {
        let (bus, worker, kinds) = (&app.bus, caller.worker, caller.kinds);
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
        remember(&mut pipe, bus, &caller, wait + BUSY_FOR);
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
pub fn began(app: &App, caller: Caller<'_>) {
    let (bus, alive) = (app.bus.clone(), lapses_in(BUSY_FOR));
    let mut pipe = redis::pipe();
    for kind in caller.kinds {
        pipe.zadd(bus.key(&format!("alive:{kind}")), caller.worker, alive)
            .ignore();
    }
    remember(&mut pipe, &bus, &caller, BUSY_FOR);
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
    pipe.expire(bus.key(&format!("offers:{worker}")), seconds(BUSY_FOR))
        .ignore();
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

/// The versions of each kind that live workers have; of many workers a sample.
pub async fn versions(bus: &Bus) -> RedisResult<BTreeMap<AgentKind, BTreeSet<String>>> {
    let mut pipe = redis::pipe();
    for kind in AgentKind::ALL {
        pipe.zrevrange(bus.key(&format!("alive:{kind}")), 0, SAMPLE - 1);
    }
    let sample: Vec<Vec<String>> = pipe.query_async(&mut bus.redis()).await?;
    let workers: BTreeSet<String> = sample.into_iter().flatten().collect();
    let mut versions: BTreeMap<AgentKind, BTreeSet<String>> = BTreeMap::new();
    if workers.is_empty() {
        return Ok(versions);
    }
    let keys: Vec<String> = workers
        .iter()
        .map(|worker| bus.key(&format!("offers:{worker}")))
        .collect();
    let said: Vec<Option<String>> = redis::cmd("MGET")
        .arg(keys)
        .query_async(&mut bus.redis())
        .await?;
    for text in said.into_iter().flatten() {
        // Written by another release, it may say something else.
        let offers: Vec<AgentOffer> = serde_json::from_str(&text).unwrap_or_default();
        for offer in offers {
            versions
                .entry(offer.kind)
                .or_default()
                .insert(offer.version);
        }
    }
    Ok(versions)
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

/// Keeps what a worker says that it has for a time.
fn remember(pipe: &mut Pipeline, bus: &Bus, caller: &Caller<'_>, time: Duration) {
    let text = serde_json::to_string(caller.offers).expect("offers have string keys");
    let key = bus.key(&format!("offers:{}", caller.worker));
    pipe.set_ex(key, text, seconds(time).cast_unsigned())
        .ignore();
}

fn seconds(time: Duration) -> i64 {
    time.as_secs().cast_signed()
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
