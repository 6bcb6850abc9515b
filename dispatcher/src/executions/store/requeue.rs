//! Executions that leave a worker without an end, and those that the sweeper must look at.

use std::time::Duration;

use clawlink_shared::event::EventType;
use clawlink_shared::execution::State;
use clawlink_shared::id::ExecutionId;
use serde_json::json;
use sqlx::PgConnection;

use super::events::{Appended, NewEvent, append};
use super::lease::{changed, interval};
use super::locked::Locked;
use crate::outbox::{self, Effect};

/// Held executions that may be overdue, oldest first.
pub(crate) async fn overdue(
    db: &mut PgConnection,
    ack: Duration,
    cancel: Duration,
    limit: i64,
) -> anyhow::Result<Vec<ExecutionId>> {
    let ids = sqlx::query_scalar!(
        "select id from executions
         where state in ('planning', 'running', 'waiting')
            and (lease_expires_at < now()
                or (acked_at is null and claimed_at < now() - $1::interval)
                or cancel_requested_at < now() - $2::interval)
         order by lease_expires_at limit $3",
        interval(ack),
        interval(cancel),
        limit,
    )
    .fetch_all(db)
    .await?;
    Ok(ids.into_iter().map(ExecutionId).collect())
}

/// Why an execution goes back to `pending`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Because {
    /// The worker never acknowledged: the attempt does not count.
    Unacknowledged,
    /// Its assignment could not be made for now: nobody was given it, so nothing counts.
    NotHandedOut,
    /// The worker vanished before the agent was started.
    LostEarly,
    /// The worker vanished while the agent ran, and the request allows one more run.
    Resume,
}

/// Puts a locked, held execution back to `pending`. The caller commits, then publishes and
/// pokes the outbox.
pub(crate) async fn requeue(
    db: &mut PgConnection,
    held: &mut Locked,
    because: Because,
) -> anyhow::Result<Appended> {
    let attempt = match because {
        Because::Unacknowledged | Because::NotHandedOut => held.attempt - 1,
        Because::LostEarly | Because::Resume => held.attempt,
    };
    let requeued = sqlx::query!(
        "update executions set state = 'pending', attempt = $3, lease_hash = null,
            lease_expires_at = null, claim_id = null, acked_at = null, worker_id = null,
            worker_root = null, last_n = 0, queued_at = now(), wait_reason = null,
            resumed_after_loss = resumed_after_loss or $4, is_external = false,
            unacknowledged = unacknowledged + case when $5 then 1 else 0 end
         where id = $1 and state = $2",
        held.log.execution.0,
        held.state.as_str(),
        attempt,
        because == Because::Resume,
        because == Because::Unacknowledged,
    )
    .execute(&mut *db)
    .await?;
    anyhow::ensure!(requeued.rows_affected() == 1, "a locked row changed");
    let mut events = vec![changed(held.state, State::Pending, None, attempt)?];
    if because == Because::Resume {
        let message = "The worker was lost while the agent ran. The request runs once more \
                       from the session's last saved state.";
        events.push(NewEvent::own(
            EventType::Message,
            &json!({ "message": message }),
        )?);
    }
    let appended = append(&mut *db, &mut held.log, &events).await?;
    outbox::add_all(
        &mut *db,
        &[
            Effect::Enqueue {
                execution: held.log.execution,
            },
            // Its place in the workspace is free until it is claimed again.
            Effect::Advance {
                session: held.log.session,
                workspace: held.workspace,
            },
        ],
    )
    .await?;
    Ok(appended)
}
