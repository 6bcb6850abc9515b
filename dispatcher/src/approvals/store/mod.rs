//! Questions and what was granted, in Postgres. Whoever changes a question has locked its
//! execution; every change is guarded by its state all the same.

pub(super) mod rules;

use clawlink_shared::agent::AgentKind;
use clawlink_shared::approval::{Decision, QuestionKind, Requested};
use clawlink_shared::control::Order;
use clawlink_shared::id::{ExecutionId, SessionId, WorkspaceId};
use serde_json::value::RawValue;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Answer;

/// A question that is about to be written.
#[derive(Debug)]
pub(super) struct New<'a> {
    pub(super) workspace: WorkspaceId,
    pub(super) execution: ExecutionId,
    pub(super) session: SessionId,
    pub(super) attempt: i32,
    pub(super) agent: AgentKind,
    pub(super) requested: &'a Requested,
    pub(super) expires_at: OffsetDateTime,
}

/// A question as it stands.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) id: Uuid,
    pub(super) execution: ExecutionId,
    pub(super) session: SessionId,
    pub(super) attempt: i32,
    pub(super) agent: String,
    pub(super) kind: QuestionKind,
    pub(super) tool: String,
    pub(super) input: Box<RawValue>,
    pub(super) is_partial: bool,
    pub(super) state: String,
    pub(super) decision: Option<String>,
    pub(super) message: Option<String>,
    pub(super) decided_by: Option<String>,
    pub(super) decided_at: Option<OffsetDateTime>,
    pub(super) created_at: OffsetDateTime,
    pub(super) expires_at: OffsetDateTime,
}

/// Writes an open question; false if the execution's agent asked one with this id before.
pub(super) async fn insert(db: &mut PgConnection, new: &New<'_>) -> anyhow::Result<bool> {
    let requested = new.requested;
    let inserted = sqlx::query!(
        "insert into approvals (id, execution_id, workspace_id, session_id, attempt, agent, kind,
            tool, input, is_partial, state, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 'open', $11)
         on conflict (execution_id, id) do nothing",
        requested.approval_id,
        new.execution.0,
        new.workspace.0,
        new.session.0,
        new.attempt,
        new.agent.as_str(),
        requested.kind.as_str(),
        requested.tool,
        requested.input.get(),
        requested.partial,
        new.expires_at,
    )
    .execute(db)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// Which questions are read.
#[derive(Debug, Default)]
struct Filter {
    execution: Option<ExecutionId>,
    id: Option<Uuid>,
    only_open: bool,
    after: Option<(OffsetDateTime, Uuid)>,
    limit: i64,
}

/// One question.
pub(super) async fn find(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    execution: ExecutionId,
    id: Uuid,
) -> anyhow::Result<Option<Row>> {
    let filter = Filter {
        execution: Some(execution),
        id: Some(id),
        limit: 1,
        ..Filter::default()
    };
    Ok(select(db, workspace, &filter).await?.into_iter().next())
}

/// An execution's questions, oldest first.
pub(super) async fn of_execution(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    execution: ExecutionId,
    after: Option<(OffsetDateTime, Uuid)>,
    limit: i64,
) -> anyhow::Result<Vec<Row>> {
    let filter = Filter {
        execution: Some(execution),
        after,
        limit,
        ..Filter::default()
    };
    select(db, workspace, &filter).await
}

/// The workspace's open questions, oldest first.
pub(super) async fn open(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    after: Option<(OffsetDateTime, Uuid)>,
    limit: i64,
) -> anyhow::Result<Vec<Row>> {
    let filter = Filter {
        only_open: true,
        after,
        limit,
        ..Filter::default()
    };
    select(db, workspace, &filter).await
}

async fn select(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    filter: &Filter,
) -> anyhow::Result<Vec<Row>> {
    let rows = sqlx::query!(
        "select id, execution_id, session_id, attempt, agent, kind, tool, input, is_partial, state,
            decision, message, decided_by, decided_at, created_at, expires_at
         from approvals
         where workspace_id = $1 and ($2::bigint is null or execution_id = $2)
            and ($3::uuid is null or id = $3) and (not $4 or state = 'open')
            and ($5::timestamptz is null or (created_at, id) > ($5, $6))
         order by created_at, id limit $7",
        workspace.0,
        filter.execution.map(|id| id.0),
        filter.id,
        filter.only_open,
        filter.after.map(|(time, _)| time),
        filter.after.map(|(_, id)| id),
        filter.limit,
    )
    .fetch_all(db)
    .await?;
    let rows = rows.into_iter().map(|row| {
        let kind = QuestionKind::from_name(&row.kind);
        let kind = kind.ok_or_else(|| anyhow::anyhow!("approvals.kind of {}", row.id))?;
        Ok(Row {
            id: row.id,
            execution: ExecutionId(row.execution_id),
            session: SessionId(row.session_id),
            attempt: row.attempt,
            agent: row.agent,
            kind,
            tool: row.tool,
            input: RawValue::from_string(row.input)?,
            is_partial: row.is_partial,
            state: row.state,
            decision: row.decision,
            message: row.message,
            decided_by: row.decided_by,
            decided_at: row.decided_at,
            created_at: row.created_at,
            expires_at: row.expires_at,
        })
    });
    rows.collect()
}

/// Writes an answer as an order with this number; false if the question is not open.
pub(super) async fn settle(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    execution: ExecutionId,
    id: Uuid,
    answer: &Answer<'_>,
    number: i64,
) -> anyhow::Result<bool> {
    let settled = sqlx::query!(
        "update approvals set state = $4, decision = $5, message = $6, decided_by = $7,
            decided_at = now(), order_number = $8
         where workspace_id = $1 and execution_id = $2 and id = $3 and state = 'open'",
        workspace.0,
        execution.0,
        id,
        answer.state,
        answer.decision.as_str(),
        answer.message,
        answer.by,
        number,
    )
    .execute(db)
    .await?;
    Ok(settled.rows_affected() == 1)
}

/// Withdraws open questions, all or one of them; which.
pub(super) async fn withdraw(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    execution: ExecutionId,
    only: Option<Uuid>,
    by: &str,
) -> anyhow::Result<Vec<Uuid>> {
    let ids = sqlx::query_scalar!(
        "update approvals set state = 'withdrawn', decided_by = $4, decided_at = now()
         where workspace_id = $1 and execution_id = $2 and ($3::uuid is null or id = $3)
            and state = 'open'
         returning id",
        workspace.0,
        execution.0,
        only,
        by,
    )
    .fetch_all(db)
    .await?;
    Ok(ids)
}

/// Whether a question is open.
pub(super) async fn is_asking(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    execution: ExecutionId,
) -> anyhow::Result<bool> {
    Ok(count_open(db, workspace, execution).await? > 0)
}

/// How many questions are open.
pub(super) async fn count_open(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    execution: ExecutionId,
) -> anyhow::Result<i64> {
    let count = sqlx::query_scalar!(
        "select count(*) as \"count!\" from approvals
         where workspace_id = $1 and execution_id = $2 and state = 'open'",
        workspace.0,
        execution.0,
    )
    .fetch_one(db)
    .await?;
    Ok(count)
}

/// Answers for one worker of an execution after an order's number; a lease was checked.
pub(super) async fn orders(
    db: &mut PgConnection,
    execution: ExecutionId,
    attempt: i32,
    after: i64,
) -> anyhow::Result<Vec<(i64, Order)>> {
    let rows = sqlx::query!(
        "select id, order_number as \"number!\", decision as \"decision!\", message
         from approvals
         where execution_id = $1 and attempt = $2 and order_number > $3 and decision is not null
         order by order_number",
        execution.0,
        attempt,
        after,
    )
    .fetch_all(db)
    .await?;
    let orders = rows.into_iter().map(|row| {
        let decision = Decision::from_name(&row.decision);
        let order = Order::Approval {
            approval_id: row.id,
            decision: decision
                .ok_or_else(|| anyhow::anyhow!("approvals.decision of {}", row.id))?,
            message: row.message,
        };
        Ok((row.number, order))
    });
    orders.collect()
}

/// Open questions of all workspaces whose time is over, oldest first: for the loop alone.
pub(super) async fn due(
    db: &mut PgConnection,
    limit: i64,
) -> anyhow::Result<Vec<(WorkspaceId, ExecutionId, Uuid)>> {
    let rows = sqlx::query!(
        "select workspace_id, execution_id, id from approvals
         where state = 'open' and expires_at <= now() order by expires_at limit $1",
        limit,
    )
    .fetch_all(db)
    .await?;
    let rows = rows.into_iter();
    Ok(rows
        .map(|row| {
            (
                WorkspaceId(row.workspace_id),
                ExecutionId(row.execution_id),
                row.id,
            )
        })
        .collect())
}

/// What a grant is for: an agent's tool, and where it runs commands the hash of one.
pub(super) type What<'a> = (AgentKind, &'a str, &'a [u8]);

/// Whether this was allowed for the session.
pub(super) async fn is_granted(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    session: SessionId,
    (agent, tool, command): What<'_>,
) -> anyhow::Result<bool> {
    let is_granted = sqlx::query_scalar!(
        "select exists (select from approval_grants g join sessions s on s.id = g.session_id
            where s.workspace_id = $1 and g.session_id = $2 and g.agent = $3 and g.tool = $4
                and g.command = $5) as \"is_granted!\"",
        workspace.0,
        session.0,
        agent.as_str(),
        tool,
        command,
    )
    .fetch_one(db)
    .await?;
    Ok(is_granted)
}

/// Remembers what was allowed for the session.
pub(super) async fn grant(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    session: SessionId,
    (agent, tool, command): What<'_>,
    by: &str,
) -> anyhow::Result<()> {
    sqlx::query!(
        "insert into approval_grants (session_id, agent, tool, command, granted_by)
         select id, $3, $4, $5, $6 from sessions where workspace_id = $1 and id = $2
         on conflict do nothing",
        workspace.0,
        session.0,
        agent.as_str(),
        tool,
        command,
        by,
    )
    .execute(db)
    .await?;
    Ok(())
}
