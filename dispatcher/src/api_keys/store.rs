//! API keys in Postgres, as those see them who run a workspace.

use clawlink_shared::id::{ApiKeyId, WorkspaceId};
use sqlx::PgConnection;
use time::OffsetDateTime;

/// A key without its secret.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) prefix: String,
    pub(super) role: String,
    pub(super) created_at: OffsetDateTime,
    pub(super) expires_at: Option<OffsetDateTime>,
    pub(super) last_used_at: Option<OffsetDateTime>,
}

/// Keys that are not revoked, the newest first; with `only`, just that one.
pub(super) async fn list(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    only: Option<ApiKeyId>,
    limit: i64,
) -> anyhow::Result<Vec<Row>> {
    let rows = sqlx::query_as!(
        Row,
        "select id, name, prefix, role, created_at, expires_at, last_used_at from api_keys
         where workspace_id = $1 and revoked_at is null and ($2::bigint is null or id = $2)
         order by id desc limit $3",
        workspace.0,
        only.map(|id| id.0),
        limit,
    )
    .fetch_all(db)
    .await?;
    Ok(rows)
}

/// How many keys are not revoked.
pub(super) async fn count(db: &mut PgConnection, workspace: WorkspaceId) -> anyhow::Result<i64> {
    let count = sqlx::query_scalar!(
        "select count(*) as \"count!\" from api_keys
         where workspace_id = $1 and revoked_at is null",
        workspace.0,
    )
    .fetch_one(db)
    .await?;
    Ok(count)
}

/// Revokes a key; false if there is none, or it was revoked.
pub(super) async fn revoke(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    id: ApiKeyId,
) -> anyhow::Result<bool> {
    let done = sqlx::query!(
        "update api_keys set revoked_at = now()
         where workspace_id = $1 and id = $2 and revoked_at is null",
        workspace.0,
        id.0,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}
