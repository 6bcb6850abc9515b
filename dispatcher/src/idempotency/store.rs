//! Idempotency keys of creations in Postgres.

use clawlink_shared::id::WorkspaceId;
use sqlx::PgConnection;

/// Makes requests with the same key wait for each other until the end of the transaction.
pub(super) async fn lock(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    principal: &str,
    key: &str,
) -> anyhow::Result<()> {
    sqlx::query!(
        "select pg_advisory_xact_lock(
            hashtextextended('once ' || $1::bigint || ' ' || $2 || ' ' || $3, 0))",
        workspace.0,
        principal,
        key,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The id of what this key made, and the fingerprint of the body.
pub(super) async fn find(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    principal: &str,
    key: &str,
) -> anyhow::Result<Option<(String, Vec<u8>)>> {
    let row = sqlx::query!(
        "select resource_id, body_mac from idempotent_creates
         where workspace_id = $1 and principal = $2 and key = $3",
        workspace.0,
        principal,
        key,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| (row.resource_id, row.body_mac)))
}

/// Writes down what a key made.
pub(super) async fn insert(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    principal: &str,
    key: &str,
    (resource, id): (&str, &str),
    body_mac: &[u8; 32],
) -> anyhow::Result<()> {
    sqlx::query!(
        "insert into idempotent_creates
            (workspace_id, principal, key, resource, resource_id, body_mac)
         values ($1, $2, $3, $4, $5, $6)",
        workspace.0,
        principal,
        key,
        resource,
        id,
        &body_mac[..],
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Forgets keys older than a day, so many at most; how many.
pub(super) async fn forget(db: &mut PgConnection, limit: i64) -> anyhow::Result<u64> {
    let done = sqlx::query!(
        "delete from idempotent_creates where (workspace_id, principal, key) in (
            select workspace_id, principal, key from idempotent_creates
            where created_at < now() - interval '24 hours'
            order by created_at limit $1)",
        limit,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}
