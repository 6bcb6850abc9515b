//! Postgres and Redis that go away in mid-run, on servers of the test's own.

use std::collections::HashMap;

use clawlink::up::data_dir::DataDir;
use clawlink::up::postgres::Postgres;
use clawlink::up::redis::Redis;
use clawlink::up::{postgres, redis};
use clawlink_shared::secret::Secret;
use serde_json::json;
use tempfile::TempDir;

use super::shaky::{Shaky, claims, last, starts, work_of};
use super::world::{Submitted, Worker, said};
use crate::app::scratch;
use crate::wait::eventually;

/// A world on servers that can be ended.
struct Private {
    world: Shaky,
    redis: Redis,
    postgres: Postgres,
    _data: TempDir,
}

/// Two executions that run and two that wait for workers.
struct Load {
    runs: Vec<Submitted>,
    workers: Vec<Worker>,
}

impl Private {
    async fn start() -> Self {
        let data = scratch();
        let dir = DataDir::open(data.path()).unwrap();
        let (postgres, redis) = tokio::join!(postgres::start(&dir, None), redis::start(&dir));
        let (postgres, redis) = (postgres.unwrap(), redis.unwrap());
        let world = Shaky::start_on(&postgres.owner_url(), |settings| {
            settings.redis_url = Some(Secret::new(redis.url()));
        })
        .await;
        Self {
            world,
            redis,
            postgres,
            _data: data,
        }
    }

    async fn load(&self) -> Load {
        let workers = vec![self.world.worker(), self.world.worker()];
        let script = "echo before; while ! test -e go; do sleep 0.05; done; echo after";
        let mut runs = Vec::new();
        for _ in 0..2 {
            runs.push(
                self.world
                    .submit(self.world.script(script, json!({})))
                    .await,
            );
        }
        for run in &runs {
            self.world.says(run, "before").await;
        }
        for _ in 0..2 {
            let script = self.world.script("echo before; echo after", json!({}));
            runs.push(self.world.submit(script).await);
        }
        Load { runs, workers }
    }

    /// Everything accepted ends well, after one run each.
    async fn all_complete(&self, mut load: Load) {
        for run in &load.runs[..2] {
            let works = load.workers.iter().map(|worker| work_of(worker, run));
            let work = works.into_iter().find(|work| work.is_dir());
            std::fs::write(work.expect("a worker has it").join("go"), "").unwrap();
        }
        for _ in 2..load.runs.len() {
            load.workers.push(self.world.worker());
        }
        for run in &load.runs {
            let events = self.world.end_of(run).await;
            assert_eq!(last(&events)["type"], "completed", "{events:#?}");
            assert_eq!((claims(&events), starts(&events)), (1, 1), "{events:#?}");
            assert_eq!(said(&events), ["before", "after"]);
        }
        for worker in load.workers {
            assert_eq!(worker.exit_code().await, Some(0));
        }
    }
}

#[tokio::test]
async fn redis_away_and_empty_when_it_comes_back() {
    let mut parts = Private::start().await;
    let mut load = parts.load().await;
    parts.redis.kill().await.unwrap();
    let script = parts.world.script("echo before; echo after", json!({}));
    load.runs.push(parts.world.submit(script).await);
    parts.redis.restart().await.unwrap();
    parts.all_complete(load).await;
}

#[tokio::test]
async fn redis_away_until_the_end() {
    let mut parts = Private::start().await;
    let mut load = parts.load().await;
    parts.redis.kill().await.unwrap();
    let script = parts.world.script("echo before; echo after", json!({}));
    load.runs.push(parts.world.submit(script).await);
    parts.all_complete(load).await;
}

#[tokio::test]
async fn postgres_killed_and_restarted_in_order() {
    let mut parts = Private::start().await;
    let load = parts.load().await;
    for is_crash in [true, false] {
        if is_crash {
            parts.postgres.kill().await.unwrap();
        }
        parts.postgres.restart().await.unwrap();
        eventually("the dispatcher has Postgres again", async || {
            let health = parts.world.app.get("/health").send().await.ok()?;
            health.status().is_success().then_some(())
        })
        .await;
    }
    let states: HashMap<_, _> = {
        let mut states = HashMap::new();
        for run in &load.runs {
            let shown = parts.world.execution(run.execution).await;
            *states.entry(shown["status"].to_string()).or_insert(0) += 1;
        }
        states
    };
    assert_eq!(states.get("\"running\""), Some(&2), "{states:?}");
    parts.all_complete(load).await;
}
