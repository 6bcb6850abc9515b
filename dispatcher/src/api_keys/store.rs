//! API keys in Postgres, as those see them who run a workspace.

use clawlink_shared::id::{ApiKeyId, UserId, WorkspaceId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

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
    pub(super) created_by: Option<Uuid>,
    /// Whether that person is a member who may sign in.
    pub(super) is_creator_active: bool,
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
        "select k.id, k.name, k.prefix, k.role, k.created_at, k.expires_at, k.last_used_at,
            k.created_by, exists (
                select 1 from members m join users u on u.id = m.user_id
                where m.workspace_id = k.workspace_id and m.user_id = k.created_by
                    and m.removed_at is null and u.disabled_at is null
            ) as \"is_creator_active!\"
         from api_keys k
         where k.workspace_id = $1 and k.revoked_at is null and ($2::bigint is null or k.id = $2)
         order by k.id desc limit $3",
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

/// The keys of all workspaces that the person made.
pub(super) async fn made_by(db: &mut PgConnection, user: UserId) -> anyhow::Result<Vec<ApiKeyId>> {
    let keys = sqlx::query_scalar!("select id from api_keys where created_by = $1", user.0)
        .fetch_all(db)
        .await?;
    Ok(keys.into_iter().map(ApiKeyId).collect())
}

/// Revokes what the person made, in one workspace or in all.
pub(super) async fn revoke_made_by(
    db: &mut PgConnection,
    user: UserId,
    workspace: Option<WorkspaceId>,
) -> anyhow::Result<Vec<(WorkspaceId, ApiKeyId)>> {
    let rows = sqlx::query!(
        "update api_keys set revoked_at = now()
         where created_by = $1 and revoked_at is null and ($2::bigint is null or workspace_id = $2)
         returning workspace_id, id",
        user.0,
        workspace.map(|workspace| workspace.0),
    )
    .fetch_all(db)
    .await?;
    let revoked = rows.into_iter();
    Ok(revoked
        .map(|row| (WorkspaceId(row.workspace_id), ApiKeyId(row.id)))
        .collect())
}

/// How many of the person's keys, of all workspaces, are neither revoked nor expired.
pub(super) async fn count_valid_made_by(
    db: &mut PgConnection,
    user: UserId,
) -> anyhow::Result<i64> {
    let count = sqlx::query_scalar!(
        "select count(*) as \"count!\" from api_keys
         where created_by = $1 and revoked_at is null
            and (expires_at is null or expires_at > now())",
        user.0,
    )
    .fetch_one(db)
    .await?;
    Ok(count)
}
