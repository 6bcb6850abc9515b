//! Counters of refused strangers.

use std::time::Duration;

use sqlx::PgConnection;

/// Adds to this minute's counters. Addresses must be sorted, so that replicas do not wait for
/// each other in a circle.
pub(in crate::audit) async fn add(
    db: &mut PgConnection,
    addresses: &[String],
    counts: &[i64],
) -> anyhow::Result<()> {
    sqlx::query!(
        "insert into audit_denials (minute, address, count)
         select date_trunc('minute', now()), address, count
         from unnest($1::text[], $2::bigint[]) as counted (address, count)
         on conflict (minute, address) do update
            set count = audit_denials.count + excluded.count",
        addresses,
        counts,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Forgets counts that are older than this, so many at most; how many.
pub(in crate::audit) async fn forget(
    db: &mut PgConnection,
    keep: Duration,
    limit: i64,
) -> anyhow::Result<u64> {
    let done = sqlx::query!(
        "delete from audit_denials where (minute, address) in (
            select minute, address from audit_denials
            where minute < now() - make_interval(secs => $1)
            order by minute limit $2)",
        keep.as_secs_f64(),
        limit,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}
