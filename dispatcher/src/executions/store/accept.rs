//! What accepting a request reads and writes.

use clawlink_shared::agent::AgentKind;
use clawlink_shared::execution::{OnWorkerLost, Priority, Repository, Spec};
use clawlink_shared::id::{AgentId, ExecutionId, SessionId, TaskId, WorkspaceId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::events::{Appended, LockedLog, NewEvent, Numbered};
use crate::audit;
use crate::executions::plan::Inherited;
use crate::executions::wait::WaitReason;
use crate::outbox;
use crate::usage::money::Micros;

/// How full the queue is, and the number of the execution that may enter it.
#[derive(Debug)]
pub(crate) struct Room {
    /// Pending executions of the workspace, and how many there may be.
    pub(crate) pending: i64,
    pub(crate) pending_cap: i64,
    /// Pending executions of all workspaces, counted up to the asked limit.
    pub(crate) total: i64,
    /// The workspace runs as many executions as it may.
    pub(crate) is_at_cap: bool,
    /// The workspace, or the session that is resumed, has limits on money.
    pub(crate) is_limited: bool,
    /// What the session that is resumed may cost by itself.
    pub(crate) session_budget: Option<Micros>,
    /// Used by nobody else.
    pub(crate) next: ExecutionId,
}

/// Looks how full the queue is. Nothing is locked: accepts at the same moment may overshoot a
/// cap by as many as there are connections to Postgres.
pub(crate) async fn room(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    session: Option<SessionId>,
    queue_cap: i64,
) -> anyhow::Result<Room> {
    let row = sqlx::query!(
        "select pending_cap, nextval('executions_id_seq') as \"next!\",
            exists (select from limits where workspace_id = $1) as \"is_limited!\",
            (select budget_micros from sessions where id = $3 and workspace_id = $1)
                as session_budget,
            running_cap <= (select count(*) from executions
                where workspace_id = $1 and state in ('planning', 'running', 'waiting')
                    and not is_external)
                as \"is_at_cap!\",
            (select count(*) from executions
             where workspace_id = $1 and state = 'pending') as \"pending!\",
            (select count(*) from
                (select from executions where state = 'pending' limit $2) as counted) as \"total!\"
         from workspaces where id = $1",
        workspace.0,
        queue_cap,
        session.map(|session| session.0),
    )
    .fetch_one(db)
    .await?;
    Ok(Room {
        pending: row.pending,
        pending_cap: row.pending_cap.into(),
        total: row.total,
        is_at_cap: row.is_at_cap,
        is_limited: row.is_limited || row.session_budget.is_some(),
        session_budget: row.session_budget.map(Micros),
        next: ExecutionId(row.next),
    })
}

/// An execution that follows another one without being asked for.
#[derive(Debug)]
pub(crate) struct Next {
    /// A number that nobody else uses.
    pub(crate) id: ExecutionId,
    /// As that one had it.
    pub(crate) priority: Priority,
    /// The stored agent of that one.
    pub(crate) agent: Option<AgentId>,
    /// What that one ran: a `Spec`, unless another version wrote it.
    pub(crate) spec: serde_json::Value,
    /// That one's other name, which its credentials are sealed for.
    pub(crate) uuid: Uuid,
    /// Its credentials.
    pub(crate) sealed: Option<Vec<u8>>,
}

/// What follows this execution.
pub(crate) async fn next_after(
    db: &mut PgConnection,
    execution: ExecutionId,
) -> anyhow::Result<Next> {
    let row = sqlx::query!(
        "select nextval('executions_id_seq') as \"next!\", priority, agent_id, spec, uuid,
            sealed as \"sealed?\"
         from executions left join credentials on execution_id = id where id = $1",
        execution.0,
    )
    .fetch_one(db)
    .await?;
    Ok(Next {
        id: ExecutionId(row.next),
        priority: Priority::from_i16(row.priority).unwrap_or_default(),
        agent: row.agent_id.map(AgentId),
        spec: row.spec,
        uuid: row.uuid,
        sealed: row.sealed,
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
                and state in ('pending', 'planning', 'running', 'waiting')) as \"busy!\",
            (select agent_id from executions where session_id = sessions.id
                and agent_id is not null order by turn desc limit 1) as stored_agent
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
        stored_agent: row.stored_agent.map(AgentId),
    }))
}

/// What an execution is for, and what its client wants to read again.
#[derive(Debug, Clone, Default)]
pub(crate) struct Link {
    /// The task that it works on.
    pub(crate) task: Option<TaskId>,
    /// The stored agent that was asked for.
    pub(crate) agent: Option<AgentId>,
    /// Echoed.
    pub(crate) payload: Option<String>,
    /// Echoed.
    pub(crate) claw_id: Option<String>,
    /// Echoed.
    pub(crate) client_session: Option<String>,
}

/// An execution that is about to be written.
#[derive(Debug)]
pub(crate) struct NewExecution<'a> {
    pub(crate) id: ExecutionId,
    pub(crate) uuid: Uuid,
    pub(crate) workspace: WorkspaceId,
    pub(crate) session: SessionId,
    /// Whether it is a further turn of a session that exists.
    pub(crate) resuming: bool,
    /// What a new session may cost by itself.
    pub(crate) session_budget: Option<Micros>,
    pub(crate) spec: &'a Spec,
    pub(crate) priority: Priority,
    pub(crate) on_worker_lost: OnWorkerLost,
    pub(crate) submitted_by: &'a str,
    pub(crate) wait_reason: Option<WaitReason>,
    pub(crate) sealed_credentials: &'a [u8],
    /// What it is for.
    pub(crate) link: &'a Link,
    /// Key and fingerprint of the body.
    pub(crate) idempotency: Option<(&'a str, &'a [u8])>,
    /// Its first events.
    pub(crate) events: &'a [NewEvent],
    /// `Enqueue`, as a row of the outbox.
    pub(crate) enqueue: &'a outbox::Rows,
    /// The entry of the audit log; the turn joins its details.
    pub(crate) entry: audit::Columns<'a>,
}

/// What became of an execution that was to be written.
#[derive(Debug)]
pub(crate) enum Written {
    /// It is pending.
    Now {
        /// Its first events.
        appended: Appended,
        /// The row of its effect.
        row: i64,
    },
    /// The session that it was to resume is gone.
    NoSession,
    /// Another request with the same idempotency key was first.
    KeyUsed,
}

/// Writes all of a pending execution in one statement: the session or its
/// next turn (under its row lock; a conversation that begins after scripts gives the session its
/// agent), the execution, its sealed credentials, its idempotency key, its first events, the
/// effect that queues it and the entry of the audit log.
pub(crate) async fn insert(
    db: &mut PgConnection,
    new: &NewExecution<'_>,
) -> anyhow::Result<Written> {
    let on_worker_lost = match new.on_worker_lost {
        OnWorkerLost::Fail => "fail",
        OnWorkerLost::Resume => "resume",
    };
    let log = LockedLog {
        execution: new.id,
        session: new.session,
        last_seq: 0,
    };
    let events = Numbered::after(&log, new.events)?;
    let repository = new.spec.repository.as_ref();
    let inserted = sqlx::query!(
        "with made as (
            insert into sessions (id, workspace_id, name, agent, repo_url, repo_branch,
                repo_directory, repo_depth, working_branch, auto_commit, turns, budget_micros)
            select $3, $2, $5, $6, $7, $8, $9, $10, $11, $12, 1, $39::bigint where not $4
            returning turns
         ), resumed as (
            update sessions set turns = turns + 1, updated_at = now(), name = $5,
                agent = case agent when 'shell' then $6 else agent end,
                working_branch = coalesce(working_branch, $11)
            where id = $3 and workspace_id = $2 and $4
            returning turns
         ), new as (
            insert into executions (id, uuid, workspace_id, session_id, turn, agent, priority,
                state, spec, resuming, on_worker_lost, submitted_by, wait_reason, last_seq,
                task_id, agent_id, payload, claw_id, client_session)
            overriding system value
            select $1, $13, $2, $3, turns, $6, $14, 'pending', $15, $4, $16, $17, $18,
                cardinality($22::bigint[]), $27, $28, $29, $30, $31
            from (select turns from made union all select turns from resumed) as turn
            returning id, turn
         ), sealed as (
            insert into credentials (execution_id, sealed) select id, $19 from new
         ), key as (
            insert into idempotency_keys (principal, key, body_mac, execution_id)
            select $17, $20, $21, id from new where $20::text is not null
         ), logged as (
            insert into events (execution_id, seq, payload)
            select id, seq, payload
            from new, unnest($22::bigint[], $23::bytea[]) as event (seq, payload)
         ), following as (
            insert into outbox (effect, is_slow, due_at)
            select effect, is_slow, now() + make_interval(secs => due_in)
            from new, unnest($24::jsonb[], $25::boolean[], $26::float8[])
                as effect (effect, is_slow, due_in)
            returning id
         ), audited as (
            insert into audit_entries (workspace_id, actor, address, action, resource_type,
                resource_id, outcome, details)
            select $2, $32, $33, $34, $35, $36, $37, $38 || jsonb_build_object('turn', turn)
            from new
         )
         select id from following",
        new.id.0,
        new.workspace.0,
        new.session.0,
        new.resuming,
        new.spec.session_name,
        new.spec.agent.as_str(),
        repository.map(|repository| &repository.url),
        repository.and_then(|repository| repository.branch.as_ref()),
        repository.and_then(|repository| repository.directory.as_ref()),
        repository.and_then(|repository| i32::try_from(repository.depth).ok()),
        new.spec.working_branch,
        new.spec.auto_commit,
        new.uuid,
        new.priority.as_i16(),
        serde_json::to_value(new.spec)?,
        on_worker_lost,
        new.submitted_by,
        new.wait_reason.map(WaitReason::as_str),
        new.sealed_credentials,
        new.idempotency.map(|(key, _)| key),
        new.idempotency.map(|(_, mac)| mac),
        &events.seqs,
        &events.bytes() as &[&[u8]],
        &new.enqueue.effects,
        &new.enqueue.slow,
        &new.enqueue.due_in,
        new.link.task.map(|task| task.0),
        new.link.agent.map(|agent| agent.0),
        new.link.payload,
        new.link.claw_id,
        new.link.client_session,
        new.entry.actor,
        new.entry.address,
        new.entry.action,
        new.entry.resource_type,
        new.entry.resource_id,
        new.entry.outcome,
        new.entry.details,
        new.session_budget.map(|budget| budget.0),
    )
    .fetch_optional(db)
    .await;
    match inserted {
        Ok(Some(row)) => Ok(Written::Now {
            appended: events.appended(&log),
            row: row.id,
        }),
        Ok(None) => Ok(Written::NoSession),
        Err(sqlx::Error::Database(error))
            if error.constraint() == Some("idempotency_keys_pkey") =>
        {
            Ok(Written::KeyUsed)
        }
        Err(error) => Err(error.into()),
    }
}
