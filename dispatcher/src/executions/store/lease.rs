//! Leases: confirmed, acknowledged, renewed, looked up by their claim.

use std::time::Duration;

use clawlink_shared::event::EventType;
use clawlink_shared::execution::State;
use clawlink_shared::id::{ClaimId, ExecutionId, WorkspaceId};
use serde::Serialize;
use sqlx::PgConnection;
use sqlx::postgres::types::PgInterval;

use super::assignment::{self, Held};
use super::events::{Appended, LockedLog, NewEvent, Numbered};
use super::locked::Locked;
use crate::outbox::Effect;
use crate::usage::money::Micros;
use clawlink_shared::id::SessionId;

/// Tries to confirm when others take the same place or write to the same log at that moment.
const MAX_TRIES: usize = 16;

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
        /// What it is given.
        held: Box<Held>,
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

/// Hands a pending execution to a claimant if the rules allow it, in one statement. Claims of
/// one workspace do not wait for each other: each takes a place of its own, and a unique index
/// decides when two want the same. The end of the log of one that was just accepted may be known
/// already, as `fresh`; then it is tried without being read.
pub(crate) async fn confirm(
    db: &mut PgConnection,
    (execution, workspace): (ExecutionId, WorkspaceId),
    fresh: Option<LockedLog>,
    lease_hash: &[u8; 32],
    by: &Claimant<'_>,
) -> anyhow::Result<Confirmed> {
    let mut fresh = fresh.map(|log| (log, 1));
    let mut seen = None;
    for _ in 0..MAX_TRIES {
        let is_sure = fresh.is_none();
        let next = match fresh.take() {
            Some(fresh) => Some(fresh),
            None => pending(db, execution, workspace).await?,
        };
        let Some((log, attempt)) = next else {
            return Ok(Confirmed::Refused(Refusal::Gone));
        };
        // Refused as it stands: an earlier turn of its session is open.
        if seen == Some(log.last_seq) {
            return Ok(Confirmed::Refused(Refusal::Gone));
        }
        let event = changed(State::Pending, State::Planning, Some(by.worker), attempt)?;
        let new = Numbered::after(&log, &[event])?;
        let error = match try_confirm(db, (workspace, &log), &new, lease_hash, by).await {
            Ok(Tried::Held { held, waited }) => {
                let appended = new.appended(&log);
                return Ok(Confirmed::Held {
                    held,
                    appended,
                    waited,
                });
            }
            // It may have been cancelled meanwhile, and then it needs no place.
            Ok(Tried::NoPlace) if !is_sure => continue,
            Ok(Tried::NoPlace) => return Ok(Confirmed::Refused(Refusal::AtCap)),
            Ok(Tried::NotSo) => {
                seen = Some(log.last_seq);
                continue;
            }
            Err(error) => error,
        };
        let broken = error
            .downcast_ref::<sqlx::Error>()
            .and_then(|error| error.as_database_error()?.constraint());
        return Ok(Confirmed::Refused(match broken {
            Some("executions_one_per_place") => {
                metrics::counter!("clawlink_places_contested_total").increment(1);
                continue;
            }
            Some("executions_one_active_per_session") => Refusal::Gone,
            Some("executions_one_per_claim") => Refusal::ClaimUsed,
            _ => return Err(error),
        }));
    }
    Ok(Confirmed::Refused(Refusal::AtCap))
}

/// The end of a pending execution's log, and its next attempt.
async fn pending(
    db: &mut PgConnection,
    execution: ExecutionId,
    workspace: WorkspaceId,
) -> anyhow::Result<Option<(LockedLog, i32)>> {
    let row = sqlx::query!(
        "select session_id, last_seq, attempt + 1 as \"attempt!\" from executions
         where id = $1 and workspace_id = $2 and state = 'pending'
            and cancel_requested_at is null",
        execution.0,
        workspace.0,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| {
        let log = LockedLog {
            execution,
            session: SessionId(row.session_id),
            last_seq: row.last_seq,
        };
        (log, row.attempt)
    }))
}

/// What one try found.
enum Tried {
    Held {
        held: Box<Held>,
        waited: Duration,
    },
    NoPlace,
    /// The execution was not as it was read, or its session is busy.
    NotSo,
}

async fn try_confirm(
    db: &mut PgConnection,
    (workspace, log): (WorkspaceId, &LockedLog),
    new: &Numbered,
    lease_hash: &[u8; 32],
    by: &Claimant<'_>,
) -> anyhow::Result<Tried> {
    // Of the free places the one that the id picks: neighbours in the queue, which are claimed
    // at the same time and see the same places, take different ones. (The next free one after
    // a place of their own would not do: who had to move on pushes the neighbour on, for ever.)
    let row = sqlx::query!(
        "with taken as (
            select place from executions
            where workspace_id = $2 and state in ('planning', 'running', 'waiting')
                and not is_external
         ), room as (
            select running_cap, running_cap - (select count(*) from taken) as free
            from workspaces where id = $2
         ), free as (
            select place from room, generate_series(0, running_cap - 1) as place
            where free > 0
                and place not in (select taken.place from taken where taken.place is not null)
            offset (select $1::bigint % greatest(free, 1) from room) limit 1
         ), claimed as (
            update executions e set state = 'planning', attempt = attempt + 1, lease_hash = $3,
                claim_id = $4, worker_id = $5, worker_root = $6, claimed_at = now(),
                acked_at = null, lease_expires_at = now() + $7, last_n = 0, wait_reason = null,
                place = free.place, last_seq = last_seq + 1
            from free
            where id = $1 and workspace_id = $2 and state = 'pending' and last_seq = $8
                and cancel_requested_at is null
                and not exists (select from executions earlier
                    where earlier.session_id = e.session_id and earlier.turn < e.turn
                        and earlier.state in ('pending', 'planning', 'running', 'waiting'))
            returning id, uuid, attempt, spec, turn, session_id,
                extract(epoch from now() - queued_at)::float8 as waited
         ), logged as (
            insert into events (execution_id, seq, payload) select id, $8 + 1, $9 from claimed
         )
         select exists (select from free) as \"has_place!\",
            claimed.uuid as \"uuid?\", claimed.attempt as \"attempt?\", claimed.spec as \"spec?\",
            claimed.turn as \"turn?\", claimed.waited, c.sealed as \"sealed?\",
            s.archive_key as \"archive_key?\", s.archive_size as \"archive_size?\",
            s.archive_sha256 as \"archive_sha256?\", s.archive_root as \"archive_root?\",
            s.provider_session_id as \"provider_session_id?\",
            s.budget_micros as \"budget_micros?\", s.budget_micros is not null
                or exists (select from limits where workspace_id = $2) as \"is_limited!\"
         from (values (1)) as one
         left join claimed on true
         left join sessions s on s.id = claimed.session_id
         left join credentials c on c.execution_id = claimed.id",
        log.execution.0,
        workspace.0,
        &lease_hash[..],
        by.claim.0,
        by.worker,
        by.root,
        interval(by.lease),
        log.last_seq,
        &new.payloads[0][..],
    )
    .fetch_one(db)
    .await?;
    let (Some(uuid), Some(attempt), Some(spec), Some(turn)) =
        (row.uuid, row.attempt, row.spec, row.turn)
    else {
        return Ok(if row.has_place {
            Tried::NotSo
        } else {
            Tried::NoPlace
        });
    };
    Ok(Tried::Held {
        held: Box::new(Held {
            execution: log.execution,
            workspace,
            uuid,
            attempt,
            lease_hash: lease_hash.to_vec(),
            spec,
            sealed: row.sealed,
            is_limited: row.is_limited,
            session_budget: row.budget_micros.map(Micros),
            session: log.session,
            turn,
            archive: assignment::archive(row.archive_key, row.archive_size, row.archive_sha256),
            archive_root: row.archive_root,
            provider_session_id: row.provider_session_id,
        }),
        waited: Duration::try_from_secs_f64(row.waited.unwrap_or(0.0)).unwrap_or_default(),
    })
}

/// Renews a lease. Answers the worker's id, whose presence it proves; `None` if the lease is not
/// current.
pub(crate) async fn renew(
    db: &mut PgConnection,
    execution: ExecutionId,
    lease_hash: &[u8; 32],
    lease: Duration,
) -> anyhow::Result<Option<String>> {
    let worker = sqlx::query_scalar!(
        "update executions set lease_expires_at = now() + $3
         where id = $1 and lease_hash = $2 and state in ('planning', 'running', 'waiting')
         returning worker_id",
        execution.0,
        &lease_hash[..],
        interval(lease),
    )
    .fetch_optional(db)
    .await?;
    Ok(worker.map(Option::unwrap_or_default))
}

/// Stores a worker's batch up to its number `last` and renews the lease, if the execution still
/// is as it was read. `None`: it changed meanwhile; look again.
pub(crate) async fn append_from_worker(
    db: &mut PgConnection,
    held: &Locked,
    lease_hash: &[u8; 32],
    lease: Duration,
    events: &[NewEvent],
    last: i64,
) -> anyhow::Result<Option<Appended>> {
    let new = Numbered::after(&held.log, events)?;
    let inserted = sqlx::query!(
        "with renewed as (
            update executions set lease_expires_at = now() + $3, last_n = $4,
                last_seq = last_seq + cardinality($7::bigint[])
            where id = $1 and lease_hash = $2 and state in ('planning', 'running', 'waiting')
                and acked_at is not null and last_n = $5 and last_seq = $6
            returning id
         )
         insert into events (execution_id, seq, attempt, n, payload)
         select renewed.id, seq, attempt, n, payload
         from renewed, unnest($7::bigint[], $8::integer[], $9::bigint[], $10::bytea[])
              as new (seq, attempt, n, payload)",
        held.log.execution.0,
        &lease_hash[..],
        interval(lease),
        last,
        held.last_n,
        held.log.last_seq,
        &new.seqs,
        &new.attempts as &[Option<i32>],
        &new.numbers as &[Option<i64>],
        &new.bytes() as &[&[u8]],
    )
    .execute(db)
    .await?;
    let is_stored = inserted.rows_affected() == events.len() as u64;
    Ok(is_stored.then(|| new.appended(&held.log)))
}

/// A lease that is shown and renewed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown<'a> {
    /// Its hash.
    pub(crate) hash: &'a [u8; 32],
    /// How long it is from now on.
    pub(crate) length: Duration,
}

/// Moves a held execution between `planning`, `running` and `waiting`, if it still is as it was
/// read; the caller has checked `can_become`. Without a lease it is not the worker who moves it,
/// and its lease stays as it is. `None`: it changed meanwhile; look again.
pub(crate) async fn change(
    db: &mut PgConnection,
    held: &Locked,
    lease: Option<Shown<'_>>,
    to: State,
) -> anyhow::Result<Option<Appended>> {
    let event = changed(held.state, to, held.worker.as_deref(), held.attempt)?;
    let new = Numbered::after(&held.log, &[event])?;
    let follow = Effect::FollowTask {
        execution: held.log.execution,
    };
    let logged = sqlx::query!(
        "with changed as (
            update executions set state = $4,
                lease_expires_at = coalesce(now() + $5, lease_expires_at),
                started_at = coalesce(started_at, now()), last_seq = last_seq + 1
            where id = $1 and ($2::bytea is null or lease_hash = $2) and state = $3
                and acked_at is not null and last_seq = $6
            returning id, task_id
         ), followed as (
            insert into outbox (effect, is_slow) select $8, true from changed where task_id is not null
         )
         insert into events (execution_id, seq, payload) select id, $6 + 1, $7 from changed",
        held.log.execution.0,
        lease.map(|lease| &lease.hash[..]),
        held.state.as_str(),
        to.as_str(),
        lease.map(|lease| interval(lease.length)),
        held.log.last_seq,
        &new.payloads[0][..],
        serde_json::to_value(follow)?,
    )
    .execute(db)
    .await?;
    Ok((logged.rows_affected() == 1).then(|| new.appended(&held.log)))
}

/// Moves a locked execution between `running` and `waiting`. The caller commits, then publishes.
pub(crate) async fn step(
    db: &mut PgConnection,
    held: &mut Locked,
    to: State,
) -> anyhow::Result<Appended> {
    let from = held.state;
    anyhow::ensure!(
        from.can_become(to),
        "{} cannot become {}",
        from.as_str(),
        to.as_str()
    );
    let moved = change(db, held, None, to).await?;
    let appended = moved.ok_or_else(|| anyhow::anyhow!("a locked row changed"))?;
    held.state = to;
    held.log.last_seq += 1;
    Ok(appended)
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
