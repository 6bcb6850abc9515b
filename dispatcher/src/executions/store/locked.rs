//! One execution as every guarded change reads it first: under its row lock, or without one
//! where the change itself compares. Every change of state appends an event, so whoever finds
//! the log's end where it was read finds the same state, attempt and lease.

use std::time::Duration;

use clawlink_shared::agent::AgentKind;
use clawlink_shared::execution::{OnWorkerLost, State};
use clawlink_shared::id::{ClaimId, ExecutionId, SessionId, TaskId, WorkspaceId};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::events::LockedLog;
use super::lease::interval;

/// An execution as it was read.
#[derive(Debug, Clone)]
pub(crate) struct Locked {
    /// The end of its log; locked if the row is.
    pub(crate) log: LockedLog,
    /// Its tenant.
    pub(crate) workspace: WorkspaceId,
    /// The task that it works on.
    pub(crate) task: Option<TaskId>,
    /// Whether somebody outside runs it, and no worker.
    pub(crate) is_external: bool,
    /// Where it stands.
    pub(crate) state: State,
    /// What runs it.
    pub(crate) agent: AgentKind,
    /// Its place in the session.
    pub(crate) turn: i32,
    /// Workers that held it.
    pub(crate) attempt: i32,
    /// The last contiguous event number of this attempt.
    pub(crate) last_n: i64,
    /// How many orders its workers were given.
    pub(crate) orders: i64,
    /// Hand-outs so far that no worker acknowledged.
    pub(crate) unacknowledged: i32,
    /// The current claim.
    pub(crate) claim: Option<ClaimId>,
    /// Who holds it.
    pub(crate) worker: Option<String>,
    /// When it was handed out last.
    pub(crate) claimed_at: Option<OffsetDateTime>,
    /// When that worker acknowledged.
    pub(crate) acked_at: Option<OffsetDateTime>,
    /// When the lease lapses.
    pub(crate) lease_expires_at: Option<OffsetDateTime>,
    /// When somebody asked to cancel it, with words for people and who it was.
    pub(crate) cancel: Option<CancelRequest>,
    /// What to do when the worker is lost.
    pub(crate) on_worker_lost: OnWorkerLost,
    /// That was done once.
    pub(crate) was_resumed: bool,
    /// When it ended.
    pub(crate) ended_at: Option<OffsetDateTime>,
    /// Its pull request, once it is opened.
    pub(crate) pr_url: Option<String>,
    /// Postgres' clock.
    pub(crate) now: OffsetDateTime,
}

/// A recorded wish to cancel.
#[derive(Debug, Clone)]
pub(crate) struct CancelRequest {
    /// When.
    pub(crate) at: OffsetDateTime,
    /// For people.
    pub(crate) reason: String,
    /// Who: `key:7`.
    pub(crate) by: Option<String>,
}

/// One row of a statement, read or changed by it: the same columns, one place to turn them into
/// a [`Locked`].
macro_rules! row {
    ($before:literal, $after:literal, $db:expr, $execution:expr, $($value:expr),*) => {{
        let row = sqlx::query!(
            $before
                + "session_id, workspace_id, task_id, is_external, state, agent, turn, attempt,
                    last_seq, last_n, orders, unacknowledged, claim_id, worker_id, claimed_at,
                    acked_at, lease_expires_at, cancel_requested_at, cancel_reason, cancelled_by,
                    on_worker_lost, resumed_after_loss, ended_at, pr_url,
                    clock_timestamp() as \"now!\" "
                + $after,
            $execution.0,
            $($value),*
        )
        .fetch_optional($db)
        .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Locked {
            log: LockedLog {
                execution: $execution,
                session: SessionId(row.session_id),
                last_seq: row.last_seq,
            },
            workspace: WorkspaceId(row.workspace_id),
            task: row.task_id.map(TaskId),
            is_external: row.is_external,
            state: state(&row.state)?,
            agent: agent(&row.agent)?,
            turn: row.turn,
            attempt: row.attempt,
            last_n: row.last_n,
            orders: row.orders,
            unacknowledged: row.unacknowledged,
            claim: row.claim_id.map(ClaimId),
            worker: row.worker_id,
            claimed_at: row.claimed_at,
            acked_at: row.acked_at,
            lease_expires_at: row.lease_expires_at,
            cancel: row.cancel_requested_at.map(|at| CancelRequest {
                at,
                reason: row.cancel_reason.unwrap_or_default(),
                by: row.cancelled_by,
            }),
            on_worker_lost: if row.on_worker_lost == "resume" {
                OnWorkerLost::Resume
            } else {
                OnWorkerLost::Fail
            },
            was_resumed: row.resumed_after_loss,
            ended_at: row.ended_at,
            pr_url: row.pr_url,
            now: row.now,
        }))
    }};
}

/// Locks an execution until the transaction ends; `None` if there is none, or if `lease` or
/// `workspace` are given and are not its own.
pub(crate) async fn lock(
    db: &mut PgConnection,
    execution: ExecutionId,
    lease: Option<&[u8; 32]>,
    workspace: Option<WorkspaceId>,
) -> anyhow::Result<Option<Locked>> {
    row!(
        "select ",
        "from executions
         where id = $1 and ($2::bytea is null or lease_hash = $2)
             and ($3::bigint is null or workspace_id = $3)
         for no key update",
        db,
        execution,
        lease.map(|hash| &hash[..]),
        workspace.map(|id| id.0)
    )
}

/// Reads an execution that this lease holds or held, without locking it: for a single statement
/// that changes it only if it still is as it was read here.
pub(crate) async fn look(
    db: &mut PgConnection,
    execution: ExecutionId,
    lease: &[u8; 32],
) -> anyhow::Result<Option<Locked>> {
    row!(
        "select ",
        "from executions where id = $1 and lease_hash = $2",
        db,
        execution,
        &lease[..]
    )
}

/// Acknowledges a lease, and renews it; `None` if it is not current.
pub(crate) async fn acknowledge(
    db: &mut PgConnection,
    execution: ExecutionId,
    lease: &[u8; 32],
    length: Duration,
) -> anyhow::Result<Option<Locked>> {
    row!(
        "update executions set lease_expires_at = now() + $3, acked_at = coalesce(acked_at, now())
         where id = $1 and lease_hash = $2 and state in ('planning', 'running', 'waiting')
         returning ",
        "",
        db,
        execution,
        &lease[..],
        interval(length)
    )
}

/// Reads a state's name as Postgres keeps it.
pub(super) fn state(name: &str) -> anyhow::Result<State> {
    State::from_name(name).ok_or_else(|| anyhow::anyhow!("executions.state is {name:?}"))
}

/// Reads an agent's name as Postgres keeps it.
pub(super) fn agent(name: &str) -> anyhow::Result<AgentKind> {
    AgentKind::from_spelling(name).ok_or_else(|| anyhow::anyhow!("executions.agent is {name:?}"))
}

/// An execution in the hands of a worker, for tests.
#[cfg(test)]
pub(crate) fn any_held(execution: ExecutionId) -> Locked {
    let now = OffsetDateTime::now_utc();
    Locked {
        log: LockedLog {
            execution,
            session: SessionId::random(),
            last_seq: 3,
        },
        workspace: WorkspaceId(1),
        task: None,
        is_external: false,
        state: State::Planning,
        agent: AgentKind::Shell,
        turn: 1,
        attempt: 1,
        last_n: 0,
        orders: 0,
        unacknowledged: 0,
        claim: None,
        worker: None,
        claimed_at: Some(now),
        acked_at: Some(now),
        lease_expires_at: Some(now),
        cancel: None,
        on_worker_lost: OnWorkerLost::Fail,
        was_resumed: false,
        ended_at: None,
        pr_url: None,
        now,
    }
}
