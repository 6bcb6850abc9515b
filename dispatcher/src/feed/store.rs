//! Feeds in Postgres.

use clawlink_shared::id::WorkspaceId;
use sqlx::PgConnection;

/// Locks the feed and takes its next number.
pub(super) async fn next_seq(db: &mut PgConnection, workspace: WorkspaceId) -> anyhow::Result<i64> {
    let seq = sqlx::query_scalar!(
        "insert into feeds (workspace_id, last_seq) values ($1, 1)
         on conflict (workspace_id) do update set last_seq = feeds.last_seq + 1
         returning last_seq",
        workspace.0,
    )
    .fetch_one(db)
    .await?;
    Ok(seq)
}

/// Adds the event with that number.
pub(super) async fn insert(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    seq: i64,
    payload: &[u8],
) -> anyhow::Result<()> {
    sqlx::query!(
        "insert into feed_events (workspace_id, seq, payload) values ($1, $2, $3)",
        workspace.0,
        seq,
        payload,
    )
    .execute(db)
    .await?;
    Ok(())
}
