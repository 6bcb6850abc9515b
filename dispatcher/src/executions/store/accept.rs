//! What accepting a request reads and writes.

use clawlink_shared::agent::AgentKind;
use clawlink_shared::execution::{OnWorkerLost, Priority, Repository, Spec};
use clawlink_shared::id::{ExecutionId, SessionId, WorkspaceId};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::executions::plan::Inherited;
use crate::executions::wait::WaitReason;

/// How full the queue is.
#[derive(Debug)]
pub(crate) struct Room {
    /// Pending executions of the workspace, and how many there may be.
    pub(crate) pending: i64,
    pub(crate) pending_cap: i64,
    /// Pending executions of all workspaces, counted up to the asked limit.
    pub(crate) total: i64,
}

/// Looks how full the queue is. Nothing is locked: accepts at the same moment may overshoot a
/// cap by as many as there are connections to Postgres.
pub(crate) async fn room(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    queue_cap: i64,
) -> anyhow::Result<Room> {
    let row = sqlx::query!(
        "select pending_cap,
            (select count(*) from executions
             where workspace_id = $1 and state = 'pending') as \"pending!\",
            (select count(*) from
                (select from executions where state = 'pending' limit $2) as counted) as \"total!\"
         from workspaces where id = $1",
        workspace.0,
        queue_cap,
    )
    .fetch_one(db)
    .await?;
    Ok(Room {
        pending: row.pending,
        pending_cap: row.pending_cap.into(),
        total: row.total,
    })
}

/// What the session hands to its next turn; `None` if this workspace has no such session.
pub(crate) async fn inherited(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    session: SessionId,
) -> anyhow::Result<Option<Inherited>> {
    let row = sqlx::query!(
        "select agent, name, repo_url, repo_branch, repo_directory, repo_depth, working_branch,
            auto_commit,
            exists (select from executions where session_id = sessions.id
                and state in ('pending', 'planning', 'running', 'waiting')) as \"busy!\"
         from sessions where id = $1 and workspace_id = $2",
        session.0,
        workspace.0,
    )
    .fetch_optional(db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let agent = AgentKind::from_spelling(&row.agent)
        .ok_or_else(|| anyhow::anyhow!("sessions.agent of {session} is {:?}", row.agent))?;
    Ok(Some(Inherited {
        agent,
        name: row.name,
        repository: row.repo_url.map(|url| Repository {
            url,
            branch: row.repo_branch,
            directory: row.repo_directory,
            depth: row.repo_depth.unwrap_or_default().unsigned_abs(),
        }),
        working_branch: row.working_branch,
        auto_commit: row.auto_commit,
        busy: row.busy,
    }))
}

/// Makes a session whose first turn has begun.
pub(crate) async fn insert_session(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    session: SessionId,
    spec: &Spec,
) -> anyhow::Result<()> {
    let repository = spec.repository.as_ref();
    sqlx::query!(
        "insert into sessions (id, workspace_id, name, agent, repo_url, repo_branch,
            repo_directory, repo_depth, working_branch, auto_commit, turns)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 1)",
        session.0,
        workspace.0,
        spec.session_name,
        spec.agent.as_str(),
        repository.map(|repository| &repository.url),
        repository.and_then(|repository| repository.branch.as_ref()),
        repository.and_then(|repository| repository.directory.as_ref()),
        repository.and_then(|repository| i32::try_from(repository.depth).ok()),
        spec.working_branch,
        spec.auto_commit,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Begins the session's next turn under its row lock; `None` if the session is gone. A
/// conversation that begins after scripts gives the session its agent.
pub(crate) async fn next_turn(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    session: SessionId,
    spec: &Spec,
) -> anyhow::Result<Option<i32>> {
    let turn = sqlx::query_scalar!(
        "update sessions
         set turns = turns + 1, updated_at = now(), name = $3,
             agent = case agent when 'shell' then $4 else agent end,
             working_branch = coalesce(working_branch, $5)
         where id = $1 and workspace_id = $2
         returning turns",
        session.0,
        workspace.0,
        spec.session_name,
        spec.agent.as_str(),
        spec.working_branch,
    )
    .fetch_optional(db)
    .await?;
    Ok(turn)
}

/// An execution that is about to be written.
#[derive(Debug)]
pub(crate) struct NewExecution<'a> {
    pub(crate) uuid: Uuid,
    pub(crate) workspace: WorkspaceId,
    pub(crate) session: SessionId,
    pub(crate) turn: i32,
    pub(crate) spec: &'a Spec,
    pub(crate) priority: Priority,
    pub(crate) on_worker_lost: OnWorkerLost,
    pub(crate) submitted_by: &'a str,
    pub(crate) wait_reason: Option<WaitReason>,
    pub(crate) sealed_credentials: &'a [u8],
    /// Key and fingerprint of the body.
    pub(crate) idempotency: Option<(&'a str, &'a [u8])>,
}

/// Writes a pending execution, its sealed credentials and its idempotency row.
pub(crate) async fn insert_execution(
    db: &mut PgConnection,
    new: &NewExecution<'_>,
) -> anyhow::Result<ExecutionId> {
    let on_worker_lost = match new.on_worker_lost {
        OnWorkerLost::Fail => "fail",
        OnWorkerLost::Resume => "resume",
    };
    let id = sqlx::query_scalar!(
        "with new as (
            insert into executions (uuid, workspace_id, session_id, turn, agent, priority, state,
                spec, resuming, on_worker_lost, submitted_by, wait_reason)
            values ($1, $2, $3, $4, $5, $6, 'pending', $7, $4 > 1, $8, $9, $10)
            returning id
         ), sealed as (
            insert into credentials (execution_id, sealed) select id, $11 from new
         ), key as (
            insert into idempotency_keys (principal, key, body_mac, execution_id)
            select $9, $12, $13, id from new where $12::text is not null
         )
         select id from new",
        new.uuid,
        new.workspace.0,
        new.session.0,
        new.turn,
        new.spec.agent.as_str(),
        new.priority.as_i16(),
        serde_json::to_value(new.spec)?,
        on_worker_lost,
        new.submitted_by,
        new.wait_reason.map(WaitReason::as_str),
        new.sealed_credentials,
        new.idempotency.map(|(key, _)| key),
        new.idempotency.map(|(_, mac)| mac),
    )
    .fetch_one(db)
    .await?;
    Ok(ExecutionId(id))
}
