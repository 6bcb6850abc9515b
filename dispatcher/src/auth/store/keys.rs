//! API keys in Postgres.

use clawlink_shared::id::{ApiKeyId, UserId, WorkspaceId};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::users::Status;
use crate::auth::principal::{KeyRole, Principal, Who};
use crate::workspaces::role::Role;

/// The caller who holds the key with this hash and the status of its workspace, unless the key
/// expired or was revoked.
pub(in crate::auth) async fn principal_by_hash(
    db: &mut PgConnection,
    hash: &[u8; 32],
) -> anyhow::Result<Option<(Principal, Status)>> {
    let id = sqlx::query_scalar!("select id from api_keys where hash = $1", &hash[..])
        .fetch_optional(&mut *db)
        .await?;
    match id {
        Some(id) => principal(db, ApiKeyId(id)).await,
        None => Ok(None),
    }
}

/// The same by the key's id, which proves nothing by itself.
pub(in crate::auth) async fn principal(
    db: &mut PgConnection,
    id: ApiKeyId,
) -> anyhow::Result<Option<(Principal, Status)>> {
    let row = sqlx::query!(
        "select k.workspace_id, k.role, w.status,
            (k.last_used_at is null or k.last_used_at < now() - interval '1 minute') as \"stale!\"
         from api_keys k join workspaces w on w.id = k.workspace_id
         where k.id = $1 and k.revoked_at is null
            and (k.expires_at is null or k.expires_at > now())",
        id.0,
    )
    .fetch_optional(&mut *db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    if row.stale {
        sqlx::query!(
            "update api_keys set last_used_at = now() where id = $1",
            id.0
        )
        .execute(&mut *db)
        .await?;
    }
    let role = KeyRole::from_name(&row.role)
        .ok_or_else(|| anyhow::anyhow!("api_keys.role of key {id} is {:?}", row.role))?;
    let principal = Principal {
        workspace: WorkspaceId(row.workspace_id),
        who: Who::Key(id),
        sign_in: None,
        role: Role::Key(role),
        device: None,
        address: None,
    };
    Ok(Some((principal, Status::from_name(&row.status)?)))
}

/// The person who made a key, if known.
pub(in crate::auth) async fn maker(
    db: &mut PgConnection,
    id: ApiKeyId,
) -> anyhow::Result<Option<UserId>> {
    let maker = sqlx::query_scalar!("select created_by from api_keys where id = $1", id.0)
        .fetch_optional(db)
        .await?;
    Ok(maker.flatten().map(UserId))
}

/// A key to be stored.
#[derive(Debug)]
pub(in crate::auth) struct NewKey<'a> {
    pub(in crate::auth) name: &'a str,
    pub(in crate::auth) prefix: &'a str,
    pub(in crate::auth) hash: &'a [u8; 32],
    pub(in crate::auth) role: KeyRole,
    pub(in crate::auth) expires_at: Option<OffsetDateTime>,
    pub(in crate::auth) created_by: Option<UserId>,
}

/// Stores a new key.
pub(in crate::auth) async fn insert_key(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    new: &NewKey<'_>,
) -> anyhow::Result<ApiKeyId> {
    let id = sqlx::query_scalar!(
        "insert into api_keys (workspace_id, name, prefix, hash, role, expires_at, created_by)
         values ($1, $2, $3, $4, $5, $6, $7) returning id",
        workspace.0,
        new.name,
        new.prefix,
        &new.hash[..],
        new.role.as_str(),
        new.expires_at,
        new.created_by.map(|user| user.0),
    )
    .fetch_one(db)
    .await?;
    Ok(ApiKeyId(id))
}
