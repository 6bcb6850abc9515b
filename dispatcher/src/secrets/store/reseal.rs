//! Replacing what another key sealed.

use clawlink_shared::id::WorkspaceId;
use sqlx::PgConnection;

use crate::secrets::{Stale, owner};

/// The next secrets after this id that the current key did not seal.
pub(in crate::secrets) async fn stale(
    db: &mut PgConnection,
    current: &[u8],
    after: i64,
    limit: i64,
) -> anyhow::Result<Vec<Stale>> {
    let rows = sqlx::query!(
        "select id, workspace_id, name, agent, sealed from secrets
         where key_id <> $1 and id > $2 order by id limit $3",
        current,
        after,
        limit,
    )
    .fetch_all(db)
    .await?;
    let stale = rows.into_iter().map(|row| Stale {
        id: row.id,
        owner: owner(
            WorkspaceId(row.workspace_id),
            row.agent.as_deref(),
            &row.name,
        ),
        sealed: row.sealed,
    });
    Ok(stale.collect())
}

/// Puts the same value in another seal. Its version stays; nothing happens if it has a new
/// value by now.
pub(in crate::secrets) async fn replace(
    db: &mut PgConnection,
    stale: &Stale,
    sealed: &[u8],
) -> anyhow::Result<()> {
    sqlx::query!(
        "update secrets set sealed = $2 where id = $1 and sealed = $3",
        stale.id,
        sealed,
        stale.sealed,
    )
    .execute(db)
    .await?;
    Ok(())
}
