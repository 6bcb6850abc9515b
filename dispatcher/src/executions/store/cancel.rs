//! Cancel requests.

use sqlx::PgConnection;

use super::locked::Locked;

/// Records that somebody wants a held execution to end; false if it was recorded before, and
/// then the first words stay. The caller has locked it.
pub(crate) async fn request(
    db: &mut PgConnection,
    held: &Locked,
    reason: &str,
    by: &str,
) -> anyhow::Result<bool> {
    let updated = sqlx::query!(
        "update executions set cancel_requested_at = now(), cancel_reason = $3,
            cancelled_by = $4, orders = orders + 1, cancel_order = orders + 1
         where id = $1 and state = $2 and cancel_requested_at is null",
        held.log.execution.0,
        held.state.as_str(),
        reason,
        by,
    )
    .execute(db)
    .await?;
    Ok(updated.rows_affected() == 1)
}
