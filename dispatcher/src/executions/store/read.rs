//! What clients read. Every function is bound to a workspace: what is not in it is not there.

use std::str::FromStr;

use bytes::Bytes;
use clawlink_shared::execution::State;
use clawlink_shared::id::{ExecutionId, SessionId, WorkspaceId};
use serde_json::Value;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// How clients name an execution: by its number or its UUID.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Name {
    Number(i64),
    Uuid(Uuid),
}

impl FromStr for Name {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let number = text.parse().map(Self::Number);
        number.or_else(|_| text.parse().map(Self::Uuid).map_err(|_| ()))
    }
}

/// Everything about an execution that clients may see.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) id: ExecutionId,
    pub(crate) uuid: Uuid,
    pub(crate) session: SessionId,
    pub(crate) turn: i32,
    pub(crate) agent: String,
    pub(crate) priority: i16,
    pub(crate) state: State,
    pub(crate) attempt: i32,
    pub(crate) worker_id: Option<String>,
    pub(crate) submitted_by: String,
    pub(crate) last_seq: i64,
    pub(crate) cancel_requested_at: Option<OffsetDateTime>,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) started_at: Option<OffsetDateTime>,
    pub(crate) ended_at: Option<OffsetDateTime>,
    pub(crate) result: Option<String>,
    pub(crate) usage: Option<Value>,
    pub(crate) error_code: Option<String>,
    pub(crate) error_message: Option<String>,
    pub(crate) branch: Option<String>,
    pub(crate) commit_hash: Option<String>,
    pub(crate) pr_url: Option<String>,
}

/// Looks an execution up by either name.
pub(crate) async fn find(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    name: Name,
) -> anyhow::Result<Option<Record>> {
    let (number, uuid) = match name {
        Name::Number(number) => (Some(number), None),
        Name::Uuid(uuid) => (None, Some(uuid)),
    };
    let records = select(db, workspace, number, uuid, None, 1).await?;
    Ok(records.into_iter().next())
}

/// A session's last executions, at most `limit`, the latest first.
pub(crate) async fn of_session(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    session: SessionId,
    limit: i64,
) -> anyhow::Result<Vec<Record>> {
    select(db, workspace, None, None, Some(session), limit).await
}

async fn select(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    number: Option<i64>,
    uuid: Option<Uuid>,
    session: Option<SessionId>,
    limit: i64,
) -> anyhow::Result<Vec<Record>> {
    let rows = sqlx::query!(
        "select id, uuid, session_id, turn, agent, priority, state, attempt, worker_id,
            submitted_by, last_seq, cancel_requested_at, created_at, started_at, ended_at, result,
            usage, error_code, error_message, branch, commit_hash, pr_url
         from executions
         where workspace_id = $1 and (id = $2 or uuid = $3 or session_id = $4)
         order by turn desc limit $5",
        workspace.0,
        number,
        uuid,
        session.map(|session| session.0),
        limit,
    )
    .fetch_all(db)
    .await?;
    let records = rows.into_iter().map(|row| {
        let state = State::from_name(&row.state)
            .ok_or_else(|| anyhow::anyhow!("executions.state of {} is {:?}", row.id, row.state))?;
        Ok(Record {
            id: ExecutionId(row.id),
            uuid: row.uuid,
            session: SessionId(row.session_id),
            turn: row.turn,
            agent: row.agent,
            priority: row.priority,
            state,
            attempt: row.attempt,
            worker_id: row.worker_id,
            submitted_by: row.submitted_by,
            last_seq: row.last_seq,
            cancel_requested_at: row.cancel_requested_at,
            created_at: row.created_at,
            started_at: row.started_at,
            ended_at: row.ended_at,
            result: row.result,
            usage: row.usage,
            error_code: row.error_code,
            error_message: row.error_message,
            branch: row.branch,
            commit_hash: row.commit_hash,
            pr_url: row.pr_url,
        })
    });
    records.collect()
}

/// A piece of an execution's log.
#[derive(Debug, Default)]
pub(crate) struct LogPage {
    /// `(seq, envelope)`, consecutive.
    pub(crate) events: Vec<(i64, Bytes)>,
    /// Whether the log goes on after them now.
    pub(crate) has_more: bool,
    /// Whether nothing will ever follow them.
    pub(crate) is_end: bool,
}

/// Events after `seq`: at most `limit`, and as many as begin within `max_bytes`. `None` if
/// this workspace has no such execution.
pub(crate) async fn log_page(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    execution: ExecutionId,
    seq: i64,
    limit: i64,
    max_bytes: i64,
) -> anyhow::Result<Option<LogPage>> {
    let rows = sqlx::query!(
        "select executions.last_seq, executions.state in ('completed', 'failed', 'cancelled') as \"ended!\",
            page.seq as \"seq?\", page.payload as \"payload?\"
         from executions
         left join lateral (
            select seq, payload from (
                select seq, payload,
                    sum(octet_length(payload)) over (order by seq) - octet_length(payload) as before
                from events
                where execution_id = executions.id and seq > $3
                order by seq limit $4
            ) as bounded
            where before < $5
         ) as page on true
         where executions.id = $1 and executions.workspace_id = $2
         order by page.seq",
        execution.0,
        workspace.0,
        seq,
        limit,
        max_bytes,
    )
    .fetch_all(db)
    .await?;
    let Some(head) = rows.first() else {
        return Ok(None);
    };
    let (last_seq, ended) = (head.last_seq, head.ended);
    let events: Vec<(i64, Bytes)> = rows
        .into_iter()
        .filter_map(|row| Some((row.seq?, Bytes::from(row.payload?))))
        .collect();
    let reached = events.last().map_or(seq, |(seq, _)| *seq);
    Ok(Some(LogPage {
        has_more: reached < last_seq,
        is_end: ended && reached >= last_seq,
        events,
    }))
}

/// The session's first turn from `turn` on.
pub(crate) async fn turn_from(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    session: SessionId,
    turn: i32,
) -> anyhow::Result<Option<(i32, ExecutionId)>> {
    let row = sqlx::query!(
        "select turn, id from executions
         where session_id = $1 and workspace_id = $2 and turn >= $3
         order by turn limit 1",
        session.0,
        workspace.0,
        turn,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| (row.turn, ExecutionId(row.id))))
}
