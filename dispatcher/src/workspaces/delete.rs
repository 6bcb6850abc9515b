//! Deleting a workspace: every row and, by effects, every object in S3. The audit log stays.

use std::time::Duration;

use serde_json::json;

use super::not_found;
use super::store::workspaces;
use crate::app::App;
use crate::audit::{self, Actor, Entry};
use crate::auth::principal::Principal;
use crate::bus::RightsOf;
use crate::error::{ApiError, ApiResult};
use crate::outbox::{self, Effect};
use crate::{auth, sessions};

/// How much longer than a cancelled execution may take a forced deletion waits for it.
const FORCE_MARGIN: Duration = Duration::from_secs(10);

/// Deletes the caller's workspace. `confirmation` must be its slug. 409 `workspace_running`
/// while an execution has not ended; with `force` those are cancelled and waited for first.
pub async fn delete(
    app: &App,
    principal: &Principal,
    confirmation: Option<&str>,
    force: bool,
) -> ApiResult<()> {
    let id = principal.workspace;
    let mut db = app.db.acquire().await?;
    let row = workspaces::find(&mut db, id).await?.ok_or_else(not_found)?;
    drop(db);
    if confirmation != Some(row.slug.as_str()) {
        return Err(ApiError::invalid(format!(
            "confirm must be the workspace's slug, {}: deleting takes everything in it",
            row.slug
        )));
    }
    if force {
        let wait = app.tuning.cancel + FORCE_MARGIN;
        let reason = "the workspace is being deleted";
        match tokio::time::timeout(wait, sessions::end_all(app, principal, None, reason)).await {
            Ok(ended) => ended?,
            Err(_) => tracing::warn!(workspace = %id, "executions did not end in time"),
        }
    }
    let mut tx = app.db.begin().await?;
    let slug = workspaces::lock_for_deletion(&mut tx, id).await?;
    let slug = slug.ok_or_else(not_found)?;
    let Some(deleted) = sessions::delete_all(&mut tx, id).await? else {
        return Err(ApiError::conflict(
            "workspace_running",
            "an execution has not ended; cancel it, or delete with force=true",
        ));
    };
    let effects: Vec<Effect> = deleted
        .iter()
        .map(|session| Effect::DeleteObjects { session: *session })
        .collect();
    outbox::add_all(&mut tx, &effects).await?;
    let actor = Actor::from(principal);
    let entry = Entry::done(
        id,
        &actor,
        "workspace.deleted",
        ("workspace", id.to_string()),
    )
    .with(json!({"slug": slug, "name": row.name, "sessions": deleted.len()}));
    audit::record(&mut tx, &entry).await?;
    workspaces::delete(&mut tx, id).await?;
    tx.commit().await?;
    auth::forget(app, RightsOf::Workspace(id));
    outbox::poke_slow(app);
    tracing::info!(workspace = %id, by = principal.name(), "workspace deleted");
    Ok(())
}
