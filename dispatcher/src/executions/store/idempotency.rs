//! Idempotency keys: unique per principal, written with the execution they made.

use clawlink_shared::id::ExecutionId;
use sqlx::PgConnection;

/// An earlier request with the same key.
#[derive(Debug)]
pub(crate) struct Earlier {
    pub(crate) execution: ExecutionId,
    /// Fingerprint of its body.
    pub(crate) body_mac: Vec<u8>,
}

/// What an earlier request with this key made.
pub(crate) async fn find(
    db: &mut PgConnection,
    principal: &str,
    key: &str,
) -> anyhow::Result<Option<Earlier>> {
    let row = sqlx::query!(
        "select execution_id, body_mac from idempotency_keys where principal = $1 and key = $2",
        principal,
        key,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| Earlier {
        execution: ExecutionId(row.execution_id),
        body_mac: row.body_mac,
    }))
}
