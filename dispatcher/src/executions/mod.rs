//! Executions: submitted by clients, queued, run by workers, followed as streams.

pub(crate) mod accept;
pub mod archive;
pub mod cancel;
pub mod control;
mod defined;
mod follow_up;
pub mod http;
pub(crate) mod live;
pub(crate) mod next_turn;
mod plan;
pub(crate) mod portal;
pub mod presence;
pub mod queue;
pub mod reconcile;
pub(crate) mod references;
pub mod request;
mod spending;
pub mod sse;
pub mod store;
pub mod sweep;
pub mod wait;
mod wind_up;

use std::collections::HashMap;
use std::time::Duration;

use clawlink_shared::execution::State;
use clawlink_shared::id::{ExecutionId, SessionId, TaskId, WorkspaceId};
pub(crate) use http::find as visible;
use serde::Serialize;
use serde_json::Value;
use store::accept::Link;
pub use store::events::timestamp;
pub(crate) use store::read::{Name, Record};
use tracing::Instrument;
use uuid::Uuid;

use crate::app::App;
use crate::auth::principal::Principal;
use crate::error::{ApiError, ApiResult};
use crate::http::routes::Routes;
use crate::policies;
use crate::tasks;
use queue::Ready;
use store::events::Appended;
use store::{counts, pending};

/// Between two rounds of cleaning.
const CLEAN_EVERY: Duration = Duration::from_secs(60);

/// This feature's routes.
pub fn routes(app: &App) -> Routes {
    http::routes(app)
        .merge(portal::routes(app))
        .merge(control::routes(app))
}

/// Starts this feature's loops; any replica may run them at any time.
pub fn spawn_loops(app: &App) {
    let tracker = app.shutdown.tracker();
    tracker.spawn(sweep::sweep_loop(app.clone()));
    tracker.spawn(reconcile::reconcile_loop(app.clone()));
    tracker.spawn(nudge_loop(app.clone()));
    tracker.spawn(watch_loop(app.clone()));
    tracker.spawn(clean_loop(app.clone()));
}

/// At every tick: hints that were lost. It asks Postgres alone, so that a Redis that hangs holds
/// up no stream.
async fn nudge_loop(app: App) {
    let mut seen = Seen::default();
    loop {
        let round = nudge_followers(&app, &mut seen).instrument(tracing::debug_span!("nudge"));
        if let Err(error) = round.await {
            tracing::warn!(error = format!("{error:#}"), "lost hints not looked for");
        }
        tokio::select! {
            () = tokio::time::sleep(app.tuning.tick) => {}
            () = app.shutdown.soft().cancelled() => return,
        }
    }
}

/// At every tick: wait reasons, numbers for `/metrics`.
async fn watch_loop(app: App) {
    loop {
        let round = async {
            wait::record_reasons(&app).await?;
            count(&app).await
        };
        let round = round.instrument(tracing::debug_span!("watch"));
        if let Err(error) = round.await {
            tracing::warn!(error = format!("{error:#}"), "watch round failed");
        }
        tokio::select! {
            () = tokio::time::sleep(app.tuning.tick) => {}
            () = app.shutdown.soft().cancelled() => return,
        }
    }
}

async fn clean_loop(app: App) {
    loop {
        let cleaning = async {
            archive::clean(&app).await?;
            crate::github::clean(&app).await?;
            crate::runtime::clean(&app).await?;
            crate::audit::clean(&app).await
        };
        let cleaning = cleaning.instrument(tracing::debug_span!("clean"));
        if let Err(error) = cleaning.await {
            tracing::warn!(error = format!("{error:#}"), "cleaning failed");
        }
        tokio::select! {
            () = tokio::time::sleep(CLEAN_EVERY) => {}
            () = app.shutdown.soft().cancelled() => return,
        }
    }
}

/// What followers here were told to look at.
#[derive(Default)]
struct Seen {
    /// Ends of logs.
    events: HashMap<i64, i64>,
    /// Numbers of last orders.
    orders: HashMap<i64, i64>,
}

/// Makes streams and control long-polls here look for themselves where something happened
/// that no hint may have told: one query each, however many there are.
async fn nudge_followers(app: &App, seen: &mut Seen) -> anyhow::Result<()> {
    let followed: Vec<i64> = app.bus.followed().into_iter().map(|id| id.0).collect();
    let controlled = app.bus.followed_control();
    if !followed.is_empty() {
        let mut db = app.db.acquire().await?;
        let last = counts::last_seqs(&mut db, &followed).await?;
        for (id, seq) in &last {
            if seen.events.get(id) != Some(seq) {
                app.bus.nudge(ExecutionId(*id), *seq);
            }
        }
        seen.events = last.into_iter().collect();
    } else {
        seen.events.clear();
    }
    if !controlled.is_empty() {
        let controlled: Vec<i64> = controlled.into_iter().map(|id| id.0).collect();
        let mut db = app.db.acquire().await?;
        let mut orders = HashMap::new();
        for (id, last) in store::orders::pending(&mut db, &controlled).await? {
            if last.is_none() || seen.orders.get(&id.0) != last.as_ref() {
                app.bus.nudge_control(id);
            }
            orders.extend(last.map(|last| (id.0, last)));
        }
        seen.orders = orders;
    } else {
        seen.orders.clear();
    }
    Ok(())
}

async fn count(app: &App) -> anyhow::Result<()> {
    let mut db = app.db.acquire().await?;
    let counts = counts::open_states(&mut db).await?;
    for state in [
        State::Pending,
        State::Planning,
        State::Running,
        State::Waiting,
    ] {
        let name = state.as_str();
        let found = counts.iter().find(|count| count.state == name);
        let count = found.map_or(0, |count| count.count);
        metrics::gauge!("clawlink_executions", "state" => name).set(count as f64);
        if state == State::Pending {
            metrics::gauge!("clawlink_queue_depth").set(count as f64);
        }
    }
    let short = counts::short_of_workers(&mut db).await?;
    drop(db);
    metrics::gauge!("clawlink_waiting_for_worker").set(short.count as f64);
    metrics::gauge!("clawlink_longest_wait_seconds").set(short.longest_seconds);
    if let Ok(idle) = presence::idle(&app.bus).await {
        metrics::gauge!("clawlink_workers_idle").set(idle as f64);
    }
    Ok(())
}

/// Submits what `POST /execute` would be sent, for a task if one is named; answers its UUID.
pub(crate) async fn submit(
    app: &App,
    principal: &Principal,
    body: &Value,
    task: Option<TaskId>,
) -> ApiResult<Uuid> {
    if let Some(task) = task {
        let mut db = app.db.acquire().await?;
        let found = tasks::find(&mut db, principal.workspace, task).await?;
        found.ok_or_else(tasks::no_such_task)?;
    }
    let request = request::parse(body, &app.tuning)?;
    let link = Link {
        task,
        ..Link::default()
    };
    let accepting = accept::accept(app, principal, request, None, true, &link);
    Ok(Box::pin(accepting).await?.uuid)
}

/// An execution that the caller may see; 404 for one that the workspace does not have, or whose
/// session a policy hides.
pub(crate) async fn find(app: &App, principal: &Principal, name: Name) -> ApiResult<Record> {
    let mut db = app.db.acquire().await?;
    let record = store::read::find(&mut db, principal.workspace, name).await?;
    drop(db);
    let rules = policies::rules(app, principal).await?;
    record
        .filter(|record| rules.shows(principal, record.session))
        .ok_or_else(no_such_execution)
}

/// 404 for an execution that this workspace does not have, or that a policy hides.
fn no_such_execution() -> ApiError {
    ApiError::not_found(
        "execution_not_found",
        "this workspace has no such execution",
    )
}

/// Tells everyone about events that were committed.
fn publish(app: &App, execution: ExecutionId, appended: Appended) {
    app.bus
        .publish_events(execution, appended.first_seq, appended.payloads);
}

/// Queues what is eligible: of these executions, of these sessions' turns, and what of these
/// workspaces was held back by their cap. Idempotent; an error means that Redis or Postgres is
/// away.
pub(crate) async fn make_ready(
    app: &App,
    executions: &[ExecutionId],
    sessions: &[SessionId],
    workspaces: &[WorkspaceId],
) -> anyhow::Result<()> {
    if !executions.is_empty() || !sessions.is_empty() {
        let mut db = app.db.acquire().await?;
        let ready = pending::ready_of(&mut db, executions, sessions).await?;
        drop(db);
        offer(app, &ready).await?;
    }
    for workspace in workspaces {
        for kind in queue::unpark(&app.bus, *workspace).await? {
            app.bus.publish_work(kind);
        }
    }
    Ok(())
}

/// Pushes into the queue and wakes as many claims. Without Redis the claims here are woken all
/// the same: they look into Postgres.
async fn offer(app: &App, ready: &[Ready]) -> anyhow::Result<()> {
    if ready.is_empty() {
        return Ok(());
    }
    let pushed = queue::push(&app.bus, ready).await;
    if !matches!(pushed, Ok(0)) {
        for one in ready.iter().filter(|one| !one.is_parked) {
            app.bus.publish_work(one.agent);
        }
    }
    pushed?;
    Ok(())
}

/// What `GET /status` says.
#[derive(Debug, Serialize)]
pub struct Status {
    /// `idle` while a worker waits for work, else `busy`.
    pub status: &'static str,
    /// The pool.
    pub workers: Workers,
    /// What waits.
    pub queue: QueueDepth,
}

/// The pool, in numbers.
#[derive(Debug, Serialize)]
pub struct Workers {
    /// Waiting in `claim`.
    pub idle: u64,
    /// Holding an execution.
    pub busy: u64,
}

/// The queue, in numbers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueDepth {
    /// Pending executions.
    pub depth: u64,
    /// Of them, those that wait for nothing but a worker.
    pub waiting_for_worker: u64,
    /// How long the oldest of these has waited.
    pub longest_wait_seconds: f64,
}

/// The pool and the queue right now. Without Redis nobody knows who is idle.
pub async fn status(app: &App) -> ApiResult<Status> {
    let idle = presence::idle(&app.bus).await.unwrap_or(0);
    let mut db = app.db.acquire().await?;
    let counts = counts::open_states(&mut db).await?;
    let short = counts::short_of_workers(&mut db).await?;
    let sum = |is_pending: bool| -> u64 {
        let of_kind = counts
            .iter()
            .filter(|count| (count.state == State::Pending.as_str()) == is_pending);
        of_kind.map(|count| count.count.max(0) as u64).sum()
    };
    Ok(Status {
        status: if idle > 0 { "idle" } else { "busy" },
        workers: Workers {
            idle,
            busy: sum(false),
        },
        queue: QueueDepth {
            depth: sum(true),
            waiting_for_worker: short.count.max(0).unsigned_abs(),
            longest_wait_seconds: short.longest_seconds,
        },
    })
}

pub(crate) use archive::{archive_turn, delete_objects};
