//! API keys of a workspace: made, listed and revoked by those who may. A key is shown once,
//! stored as a hash, and never may more than whoever made it.
//!
//! `clk_` is how keys of users' own machines begin; no key made here does.

mod http;
mod store;

use clawlink_shared::id::{ApiKeyId, WorkspaceId};
use clawlink_shared::secret::Secret;
use serde_json::json;
use time::OffsetDateTime;

use crate::app::App;
use crate::audit::{self, Actor, Entry};
use crate::auth::principal::{KeyRole, Principal};
use crate::auth::{self, api_key};
use crate::bus::RightsOf;
use crate::error::{ApiError, ApiResult};
use crate::executions::timestamp;
use crate::http::routes::Routes;
use crate::workspaces;
use crate::workspaces::role::Role;

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
    let role = Role::Key(new.role);
    if !principal.role.covers(role) {
        return Err(ApiError::forbidden(format!(
            "the role {} may not make a key that may more: {role}",
            principal.role
        )));
    }
    let workspace = principal.workspace;
    let mut tx = app.db.begin().await?;
    workspaces::lock(&mut tx, workspace).await?;
    if store::count(&mut tx, workspace).await? >= MAX_KEYS {
        return Err(ApiError::conflict(
            "too_many_keys",
            format!("the workspace has {MAX_KEYS} keys; revoke one first"),
        ));
    }
    let (id, secret) =
        api_key::create_until(&mut tx, workspace, &new.name, new.role, new.expires_at).await?;
    let actor = Actor::from(principal);
    let entry =
        Entry::done(workspace, &actor, "key.created", ("key", id.to_string())).with(json!({
            "name": new.name, "role": new.role, "expiresAt": new.expires_at.map(timestamp),
        }));
    audit::record(&mut tx, &entry).await?;
    tx.commit().await?;
    Ok((id, secret))
}

/// Revokes a key at once.
async fn revoke(app: &App, principal: &Principal, id: ApiKeyId) -> ApiResult<()> {
    let workspace: WorkspaceId = principal.workspace;
    let mut tx = app.db.begin().await?;
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
