//! A workspace's feed: every change that a board or list shows, in the order of commits.
//!
//! An event is appended in the transaction of its change. Redis only says that there is
//! something new; readers read the log. Old events are forgotten; whoever resumes from before
//! that is told to load everything anew.

mod http;
mod store;
mod stream;

use std::collections::HashMap;
use std::time::Duration;

use clawlink_shared::id::WorkspaceId;
use serde::Serialize;
use sqlx::PgConnection;
use tracing::Instrument;

use crate::app::App;
use crate::http::doc::Doc;
use crate::http::routes::{Access, Routes};
use crate::workspaces::role::Permission;

/// Events older than this are forgotten.
const KEEP_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
/// Events kept of one workspace.
const KEEP: i64 = 20_000;
/// Events forgotten in one statement.
const BATCH: i64 = 5000;
/// Between two rounds of forgetting.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// This feature's routes.
pub fn routes(app: &App) -> Routes {
    Routes::new(app).get(
        "/api/events",
        Access::Needs(Permission::TaskRead),
        http::events,
        Doc::new("The workspace's changes as a stream")
            .query::<http::EventsQuery>()
            .streams(),
    )
}

/// Starts this feature's loops; any replica may run them at any time.
pub fn spawn_loops(app: &App) {
    let tracker = app.shutdown.tracker();
    tracker.spawn(watch_loop(app.clone()));
    tracker.spawn(forget_loop(app.clone()));
}

/// Appends a change to the workspace's feed in the caller's transaction, as its last deed: the
/// feed is locked until the commit. `kind` is a thing and what happened to it, as in the audit
/// log; `data` must serialize to an object.
pub async fn append(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    kind: &'static str,
    data: &impl Serialize,
) -> anyhow::Result<()> {
    let seq = store::next_seq(db, workspace).await?;
    let payload = serde_json::to_vec(&Envelope { kind, seq, data })?;
    store::insert(db, workspace, seq, &payload).await
}

/// Tells this and other dispatchers that the workspace's feed grew; call it after the commit. A
/// lost poke delays readers by a tick, no more.
pub fn poke(app: &App, workspace: WorkspaceId) {
    app.bus.publish_feed(workspace);
}

/// An event as clients see it.
#[derive(Serialize)]
struct Envelope<'a, T> {
    #[serde(rename = "type")]
    kind: &'static str,
    seq: i64,
    data: &'a T,
}

/// At every tick: streams here look for themselves where something happened that no hint may
/// have told; one query, however many there are.
async fn watch_loop(app: App) {
    let mut seen = HashMap::new();
    loop {
        let round = nudge(&app, &mut seen).instrument(tracing::debug_span!("feeds"));
        if let Err(error) = round.await {
            tracing::warn!(error = format!("{error:#}"), "feeds not watched");
        }
        tokio::select! {
            () = tokio::time::sleep(app.tuning.tick) => {}
            () = app.shutdown.soft().cancelled() => return,
        }
    }
}

async fn nudge(app: &App, seen: &mut HashMap<i64, i64>) -> anyhow::Result<()> {
    let followed: Vec<i64> = app
        .bus
        .followed_feeds()
        .into_iter()
        .map(|id| id.0)
        .collect();
    if followed.is_empty() {
        seen.clear();
        return Ok(());
    }
    let mut db = app.db.acquire().await?;
    let last = store::last_seqs(&mut db, &followed).await?;
    for (workspace, seq) in &last {
        if seen.get(workspace) != Some(seq) {
            app.bus.nudge_feed(WorkspaceId(*workspace));
        }
    }
    *seen = last.into_iter().collect();
    Ok(())
}

async fn forget_loop(app: App) {
    loop {
        let round = forget(&app, KEEP_FOR, KEEP).instrument(tracing::debug_span!("forget feeds"));
        if let Err(error) = round.await {
            tracing::warn!(error = format!("{error:#}"), "feeds not shortened");
        }
        tokio::select! {
            () = tokio::time::sleep(FORGET_EVERY) => {}
            () = app.shutdown.soft().cancelled() => return,
        }
    }
}

/// Forgets events older than `keep_for`, and of each workspace all but the last `keep`.
pub async fn forget(app: &App, keep_for: Duration, keep: i64) -> anyhow::Result<()> {
    let mut db = app.db.acquire().await?;
    let seconds = keep_for.as_secs_f64();
    while store::forget_old(&mut db, seconds, BATCH).await? == BATCH as u64 {}
    while store::forget_surplus(&mut db, keep, BATCH).await? == BATCH as u64 {}
    Ok(())
}
