//! A world whose wires can fail: gates stand between workers and the dispatcher, the git host
//! and the storage, and leases are short.

use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::time::Duration;

use clawlink::config::Settings;
use clawlink_fixtures::gate::Gate;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::world::{Submitted, Worker, World, said};
use crate::app::postgres_server;
use crate::wait::eventually;

/// Long enough for a heartbeat at a third of it on a loaded machine.
pub(crate) const LEASE: Duration = Duration::from_secs(2);

/// A world with gates.
pub(crate) struct Shaky {
    world: World,
    /// Between workers and the dispatcher.
    pub(crate) dispatcher: Gate,
    /// Between workers and the git host.
    pub(crate) git_gate: Gate,
    /// Between workers and the storage.
    pub(crate) storage: Gate,
}

impl Deref for Shaky {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl DerefMut for Shaky {
    fn deref_mut(&mut self) -> &mut World {
        &mut self.world
    }
}

impl Shaky {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// Starts with changed settings and a repository `app`.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::start_on(&postgres_server(), change).await
    }

    /// Starts on another Postgres server.
    pub(crate) async fn start_on(postgres: &str, change: impl FnOnce(&mut Settings)) -> Self {
        let gates = tokio::join!(Gate::start(), Gate::start(), Gate::start());
        let storage = gates.2.expect("a gate");
        let world = World::start_on(postgres, |settings| {
            settings.tuning.lease = LEASE;
            let s3 = settings.s3.s3_endpoint.as_deref().expect("tests set it");
            storage.lead_to(s3);
            settings.s3.s3_public_endpoint = Some(storage.url());
            change(settings);
        })
        .await;
        let (dispatcher, git_gate) = (gates.0.expect("a gate"), gates.1.expect("a gate"));
        dispatcher.lead_to(&world.app.dispatcher.url);
        let repository = world.git.url("app");
        let host = repository.strip_suffix("/app.git").expect("its URL");
        git_gate.lead_to(host);
        let files = [("README.md", "hello\n")];
        world
            .git
            .create_repo("app", &files)
            .await
            .expect("a repository");
        Self {
            world,
            dispatcher,
            git_gate,
            storage,
        }
    }

    /// A worker behind the gates.
    pub(crate) fn worker(&self) -> Worker {
        self.world.worker_at(&self.dispatcher.url())
    }

    /// A script on the repository `app`, with more fields.
    pub(crate) fn script(&self, script: &str, more: Value) -> Value {
        let mut request = self.world.on_repository("app", "shell", script);
        request["github"]["repoUrl"] = json!(format!("{}/app.git", self.git_gate.url()));
        merge(&mut request, more);
        request
    }

    /// The next turn of a session; it has no inherited credentials.
    pub(crate) fn turn(&self, session: &str, script: &str) -> Value {
        self.script(script, json!({"websiteSessionId": session}))
    }

    /// Lets a worker run a request to its end; answers its events, checked.
    pub(crate) async fn completes(&self, request: Value) -> (Submitted, Vec<Value>) {
        let worker = self.worker();
        let submitted = self.submit(request).await;
        let events = self.end_of(&submitted).await;
        assert_eq!(last(&events)["type"], "completed", "{events:#?}");
        assert_eq!(worker.exit_code().await, Some(0));
        (submitted, events)
    }

    /// The events of an execution that ends: numbered without gaps, one end, at the end, and
    /// no credentials left.
    pub(crate) async fn end_of(&self, run: &Submitted) -> Vec<Value> {
        let events = self.events(run.execution).await;
        for (event, seq) in events.iter().zip(1..) {
            assert_eq!(event["seq"], seq, "{event}");
        }
        let ends = events.iter().filter(|event| is_end(event)).count();
        assert_eq!(ends, 1, "{events:#?}");
        assert!(is_end(last(&events)), "{events:#?}");
        let left: i64 =
            sqlx::query_scalar("select count(*) from credentials where execution_id = $1")
                .bind(run.execution)
                .fetch_one(self.app.db())
                .await
                .unwrap();
        assert_eq!(left, 0, "credentials of an ended execution");
        events
    }

    /// It failed because its worker was lost, and says that it may be tried again.
    pub(crate) async fn is_lost(&self, run: &Submitted) -> Vec<Value> {
        let events = self.end_of(run).await;
        let end = last(&events);
        assert_eq!(end["code"], "worker_lost", "{end}");
        assert_eq!(end["retryable"], true, "{end}");
        events
    }

    /// The session's current archive.
    pub(crate) async fn archive_of(&self, run: &Submitted) -> Option<String> {
        let key = sqlx::query_scalar("select archive_key from sessions where id = $1::uuid");
        key.bind(&run.session)
            .fetch_one(self.app.db())
            .await
            .unwrap()
    }

    /// Waits until the lease of an execution is over by a heartbeat's length and more, as Postgres
    /// knows it: dispatchers may be away.
    pub(crate) async fn lease_lapses(&self, run: &Submitted) {
        let db = PgPool::connect(&self.app.database_url()).await.unwrap();
        eventually("the lease has lapsed", async || {
            let lapsed = sqlx::query_scalar(
                "select lease_expires_at < now() - interval '1 second' from executions
                 where id = $1",
            );
            let lapsed: bool = lapsed.bind(run.execution).fetch_one(&db).await.ok()?;
            lapsed.then_some(())
        })
        .await;
    }

    /// Waits until the agent of an execution has said this.
    pub(crate) async fn says(&self, run: &Submitted, text: &str) {
        let path = format!("/executions/{}/events?limit=1000", run.execution);
        eventually(&format!("the agent says {text}"), async || {
            let call = self.app.get(&path).header("accept", "application/json");
            let body: Value = call.send().await.ok()?.json().await.ok()?;
            said(body["events"].as_array()?)
                .contains(&text)
                .then_some(())
        })
        .await;
    }
}

/// The working tree of a session on a worker's disk.
pub(crate) fn work_of(worker: &Worker, run: &Submitted) -> PathBuf {
    let root = worker.disk.path().join("workspace");
    root.join(format!("session-{}", run.session)).join("work")
}

/// The last event.
pub(crate) fn last(events: &[Value]) -> &Value {
    events.last().expect("events")
}

/// How many workers got the execution.
pub(crate) fn claims(events: &[Value]) -> usize {
    let is_claim = |event: &&Value| event["type"] == "state_changed" && event["to"] == "planning";
    events.iter().filter(is_claim).count()
}

/// How often an agent was allowed to start.
pub(crate) fn starts(events: &[Value]) -> usize {
    let is_start = |event: &&Value| event["from"] == "planning" && event["to"] == "running";
    events.iter().filter(is_start).count()
}

fn is_end(event: &Value) -> bool {
    ["completed", "error", "cancelled"].contains(&event["type"].as_str().unwrap_or_default())
}

fn merge(request: &mut Value, more: Value) {
    for (name, value) in more.as_object().expect("fields") {
        request[name] = value.clone();
    }
}
