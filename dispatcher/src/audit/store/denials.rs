//! Counters of refused strangers.

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
