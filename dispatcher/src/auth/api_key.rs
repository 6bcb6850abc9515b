//! API keys: `clawlink_` and 256 random bits; stored as SHA-256.

use clawlink_shared::id::{ApiKeyId, UserId, WorkspaceId};
use clawlink_shared::secret::Secret;
use serde_json::json;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::principal::KeyRole;
use super::store::keys::{self, NewKey};
use crate::audit::{self, Actor, Entry};
use crate::secrets::{hash_token, random_token};

/// What every key begins with, so that people and scanners recognize one.
const PREFIX: &str = "clawlink_";

/// Makes a key that no person has made; the secret is returned once and never stored.
pub async fn create(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    name: &str,
    role: KeyRole,
) -> anyhow::Result<(ApiKeyId, Secret)> {
    create_until(db, workspace, name, role, None, None).await
}

/// The same for one that may expire and may have a maker.
pub async fn create_until(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    name: &str,
    role: KeyRole,
    expires_at: Option<OffsetDateTime>,
    created_by: Option<UserId>,
) -> anyhow::Result<(ApiKeyId, Secret)> {
    let key = format!("{PREFIX}{}", random_token());
    let shown = &key[..PREFIX.len() + 6];
    let row = NewKey {
        name,
        prefix: shown,
        hash: &hash_token(&key),
        role,
        expires_at,
        created_by,
    };
    let id = keys::insert_key(db, workspace, &row).await?;
    Ok((id, Secret::new(key)))
}

/// The same, written down in the audit log as somebody's deed.
pub async fn create_by(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    name: &str,
    role: KeyRole,
    by: &Actor,
) -> anyhow::Result<Secret> {
    let (id, key) = create(db, workspace, name, role).await?;
    let entry = Entry::done(workspace, by, "key.created", ("key", id.to_string()));
    let entry = entry.with(json!({"name": name, "role": role}));
    audit::record(db, &entry).await?;
    Ok(key)
}

/// Whether this is a key that may be used now.
pub async fn is_valid(db: &mut PgConnection, key: &Secret) -> anyhow::Result<bool> {
    let principal = keys::principal_by_hash(db, &hash_token(key.expose())).await?;
    Ok(principal.is_some())
}
