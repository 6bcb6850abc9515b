//! API keys in Postgres.

use clawlink_shared::id::{ApiKeyId, WorkspaceId};
use sqlx::PgConnection;

use super::principal::{KeyRole, Principal, Who};
use crate::workspaces::role::Role;

/// The caller who holds the key with this hash, unless it expired or was revoked.
pub(super) async fn principal_by_hash(
    db: &mut PgConnection,
    hash: &[u8; 32],
) -> anyhow::Result<Option<Principal>> {
    let row = sqlx::query!(
        "select id, workspace_id, role,
            (last_used_at is null or last_used_at < now() - interval '1 minute') as \"stale!\"
         from api_keys
         where hash = $1 and revoked_at is null and (expires_at is null or expires_at > now())",
        &hash[..],
    )
    .fetch_optional(&mut *db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    if row.stale {
        sqlx::query!(
            "update api_keys set last_used_at = now() where id = $1",
            row.id
        )
        .execute(&mut *db)
        .await?;
    }
    let role = KeyRole::from_name(&row.role)
        .ok_or_else(|| anyhow::anyhow!("api_keys.role of key {} is {:?}", row.id, row.role))?;
    Ok(Some(Principal {
        workspace: WorkspaceId(row.workspace_id),
        who: Who::Key(ApiKeyId(row.id)),
        role: Role::Key(role),
        device: None,
        address: None,
    }))
}

/// Stores a new key.
pub(super) async fn insert_key(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    name: &str,
    prefix: &str,
    hash: &[u8; 32],
    role: KeyRole,
) -> anyhow::Result<ApiKeyId> {
    let id = sqlx::query_scalar!(
        "insert into api_keys (workspace_id, name, prefix, hash, role)
         values ($1, $2, $3, $4, $5) returning id",
        workspace.0,
        name,
        prefix,
        &hash[..],
        role.as_str(),
    )
    .fetch_one(db)
    .await?;
    Ok(ApiKeyId(id))
}
