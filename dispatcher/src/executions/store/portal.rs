//! What the portal reads, and executions that somebody outside runs.

use std::time::Duration;

use clawlink_shared::execution::State;
use clawlink_shared::id::{AgentId, ExecutionId, SessionId, TaskId, WorkspaceId};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::events::{Appended, append};
use super::lease::{changed, interval};
use super::locked::{self, Locked};

/// An execution with what its clients want to read again.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) id: i64,
    pub(crate) session: SessionId,
    pub(crate) task_id: Option<i64>,
    pub(crate) agent_id: Option<i64>,
    pub(crate) submitted_by: String,
    pub(crate) state: State,
    pub(crate) cancel_requested_at: Option<OffsetDateTime>,
    pub(crate) payload: Option<String>,
    pub(crate) result: Option<String>,
    pub(crate) error_code: Option<String>,
    pub(crate) error_message: Option<String>,
    pub(crate) claw_id: Option<String>,
    pub(crate) client_session: Option<String>,
    pub(crate) branch: Option<String>,
    pub(crate) pr_url: Option<String>,
    pub(crate) usage: Option<serde_json::Value>,
    pub(crate) started_at: Option<OffsetDateTime>,
    pub(crate) ended_at: Option<OffsetDateTime>,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) updated_at: OffsetDateTime,
}

/// Which executions, newest first.
#[derive(Debug, Default)]
pub(crate) struct Filter<'a> {
    pub(crate) task: Option<TaskId>,
    pub(crate) agent: Option<AgentId>,
    pub(crate) states: Option<Vec<&'a str>>,
    /// Only those with a smaller number.
    pub(crate) before: Option<i64>,
    pub(crate) limit: i64,
}

/// One execution of a workspace.
pub(crate) async fn find(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    id: ExecutionId,
) -> anyhow::Result<Option<Row>> {
    let filter = Filter {
        limit: 1,
        ..Filter::default()
    };
    let rows = select(db, Some(workspace), Some(id), &filter).await?;
    Ok(rows.into_iter().next().map(|(_, row)| row))
}

/// One execution of any workspace, for loops.
pub(crate) async fn of_any(
    db: &mut PgConnection,
    id: ExecutionId,
) -> anyhow::Result<Option<(WorkspaceId, Row)>> {
    let filter = Filter {
        limit: 1,
        ..Filter::default()
    };
    Ok(select(db, None, Some(id), &filter)
        .await?
        .into_iter()
        .next())
}

/// Executions of a workspace.
pub(crate) async fn list(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    filter: &Filter<'_>,
) -> anyhow::Result<Vec<Row>> {
    let rows = select(db, Some(workspace), None, filter).await?;
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

async fn select(
    db: &mut PgConnection,
    workspace: Option<WorkspaceId>,
    id: Option<ExecutionId>,
    filter: &Filter<'_>,
) -> anyhow::Result<Vec<(WorkspaceId, Row)>> {
    let rows = sqlx::query!(
        "select id, session_id, workspace_id, task_id, agent_id, submitted_by, state, cancel_requested_at,
            payload, result, error_code, error_message, claw_id, client_session, branch, pr_url,
            usage,
            started_at, ended_at, created_at,
            greatest(created_at, queued_at, started_at, ended_at) as \"updated_at!\"
         from executions
         where ($1::bigint is null or workspace_id = $1) and ($2::bigint is null or id = $2)
            and ($3::bigint is null or task_id = $3) and ($4::bigint is null or agent_id = $4)
            and ($5::text[] is null or state = any($5)) and ($6::bigint is null or id < $6)
         order by id desc limit $7",
        workspace.map(|workspace| workspace.0),
        id.map(|id| id.0),
        filter.task.map(|task| task.0),
        filter.agent.map(|agent| agent.0),
        filter.states.as_deref() as Option<&[&str]>,
        filter.before,
        filter.limit,
    )
    .fetch_all(db)
    .await?;
    let rows = rows.into_iter().map(|row| {
        let state = locked::state(&row.state)?;
        let workspace = WorkspaceId(row.workspace_id);
        let row = Row {
            id: row.id,
            session: SessionId(row.session_id),
            task_id: row.task_id,
            agent_id: row.agent_id,
            submitted_by: row.submitted_by,
            state,
            cancel_requested_at: row.cancel_requested_at,
            payload: row.payload,
            result: row.result,
            error_code: row.error_code,
            error_message: row.error_message,
            claw_id: row.claw_id,
            client_session: row.client_session,
            branch: row.branch,
            pr_url: row.pr_url,
            usage: row.usage,
            started_at: row.started_at,
            ended_at: row.ended_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
        };
        Ok((workspace, row))
    });
    rows.collect()
}

/// Gives a locked pending execution to somebody outside, and walks it to `running`: it takes no
/// place of its workspace's. `None` if an earlier turn of its session has not ended.
pub(crate) async fn take(
    db: &mut PgConnection,
    held: &mut Locked,
    by: &str,
    silence: Duration,
) -> anyhow::Result<Option<Appended>> {
    anyhow::ensure!(held.state == State::Pending, "only pending ones are taken");
    let steps = [
        changed(State::Pending, State::Planning, Some(by), held.attempt + 1)?,
        changed(State::Planning, State::Running, Some(by), held.attempt + 1)?,
    ];
    let taken = sqlx::query!(
        "update executions e set state = 'running', is_external = true, worker_id = $2,
            attempt = attempt + 1, claimed_at = now(), acked_at = now(), started_at = now(),
            lease_expires_at = now() + $3, lease_hash = null, claim_id = null, wait_reason = null,
            place = null
         where id = $1 and state = 'pending' and cancel_requested_at is null
            and not exists (select from executions earlier
                where earlier.session_id = e.session_id and earlier.turn < e.turn
                    and earlier.state in ('pending', 'planning', 'running', 'waiting'))",
        held.log.execution.0,
        by,
        interval(silence),
    )
    .execute(&mut *db)
    .await?;
    if taken.rows_affected() == 0 {
        return Ok(None);
    }
    held.state = State::Running;
    held.is_external = true;
    Ok(Some(append(db, &mut held.log, &steps).await?))
}

/// Notes that whoever runs an execution outside was heard.
pub(crate) async fn renew(
    db: &mut PgConnection,
    id: ExecutionId,
    silence: Duration,
) -> anyhow::Result<()> {
    sqlx::query!(
        "update executions set lease_expires_at = now() + $2
         where id = $1 and is_external and state in ('planning', 'running', 'waiting')",
        id.0,
        interval(silence),
    )
    .execute(db)
    .await?;
    Ok(())
}
