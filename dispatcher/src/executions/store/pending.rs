//! Which pending executions may be handed out. *Eligible*: pending, nobody asked to cancel it,
//! and no earlier turn of its session is open. One whose workspace is at its cap is eligible
//! too, but parked; what somebody outside runs takes no place there.

use clawlink_shared::agent::AgentKind;
use clawlink_shared::execution::Priority;
use clawlink_shared::id::{ExecutionId, SessionId, WorkspaceId};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::locked::agent;
use crate::executions::queue::Ready;

struct Row {
    id: i64,
    workspace_id: i64,
    agent: String,
    priority: i16,
    is_again: bool,
    is_parked: bool,
}

impl Row {
    /// `None` for a kind of agent that only another release knows: that one queues it.
    fn ready(self) -> Option<Ready> {
        Some(Ready {
            execution: ExecutionId(self.id),
            workspace: WorkspaceId(self.workspace_id),
            agent: agent(&self.agent).ok()?,
            priority: Priority::from_i16(self.priority).unwrap_or_default(),
            is_again: self.is_again,
            is_parked: self.is_parked,
        })
    }
}

/// Of these executions and of these sessions' turns, those that are eligible.
pub(crate) async fn ready_of(
    db: &mut PgConnection,
    executions: &[ExecutionId],
    sessions: &[SessionId],
) -> anyhow::Result<Vec<Ready>> {
    let executions: Vec<i64> = executions.iter().map(|id| id.0).collect();
    let sessions: Vec<uuid::Uuid> = sessions.iter().map(|id| id.0).collect();
    // `is true` keeps it from going through all that is pending, where that is little.
    let rows = sqlx::query_as!(
        Row,
        "with wanted as materialized (
            select e.* from executions e
            where (e.id = any((select $1::bigint[])::bigint[])
                    or e.session_id = any((select $2::uuid[])::uuid[]))
                and (e.state = 'pending') is true and e.cancel_requested_at is null
                and not exists (select from executions earlier
                    where earlier.session_id = e.session_id and earlier.turn < e.turn
                        and earlier.state in ('pending', 'planning', 'running', 'waiting'))
         ), caps as (
            select id, running_cap <= (select count(*) from executions a
                where a.workspace_id = w.id and a.state in ('planning', 'running', 'waiting')
                    and not a.is_external)
                as is_full
            from workspaces w where id in (select workspace_id from wanted)
         )
         select e.id as \"id!\", e.workspace_id as \"workspace_id!\", e.agent as \"agent!\",
            e.priority as \"priority!\", e.claimed_at is not null as \"is_again!\",
            caps.is_full as \"is_parked!\"
         from wanted e join caps on caps.id = e.workspace_id
         order by e.queued_at, e.id",
        &executions,
        &sessions,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().filter_map(Row::ready).collect())
}

/// A place in the listing of pending executions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor {
    workspace: i64,
    queued_at: OffsetDateTime,
    id: i64,
}

impl Cursor {
    /// Before the first.
    pub(crate) const START: Self = Self {
        workspace: 0,
        queued_at: OffsetDateTime::UNIX_EPOCH,
        id: 0,
    };
}

/// A page of eligible executions, and where the next one begins unless this was the last.
pub(crate) async fn ready_page(
    db: &mut PgConnection,
    after: Cursor,
    limit: i64,
) -> anyhow::Result<(Vec<Ready>, Option<Cursor>)> {
    let rows = sqlx::query!(
        "with page as materialized (
            select * from executions
            where state = 'pending' and (workspace_id, queued_at, id) > ($1, $2, $3)
            order by workspace_id, queued_at, id limit $4
         ), caps as (
            select id, running_cap <= (select count(*) from executions a
                where a.workspace_id = w.id and a.state in ('planning', 'running', 'waiting')
                    and not a.is_external)
                as is_full
            from workspaces w where id in (select workspace_id from page)
         )
         select e.id as \"id!\", e.workspace_id as \"workspace_id!\", e.agent as \"agent!\",
            e.priority as \"priority!\", e.queued_at as \"queued_at!\",
            e.claimed_at is not null as \"is_again!\", caps.is_full as \"is_parked!\",
            e.cancel_requested_at is null and not exists (select from executions earlier
                where earlier.session_id = e.session_id and earlier.turn < e.turn
                    and earlier.state in ('pending', 'planning', 'running', 'waiting'))
                as \"is_eligible!\"
         from page e join caps on caps.id = e.workspace_id
         order by e.workspace_id, e.queued_at, e.id",
        after.workspace,
        after.queued_at,
        after.id,
        limit,
    )
    .fetch_all(db)
    .await?;
    let next = rows
        .last()
        .filter(|_| rows.len() as i64 == limit)
        .map(|row| Cursor {
            workspace: row.workspace_id,
            queued_at: row.queued_at,
            id: row.id,
        });
    let ready = rows
        .into_iter()
        .filter(|row| row.is_eligible)
        .filter_map(|row| {
            Row {
                id: row.id,
                workspace_id: row.workspace_id,
                agent: row.agent,
                priority: row.priority,
                is_again: row.is_again,
                is_parked: row.is_parked,
            }
            .ready()
        })
        .collect();
    Ok((ready, next))
}

/// Executions to hand out without Redis: eligible, of these kinds, workspaces below their cap;
/// the most urgent first, then the oldest.
pub(crate) async fn ready_for(
    db: &mut PgConnection,
    kinds: &[AgentKind],
    limit: i64,
) -> anyhow::Result<Vec<(ExecutionId, WorkspaceId)>> {
    let kinds: Vec<String> = kinds.iter().map(|kind| kind.as_str().to_owned()).collect();
    let rows = sqlx::query!(
        "select e.id, e.workspace_id from executions e
         where e.state = 'pending' and e.cancel_requested_at is null and e.agent = any($1)
            and not exists (select from executions earlier
                where earlier.session_id = e.session_id and earlier.turn < e.turn
                    and earlier.state in ('pending', 'planning', 'running', 'waiting'))
            and e.workspace_id in (select w.id from workspaces w
                where w.running_cap > (select count(*) from executions a
                    where a.workspace_id = w.id
                        and a.state in ('planning', 'running', 'waiting')
                        and not a.is_external))
         order by e.priority desc, e.queued_at, e.id limit $2",
        &kinds,
        limit,
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (ExecutionId(row.id), WorkspaceId(row.workspace_id)))
        .collect())
}

/// Whether a workspace runs as many executions as it may.
pub(crate) async fn is_at_cap(
    db: &mut PgConnection,
    workspace: WorkspaceId,
) -> anyhow::Result<bool> {
    let is_full = sqlx::query_scalar!(
        "select running_cap <= (select count(*) from executions
            where workspace_id = $1 and state in ('planning', 'running', 'waiting')
                and not is_external) as \"full!\"
         from workspaces where id = $1",
        workspace.0,
    )
    .fetch_optional(db)
    .await?;
    Ok(is_full.unwrap_or(false))
}

/// What keeps a pending execution from being handed out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Blocks {
    /// Its tenant.
    pub(crate) workspace: WorkspaceId,
    /// Its kind.
    pub(crate) agent: AgentKind,
    /// An earlier turn of its session is open.
    pub(crate) is_session_busy: bool,
    /// Its workspace is at its cap.
    pub(crate) is_at_cap: bool,
}

/// What blocks an execution; `None` if it is not pending.
pub(crate) async fn blocks(
    db: &mut PgConnection,
    execution: ExecutionId,
) -> anyhow::Result<Option<Blocks>> {
    let row = sqlx::query!(
        "select e.workspace_id, e.agent,
            exists (select from executions earlier
                where earlier.session_id = e.session_id and earlier.turn < e.turn
                    and earlier.state in ('pending', 'planning', 'running', 'waiting'))
                as \"is_session_busy!\",
            w.running_cap <= (select count(*) from executions a
                where a.workspace_id = w.id and a.state in ('planning', 'running', 'waiting')
                    and not a.is_external)
                as \"is_at_cap!\"
         from executions e join workspaces w on w.id = e.workspace_id
         where e.id = $1 and e.state = 'pending'",
        execution.0,
    )
    .fetch_optional(db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Blocks {
        workspace: WorkspaceId(row.workspace_id),
        agent: agent(&row.agent)?,
        is_session_busy: row.is_session_busy,
        is_at_cap: row.is_at_cap,
    }))
}
