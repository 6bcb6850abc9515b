//! Sealed credentials that are kept while executions last.

use clawlink_shared::id::ExecutionId;
use sqlx::PgConnection;

use crate::secrets::Stale;

/// Those that do not begin with the current key's id, after this execution.
pub(crate) async fn stale(
    db: &mut PgConnection,
    current: &[u8],
    after: i64,
    limit: i64,
) -> anyhow::Result<Vec<Stale>> {
    let rows = sqlx::query!(
        "select execution_id, uuid, sealed
         from credentials join executions on id = execution_id
         where substring(sealed from 1 for 8) <> $1 and execution_id > $2
         order by execution_id limit $3",
        current,
        after,
        limit,
    )
    .fetch_all(db)
    .await?;
    let stale = rows.into_iter().map(|row| Stale {
        id: row.execution_id,
        owner: row.uuid.as_bytes().to_vec(),
        sealed: row.sealed,
    });
    Ok(stale.collect())
}

/// Puts the same credentials in another seal.
pub(crate) async fn replace(
    db: &mut PgConnection,
    execution: ExecutionId,
    old: &[u8],
    new: &[u8],
) -> anyhow::Result<()> {
    sqlx::query!(
        "update credentials set sealed = $3 where execution_id = $1 and sealed = $2",
        execution.0,
        old,
        new,
    )
    .execute(db)
    .await?;
    Ok(())
}
