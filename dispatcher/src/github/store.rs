//! The ledger of deliveries.

use std::time::Duration;

use sqlx::PgConnection;
use sqlx::postgres::types::PgInterval;

/// Notes a delivery; false if it was here before. Its id is not signed, so the same body under
/// another id is the same delivery. Whoever comes at the same moment waits for the first one's
/// transaction.
pub(super) async fn note(
    db: &mut PgConnection,
    delivery: &str,
    body_hash: &[u8; 32],
) -> anyhow::Result<bool> {
    let noted = sqlx::query!(
        "insert into github_deliveries (id, body_hash) values ($1, $2) on conflict do nothing",
        delivery,
        &body_hash[..],
    )
    .execute(db)
    .await?;
    Ok(noted.rows_affected() == 1)
}

/// Deletes up to `limit` deliveries that are older than `age`.
pub(super) async fn forget(db: &mut PgConnection, age: Duration, limit: i64) -> anyhow::Result<()> {
    let age = PgInterval::try_from(age).map_err(|error| anyhow::anyhow!("{error}"))?;
    sqlx::query!(
        "delete from github_deliveries where id in
            (select id from github_deliveries where received_at < now() - $1::interval
             order by received_at limit $2)",
        age,
        limit,
    )
    .execute(db)
    .await?;
    Ok(())
}
