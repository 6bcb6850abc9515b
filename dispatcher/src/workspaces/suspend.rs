//! Suspending workspaces: what those who run the installation may do to one that is not theirs.
//!
//! A suspended workspace can be read; nothing new begins in it and nothing in it is changed. What
//! was accepted before goes on, and can be answered and cancelled. Both the workspace's audit log
//! and the platform's tell of it; an admin of the platform sees nothing else of the workspace.

use clawlink_shared::id::WorkspaceId;
use serde_json::json;

use super::not_found;
use super::store::workspaces::{self, Overview};
use crate::app::App;
use crate::audit::{self, Actor, Entry};
use crate::auth;
use crate::auth::principal::Person;
use crate::bus::RightsOf;
use crate::error::ApiResult;
use crate::feed;

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Suspended,
    Resumed,
}

/// Suspends or resumes a workspace; nothing happens if it is so already. 404 if there is none.
pub(super) async fn turn(
    app: &App,
    person: &Person,
    id: WorkspaceId,
    turn: Turn,
    reason: &str,
) -> ApiResult<Overview> {
    let mut tx = app.db.begin().await?;
    let (action, is_changed) = match turn {
        Turn::Suspended => (
            "workspace.suspended",
            workspaces::suspend(&mut tx, id).await?,
        ),
        Turn::Resumed => ("workspace.resumed", workspaces::resume(&mut tx, id).await?),
    };
    let shown = workspaces::overview(&mut tx, Some(id), (None, None), 0, 1).await?;
    let shown = shown.into_iter().next().ok_or_else(not_found)?;
    if !is_changed {
        return Ok(shown);
    }
    let actor = Actor::from(person);
    let thing = ("workspace", id.to_string());
    let entry = Entry::done(id, &actor, action, thing.clone()).with(json!({ "reason": reason }));
    audit::record(&mut tx, &entry).await?;
    let of_platform = Entry {
        workspace: None,
        ..Entry::done(id, &actor, action, thing).with(json!({"reason": reason, "slug": shown.slug}))
    };
    audit::record(&mut tx, &of_platform).await?;
    let told = json!({"name": shown.name, "status": shown.status});
    feed::append(&mut tx, id, "workspace.updated", &told).await?;
    tx.commit().await?;
    auth::forget(app, RightsOf::Workspace(id));
    feed::poke(app, id);
    Ok(shown)
}
