//! Sessions: what can be resumed, listed and deleted. A session has many executions, one at a
//! time; deleting it deletes them, its objects and its events.

mod http;
mod store;

use std::time::Duration;

use clawlink_shared::id::{ExecutionId, SessionId, WorkspaceId};
use serde_json::json;
use sqlx::PgConnection;

use crate::app::App;
use crate::audit::{self, Actor, Entry};
use crate::auth::principal::Principal;
use crate::error::{ApiError, ApiResult};
use crate::executions::{self, cancel};
use crate::http::doc::Doc;
use crate::http::routes::{Access, Routes};
use crate::limits;
use crate::outbox::{self, Effect};
use crate::usage::money::Micros;
use crate::workspaces::role::Permission;

/// How much longer than a cancelled execution may take `DELETE …?force=true` waits for it.
const FORCE_MARGIN: Duration = Duration::from_secs(10);

/// This feature's routes.
pub fn routes(app: &App) -> Routes {
    Routes::new(app)
        .get(
            "/sessions",
            Access::Needs(Permission::SessionRead),
            http::list,
            Doc::new("Sessions, newest first")
                .query::<http::ListQuery>()
                .gives_any(200),
        )
        .get(
            "/sessions/{id}",
            Access::Needs(Permission::SessionRead),
            http::get,
            Doc::new("A session with its executions")
                .uuid("id")
                .gives_any(200),
        )
        .get(
            "/sessions/{id}/stream",
            Access::Needs(Permission::SessionRead),
            http::stream,
            Doc::new("The events of all of a session's turns")
                .uuid("id")
                .query::<http::StreamQuery>()
                .streams(),
        )
        .patch(
            "/sessions/{id}",
            Access::Needs(Permission::LimitManage),
            http::change,
            Doc::new("Set what a session may spend")
                .uuid("id")
                .body::<http::Change>()
                .gives_any(200),
        )
        .delete(
            "/sessions/{id}",
            Access::Needs(Permission::SessionDelete),
            http::delete,
            Doc::new("Delete a session with everything in it")
                .uuid("id")
                .query::<http::DeleteQuery>()
                .gives_any(200),
        )
}

/// Says what all turns of a session may cost, within what the workspace allows each session.
async fn set_budget(
    app: &App,
    principal: &Principal,
    id: SessionId,
    budget: Option<Micros>,
) -> ApiResult<()> {
    let mut transaction = app.db.begin().await?;
    limits::require_allowed(&mut transaction, principal.workspace, budget).await?;
    if !store::set_budget(&mut transaction, principal.workspace, id, budget).await? {
        return Err(executions::accept::no_such_session());
    }
    let actor = Actor::from(principal);
    let changed = ("session", id.to_string());
    let entry = Entry::done(principal.workspace, &actor, "session.limited", changed);
    let entry = entry.with(json!({"sessionBudgetUsd": budget}));
    audit::record(&mut transaction, &entry).await?;
    transaction.commit().await?;
    Ok(())
}

/// Deletes a session; with `force`, its executions are cancelled first and waited for.
async fn delete(app: &App, principal: &Principal, id: SessionId, force: bool) -> ApiResult<()> {
    if force {
        let wait = app.tuning.cancel + FORCE_MARGIN;
        let reason = "the session is being deleted";
        match tokio::time::timeout(wait, end_all(app, principal, Some(id), reason)).await {
            Ok(ended) => ended?,
            Err(_) => tracing::warn!(session = %id, "executions did not end in time"),
        }
    }
    let mut transaction = app.db.begin().await?;
    if !store::lock(&mut transaction, principal.workspace, id).await? {
        return Err(executions::accept::no_such_session());
    }
    if !store::open_turns(&mut transaction, principal.workspace, id)
        .await?
        .is_empty()
    {
        return Err(running(force));
    }
    store::delete(&mut transaction, principal.workspace, id).await?;
    outbox::add(&mut transaction, &Effect::DeleteObjects { session: id }).await?;
    let actor = Actor::from(principal);
    let deleted = ("session", id.to_string());
    let entry = Entry::done(principal.workspace, &actor, "session.deleted", deleted);
    audit::record(&mut transaction, &entry.with(json!({"force": force}))).await?;
    transaction.commit().await?;
    outbox::poke_slow(app);
    tracing::info!(session = %id, by = principal.name(), "session deleted");
    Ok(())
}

/// Deletes all sessions of a workspace in the caller's transaction, which has locked it; their
/// objects remain to be deleted. `None`, and nothing is done, while an execution is open.
pub(crate) async fn delete_all(
    db: &mut PgConnection,
    workspace: WorkspaceId,
) -> anyhow::Result<Option<Vec<SessionId>>> {
    if !store::open_in_workspace(db, workspace).await?.is_empty() {
        return Ok(None);
    }
    Ok(Some(store::delete_all(db, workspace).await?))
}

fn running(is_forced: bool) -> ApiError {
    let detail = match is_forced {
        true => "its executions are cancelled, and have not ended yet; try again in a moment",
        false => {
            "the session has an execution that has not ended; cancel it, or delete with ?force=true"
        }
    };
    ApiError::conflict("session_running", detail)
}

async fn open_turns(
    app: &App,
    principal: &Principal,
    id: Option<SessionId>,
) -> ApiResult<Vec<ExecutionId>> {
    let mut db = app.db.acquire().await?;
    Ok(match id {
        Some(id) => store::open_turns(&mut db, principal.workspace, id).await?,
        None => store::open_in_workspace(&mut db, principal.workspace).await?,
    })
}

/// Cancels the executions of a session, or of the whole workspace, the latest turn first so
/// that none begins, and waits until all ended.
pub(crate) async fn end_all(
    app: &App,
    principal: &Principal,
    id: Option<SessionId>,
    reason: &str,
) -> ApiResult<()> {
    let mut open = open_turns(app, principal, id).await?;
    let actor = Actor::from(principal);
    for execution in open.iter().rev() {
        cancel::request(app, principal.workspace, *execution, &actor, reason).await?;
    }
    while let Some(first) = open.first() {
        let mut follower = app.bus.follow_events(*first);
        open = open_turns(app, principal, id).await?;
        if open.is_empty() {
            break;
        }
        tokio::select! {
            () = follower.changed() => {}
            () = tokio::time::sleep(app.tuning.tick) => {}
        }
    }
    Ok(())
}
