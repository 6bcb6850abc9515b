//! Orders to workers: numbered in each execution, kept in Postgres, so that any replica says them
//! and none is lost. What an order says stands with what gave it: a cancel request here, answers
//! and messages in their features.

use clawlink_shared::id::ExecutionId;
use sqlx::PgConnection;

use super::locked::Locked;

/// The next number of an order to the worker of a locked execution.
pub(crate) async fn number(db: &mut PgConnection, held: &mut Locked) -> anyhow::Result<i64> {
    held.orders = sqlx::query_scalar!(
        "update executions set orders = orders + 1 where id = $1 returning orders",
        held.log.execution.0,
    )
    .fetch_one(db)
    .await?;
    Ok(held.orders)
}

/// What the control long-poll looks at.
#[derive(Debug)]
pub(crate) struct Orders {
    /// A cancel request, if there is one: its number, and words for people.
    pub(crate) cancel: Option<(i64, String)>,
    /// A stop, if one was ordered: its number, its code, and words for people.
    pub(crate) stop: Option<(i64, String, String)>,
    /// The last order's number.
    pub(crate) last: i64,
    /// Which of the execution's workers holds it.
    pub(crate) attempt: i32,
}

/// What there is to say to the lease holder; `None` if the lease is not current.
pub(crate) async fn read(
    db: &mut PgConnection,
    execution: ExecutionId,
    lease_hash: &[u8; 32],
) -> anyhow::Result<Option<Orders>> {
    let row = sqlx::query!(
        "select cancel_requested_at, cancel_reason, cancel_order, stop_code, stop_reason, stop_order,
            orders, attempt
         from executions
         where id = $1 and lease_hash = $2 and state in ('planning', 'running', 'waiting')",
        execution.0,
        &lease_hash[..],
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| Orders {
        cancel: row.cancel_requested_at.map(|_| {
            // An older dispatcher gives it no number.
            let number = row.cancel_order.unwrap_or(row.orders + 1);
            (number, row.cancel_reason.unwrap_or_default())
        }),
        stop: row
            .stop_order
            .zip(row.stop_code)
            .map(|(number, code)| (number, code, row.stop_reason.unwrap_or_default())),
        last: row.orders,
        attempt: row.attempt,
    }))
}

/// Of these executions, those whose worker may have something to hear, with the number of the
/// last order; `None` in its place if it must be heard: a cancel request, or that the execution
/// is no longer held.
pub(crate) async fn pending(
    db: &mut PgConnection,
    executions: &[i64],
) -> anyhow::Result<Vec<(ExecutionId, Option<i64>)>> {
    let rows = sqlx::query!(
        "select id, orders, cancel_requested_at is not null
                or state not in ('planning', 'running', 'waiting') as \"is_urgent!\"
         from executions where id = any($1)
            and (orders > 0 or cancel_requested_at is not null
                or state not in ('planning', 'running', 'waiting'))",
        executions,
    )
    .fetch_all(db)
    .await?;
    let rows = rows.into_iter();
    Ok(rows
        .map(|row| (ExecutionId(row.id), (!row.is_urgent).then_some(row.orders)))
        .collect())
}
