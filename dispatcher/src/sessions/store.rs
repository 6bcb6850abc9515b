//! Sessions in Postgres. Every function is bound to a workspace: what is not in it is not there.

use clawlink_shared::id::{ExecutionId, SessionId, WorkspaceId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::http::page::Cursor;
use crate::usage::money::Micros;

/// A session as lists show it.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) id: Uuid,
    pub(super) name: String,
    pub(super) agent: String,
    pub(super) repo_url: Option<String>,
    pub(super) repo_branch: Option<String>,
    pub(super) repo_directory: Option<String>,
    pub(super) working_branch: Option<String>,
    pub(super) auto_commit: bool,
    pub(super) turns: i32,
    pub(super) archive_size: Option<i64>,
    pub(super) budget_micros: Option<i64>,
    pub(super) created_at: OffsetDateTime,
    pub(super) updated_at: OffsetDateTime,
    /// Of the turn that a worker holds, else of the last one.
    pub(super) state: Option<String>,
}

/// Sessions after `cursor`, the newest first: by creation, because that never changes while
/// somebody turns pages. With `only`, just that one.
pub(super) async fn list(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    only: Option<SessionId>,
    cursor: Option<Cursor>,
    limit: i64,
) -> anyhow::Result<Vec<Row>> {
    let rows = sqlx::query_as!(
        Row,
        "select id, name, agent, repo_url, repo_branch, repo_directory, working_branch,
            auto_commit, turns, archive_size, budget_micros, created_at, updated_at,
            (select state from executions where session_id = sessions.id
             order by state in ('planning', 'running', 'waiting') desc, turn desc
             limit 1) as state
         from sessions
         where workspace_id = $1
            and ($2::uuid is null or id = $2)
            and ($3::timestamptz is null or (created_at, id) < ($3, $4))
         order by created_at desc, id desc
         limit $5",
        workspace.0,
        only.map(|id| id.0),
        cursor.map(Cursor::time),
        cursor.map(|cursor| cursor.id),
        limit,
    )
    .fetch_all(db)
    .await?;
    Ok(rows)
}

/// Executions of the session that have not ended, in order of turn.
pub(super) async fn open_turns(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    session: SessionId,
) -> anyhow::Result<Vec<ExecutionId>> {
    let ids = sqlx::query_scalar!(
        "select id from executions
         where workspace_id = $1 and session_id = $2
            and state in ('pending', 'planning', 'running', 'waiting')
         order by turn",
        workspace.0,
        session.0,
    )
    .fetch_all(db)
    .await?;
    Ok(ids.into_iter().map(ExecutionId).collect())
}

/// Executions of the workspace that have not ended, the oldest first.
pub(super) async fn open_in_workspace(
    db: &mut PgConnection,
    workspace: WorkspaceId,
) -> anyhow::Result<Vec<ExecutionId>> {
    let ids = sqlx::query_scalar!(
        "select id from executions
         where workspace_id = $1 and state in ('pending', 'planning', 'running', 'waiting')
         order by id",
        workspace.0,
    )
    .fetch_all(db)
    .await?;
    Ok(ids.into_iter().map(ExecutionId).collect())
}

/// Locks the session's row, so that no turn begins; false if there is no such session.
pub(super) async fn lock(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    session: SessionId,
) -> anyhow::Result<bool> {
    let row = sqlx::query!(
        "select id from sessions where workspace_id = $1 and id = $2 for update",
        workspace.0,
        session.0,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.is_some())
}

/// Says what all turns of the session may cost; `None`: what the workspace allows each session.
/// False if there is no such session.
pub(super) async fn set_budget(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    session: SessionId,
    budget: Option<Micros>,
) -> anyhow::Result<bool> {
    let done = sqlx::query!(
        "update sessions set budget_micros = $3 where workspace_id = $1 and id = $2",
        workspace.0,
        session.0,
        budget.map(|budget| budget.0),
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Deletes the session's row, and with it all that refers to it.
pub(super) async fn delete(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    session: SessionId,
) -> anyhow::Result<()> {
    sqlx::query!(
        "delete from sessions where workspace_id = $1 and id = $2",
        workspace.0,
        session.0,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Deletes all sessions of the workspace; which they were.
pub(super) async fn delete_all(
    db: &mut PgConnection,
    workspace: WorkspaceId,
) -> anyhow::Result<Vec<SessionId>> {
    let ids = sqlx::query_scalar!(
        "delete from sessions where workspace_id = $1 returning id",
        workspace.0,
    )
    .fetch_all(db)
    .await?;
    Ok(ids.into_iter().map(SessionId).collect())
}
