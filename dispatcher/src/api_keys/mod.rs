//! API keys of a workspace: made, listed and revoked by those who may. A key is shown once,
//! stored as a hash, and never may more than whoever made it.
//!
//! A key belongs to its workspace, not to its maker: it outlives the maker's membership unless
//! who ends that says otherwise. It does not outlive the maker's claim to the account.
//!
//! `clk_` is how keys of users' own machines begin; no key made here does.

mod http;
mod store;

use clawlink_shared::id::{ApiKeyId, UserId, WorkspaceId};
use clawlink_shared::secret::Secret;
use serde_json::json;
use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::app::App;
use crate::audit::{self, Actor, Entry};
use crate::auth::principal::{KeyRole, Principal, Who};
use crate::auth::{self, api_key};
use crate::bus::RightsOf;
use crate::error::{ApiError, ApiResult};
use crate::executions::timestamp;
use crate::http::routes::Routes;
use crate::workspaces;
use crate::workspaces::role::{Permission, Role};

/// Keys of one workspace that are not revoked.
const MAX_KEYS: i64 = 200;

/// This feature's routes.
pub fn routes(app: &App) -> Routes {
    http::routes(app)
}

/// What a key is to be.
#[derive(Debug)]
pub(crate) struct New {
    pub(crate) name: String,
    pub(crate) role: KeyRole,
    pub(crate) expires_at: Option<OffsetDateTime>,
}

/// Makes a key; 403 for a role that may more than the caller.
pub(crate) async fn create(
    app: &App,
    principal: &Principal,
    new: &New,
) -> ApiResult<(ApiKeyId, Secret)> {
    let workspace = principal.workspace;
    let mut tx = app.db.begin().await?;
    // Who made a key is behind all that is made with it.
    let maker = auth::hold_account(&mut tx, principal).await?;
    workspaces::lock(&mut tx, workspace).await?;
    let by = auth::renewed(&mut tx, principal, Permission::KeyManage).await?;
    let role = Role::Key(new.role);
    if !by.role.covers(role) {
        return Err(ApiError::forbidden(format!(
            "the role {} may not make a key that may more: {role}",
            by.role
        )));
    }
    if store::count(&mut tx, workspace).await? >= MAX_KEYS {
        return Err(ApiError::conflict(
            "too_many_keys",
            format!("the workspace has {MAX_KEYS} keys; revoke one first"),
        ));
    }
    let (name, until) = (&new.name, new.expires_at);
    let (id, secret) =
        api_key::create_until(&mut tx, workspace, name, new.role, until, maker).await?;
    let actor = Actor::from(principal);
    let entry =
        Entry::done(workspace, &actor, "key.created", ("key", id.to_string())).with(json!({
            "name": new.name, "role": new.role, "expiresAt": new.expires_at.map(timestamp),
            "createdBy": maker.map(|user| Who::User(user).name()),
        }));
    audit::record(&mut tx, &entry).await?;
    tx.commit().await?;
    Ok((id, secret))
}

/// Revokes a key at once.
async fn revoke(app: &App, principal: &Principal, id: ApiKeyId) -> ApiResult<()> {
    let workspace: WorkspaceId = principal.workspace;
    let mut tx = app.db.begin().await?;
    // What is being made with this key is there afterwards, or is refused.
    workspaces::lock(&mut tx, workspace).await?;
    if !store::revoke(&mut tx, workspace, id).await? {
        return Err(ApiError::not_found(
            "key_not_found",
            "this workspace has no such key",
        ));
    }
    let actor = Actor::from(principal);
    let entry = Entry::done(workspace, &actor, "key.revoked", ("key", id.to_string()));
    audit::record(&mut tx, &entry).await?;
    tx.commit().await?;
    auth::forget(app, RightsOf::Key(id));
    Ok(())
}

/// All keys of all workspaces that the person made, also those that are revoked.
pub(crate) async fn made_by(db: &mut PgConnection, user: UserId) -> anyhow::Result<Vec<ApiKeyId>> {
    store::made_by(db, user).await
}

/// Revokes what the person made, in one workspace or in all; `reason` stands in the audit log.
/// After the commit each must be forgotten ([`auth::forget`]).
pub(crate) async fn revoke_made_by(
    db: &mut PgConnection,
    user: UserId,
    workspace: Option<WorkspaceId>,
    actor: &Actor,
    reason: &str,
) -> anyhow::Result<Vec<ApiKeyId>> {
    let revoked = store::revoke_made_by(db, user, workspace).await?;
    for (workspace, id) in &revoked {
        let entry = Entry::done(*workspace, actor, "key.revoked", ("key", id.to_string()));
        audit::record(db, &entry.with(json!({"reason": reason}))).await?;
    }
    Ok(revoked.into_iter().map(|(_, id)| id).collect())
}

/// How many keys that the person made let somebody in now, in all workspaces.
pub(crate) async fn count_valid_made_by(
    db: &mut PgConnection,
    user: UserId,
) -> anyhow::Result<i64> {
    store::count_valid_made_by(db, user).await
}
