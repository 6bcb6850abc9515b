//! Leases: confirmed, acknowledged, renewed, looked up by their claim.

use std::time::Duration;

use clawlink_shared::event::EventType;
use clawlink_shared::execution::State;
use clawlink_shared::id::{ClaimId, ExecutionId, WorkspaceId};
use serde::Serialize;
use sqlx::postgres::types::PgInterval;
use sqlx::{Connection, PgConnection};

use super::events::{Appended, LockedLog, NewEvent, append};
use super::locked::Locked;
use clawlink_shared::id::SessionId;

/// Places tried when others take them at the same moment.
const MAX_PLACES_TRIED: usize = 16;

/// A worker that asks for one execution.
#[derive(Debug, Clone)]
pub(crate) struct Claimant<'a> {
    /// Kept while the call is repeated.
    pub(crate) claim: ClaimId,
    /// The process.
    pub(crate) worker: &'a str,
    /// Its directory of session roots.
    pub(crate) root: &'a str,
    /// How long the lease is.
    pub(crate) lease: Duration,
}

/// What Postgres says to a pop.
#[derive(Debug)]
pub(crate) enum Confirmed {
    /// The claimant holds it now.
    Held {
        /// `state_changed`, to be published.
        appended: Appended,
        /// How long it was pending.
        waited: Duration,
    },
    /// It does not.
    Refused(Refusal),
}

/// Why a claimant does not get an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Not pending any more, or its session is busy: whatever ends that queues it again.
    Gone,
    /// Its workspace is at its cap.
    AtCap,
    /// The claim holds another execution already.
    ClaimUsed,
}

/// Hands a pending execution to a claimant if the rules allow it, in one transaction. Claims
/// of one workspace do not wait for each other: each takes a place of its own, and a unique
/// index decides when two want the same.
pub(crate) async fn confirm(
    db: &mut PgConnection,
    execution: ExecutionId,
    workspace: WorkspaceId,
    lease_hash: &[u8; 32],
    by: &Claimant<'_>,
) -> anyhow::Result<Confirmed> {
    for _ in 0..MAX_PLACES_TRIED {
        let error = match try_confirm(db, execution, workspace, lease_hash, by).await {
            Ok(confirmed) => return Ok(confirmed),
            Err(error) => error,
        };
        let broken = error
            .downcast_ref::<sqlx::Error>()
            .and_then(|error| error.as_database_error()?.constraint());
        return Ok(Confirmed::Refused(match broken {
            Some("executions_one_per_place") => continue,
            Some("executions_one_active_per_session") => Refusal::Gone,
            Some("executions_one_per_claim") => Refusal::ClaimUsed,
            _ => return Err(error),
        }));
    }
    Ok(Confirmed::Refused(Refusal::AtCap))
}

async fn try_confirm(
    db: &mut PgConnection,
    execution: ExecutionId,
    workspace: WorkspaceId,
    lease_hash: &[u8; 32],
    by: &Claimant<'_>,
) -> anyhow::Result<Confirmed> {
    let mut tx = db.begin().await?;
    // The first free place from one that follows from the id: neighbours in the queue, which
    // are claimed at the same time, look at different ones.
    let row = sqlx::query!(
        "with taken as (
            select place from executions
            where workspace_id = $2 and state in ('planning', 'running', 'waiting')
         ), free as (
            select place from workspaces, generate_series(0, running_cap - 1) as place
            where id = $2 and (select count(*) from taken) < running_cap
                and place not in (select taken.place from taken where taken.place is not null)
            order by (place - $1::bigint % running_cap + running_cap) % running_cap limit 1
         ), claimed as (
            update executions e set state = 'planning', attempt = attempt + 1, lease_hash = $3,
                claim_id = $4, worker_id = $5, worker_root = $6, claimed_at = now(),
                acked_at = null, lease_expires_at = now() + $7, last_n = 0, wait_reason = null,
                place = free.place
            from free
            where id = $1 and workspace_id = $2 and state = 'pending'
                and cancel_requested_at is null
                and not exists (select from executions earlier
                    where earlier.session_id = e.session_id and earlier.turn < e.turn
                        and earlier.state in ('pending', 'planning', 'running', 'waiting'))
            returning session_id, last_seq, attempt,
                extract(epoch from now() - queued_at)::float8 as waited
         )
         select exists (select from free) as \"has_place!\", session_id as \"session?\",
            last_seq as \"last_seq?\", attempt as \"attempt?\", waited
         from (values (1)) as one left join claimed on true",
        execution.0,
        workspace.0,
        &lease_hash[..],
        by.claim.0,
        by.worker,
        by.root,
        interval(by.lease),
    )
    .fetch_one(&mut *tx)
    .await?;
    let (Some(session), Some(last_seq), Some(attempt)) = (row.session, row.last_seq, row.attempt)
    else {
        return Ok(Confirmed::Refused(if row.has_place {
            Refusal::Gone
        } else {
            Refusal::AtCap
        }));
    };
    let mut log = LockedLog {
        execution,
        session: SessionId(session),
        last_seq,
    };
    let event = changed(State::Pending, State::Planning, Some(by.worker), attempt)?;
    let appended = append(&mut tx, &mut log, &[event]).await?;
    tx.commit().await?;
    Ok(Confirmed::Held {
        appended,
        waited: Duration::try_from_secs_f64(row.waited.unwrap_or(0.0)).unwrap_or_default(),
    })
}

/// Renews a lease, and acknowledges it if `ack`; false if it is not current. Answers the
/// worker's id, whose presence it proves.
pub(crate) async fn renew(
    db: &mut PgConnection,
    execution: ExecutionId,
    lease_hash: &[u8; 32],
    lease: Duration,
    ack: bool,
) -> anyhow::Result<Option<String>> {
    let worker = sqlx::query_scalar!(
        "update executions set lease_expires_at = now() + $3,
            acked_at = case when $4 then coalesce(acked_at, now()) else acked_at end
         where id = $1 and lease_hash = $2 and state in ('planning', 'running', 'waiting')
         returning worker_id",
        execution.0,
        &lease_hash[..],
        interval(lease),
        ack,
    )
    .fetch_optional(db)
    .await?;
    Ok(worker.map(Option::unwrap_or_default))
}

/// What an `events` call finds.
#[derive(Debug)]
pub(crate) struct Renewed {
    /// The end of the log, locked.
    pub(crate) log: LockedLog,
    /// The attempt that numbers are counted in.
    pub(crate) attempt: i32,
    /// The last contiguous number before this call.
    pub(crate) last_n: i64,
    /// Whether the worker acknowledged the lease; nothing was changed unless it did.
    pub(crate) is_acked: bool,
}

/// Locks the log for a batch of numbers `first..=last`, renews the lease and moves `last_n`,
/// unless the batch would leave a gap or the lease is not acknowledged. `None`: not current.
pub(crate) async fn renew_for_events(
    db: &mut PgConnection,
    execution: ExecutionId,
    lease_hash: &[u8; 32],
    lease: Duration,
    first: i64,
    last: i64,
) -> anyhow::Result<Option<Renewed>> {
    let row = sqlx::query!(
        "with held as materialized (
            select id, session_id, attempt, last_seq, last_n, acked_at from executions
            where id = $1 and lease_hash = $2 and state in ('planning', 'running', 'waiting')
            for no key update
         ), renewed as (
            update executions e set lease_expires_at = now() + $3,
                last_n = greatest(e.last_n, $5::bigint)
            from held
            where e.id = held.id and held.acked_at is not null and held.last_n >= $4::bigint - 1
         )
         select session_id, attempt, last_seq, last_n, acked_at from held",
        execution.0,
        &lease_hash[..],
        interval(lease),
        first,
        last,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| Renewed {
        log: LockedLog {
            execution,
            session: SessionId(row.session_id),
            last_seq: row.last_seq,
        },
        attempt: row.attempt,
        last_n: row.last_n,
        is_acked: row.acked_at.is_some(),
    }))
}

/// Moves a held execution between `planning`, `running` and `waiting`; the caller has checked
/// `can_become` under the lock.
pub(crate) async fn change(
    db: &mut PgConnection,
    held: &mut Locked,
    to: State,
    lease: Duration,
) -> anyhow::Result<Appended> {
    let changed_rows = sqlx::query!(
        "update executions set state = $3, lease_expires_at = now() + $4,
            started_at = coalesce(started_at, now())
         where id = $1 and state = $2",
        held.log.execution.0,
        held.state.as_str(),
        to.as_str(),
        interval(lease),
    )
    .execute(&mut *db)
    .await?;
    anyhow::ensure!(changed_rows.rows_affected() == 1, "a locked row changed");
    let event = changed(held.state, to, held.worker.as_deref(), held.attempt)?;
    append(db, &mut held.log, &[event]).await
}

/// What the control long-poll looks at.
#[derive(Debug)]
pub(crate) struct Orders {
    /// Words of a cancel request, if there is one.
    pub(crate) cancel: Option<String>,
}

/// What there is to say to the lease holder; `None` if the lease is not current.
pub(crate) async fn orders(
    db: &mut PgConnection,
    execution: ExecutionId,
    lease_hash: &[u8; 32],
) -> anyhow::Result<Option<Orders>> {
    let row = sqlx::query!(
        "select cancel_requested_at, cancel_reason from executions
         where id = $1 and lease_hash = $2 and state in ('planning', 'running', 'waiting')",
        execution.0,
        &lease_hash[..],
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| Orders {
        cancel: row
            .cancel_requested_at
            .map(|_| row.cancel_reason.unwrap_or_default()),
    }))
}

/// Of these executions, those whose worker has something to hear: a cancel request, or that
/// the execution is no longer held.
pub(crate) async fn with_orders(
    db: &mut PgConnection,
    executions: &[i64],
) -> anyhow::Result<Vec<ExecutionId>> {
    let ids = sqlx::query_scalar!(
        "select id from executions where id = any($1)
            and (cancel_requested_at is not null
                or state not in ('planning', 'running', 'waiting'))",
        executions,
    )
    .fetch_all(db)
    .await?;
    Ok(ids.into_iter().map(ExecutionId).collect())
}

/// The `state_changed` event.
pub(super) fn changed(
    from: State,
    to: State,
    worker: Option<&str>,
    attempt: i32,
) -> anyhow::Result<NewEvent> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Fields<'a> {
        from: State,
        to: State,
        #[serde(skip_serializing_if = "Option::is_none")]
        worker_id: Option<&'a str>,
        attempt: i32,
    }
    NewEvent::own(
        EventType::StateChanged,
        &Fields {
            from,
            to,
            worker_id: worker,
            attempt,
        },
    )
}

pub(super) fn interval(duration: Duration) -> PgInterval {
    PgInterval {
        months: 0,
        days: 0,
        microseconds: i64::try_from(duration.as_micros()).unwrap_or(i64::MAX),
    }
}
