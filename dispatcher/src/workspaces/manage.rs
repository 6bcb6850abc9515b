//! Making workspaces and changing their names and states.

use clawlink_shared::id::WorkspaceId;
use serde_json::json;
use uuid::Uuid;

use super::role::MemberRole;
use super::store::{members, workspaces};
use super::{name, not_found, slug};
use crate::app::App;
use crate::audit::{self, Actor, Entry};
use crate::auth::principal::{Person, Principal};
use crate::bus::RightsOf;
use crate::error::{ApiError, ApiResult};
use crate::{auth, feed};

/// Workspaces that one person may own.
const MAX_OWNED: i64 = 100;

/// What is to change; absent means unchanged.
#[derive(Debug, Default)]
pub struct Changes {
    /// For people; the slug stays.
    pub name: Option<String>,
    /// Whether work may be submitted: archived workspaces can only be looked at.
    pub is_archived: Option<bool>,
}

/// Makes a workspace whose owner is this person. 409 `slug_taken` if another has the slug, be
/// it given or derived from the name.
pub async fn create(
    app: &App,
    person: &Person,
    wanted: Option<&str>,
    wanted_slug: Option<&str>,
) -> ApiResult<WorkspaceId> {
    let name = name("name", wanted)?;
    let slug = match wanted_slug {
        Some(text) => slug::of(text)
            .filter(|slug| slug == text)
            .ok_or_else(|| ApiError::invalid("slug must be like my-team-2"))?,
        // A name without one letter or digit of ASCII.
        None => slug::of(&name).unwrap_or_else(|| format!("workspace-{}", short_random())),
    };
    let mut tx = app.db.begin().await?;
    if workspaces::owned(&mut tx, person.user).await? >= MAX_OWNED {
        return Err(ApiError::conflict(
            "too_many_workspaces",
            format!("you own {MAX_OWNED} workspaces; delete one first"),
        ));
    }
    let caps = (app.tuning.running_cap, app.tuning.pending_cap);
    let Some(id) = workspaces::insert(&mut tx, &slug, &name, caps).await? else {
        return Err(ApiError::conflict(
            "slug_taken",
            format!("another workspace has the slug {slug}; choose another name"),
        ));
    };
    if !members::add(&mut tx, id, person.user, MemberRole::Owner).await? {
        return Err(ApiError::unauthorized("this account is gone or disabled"));
    }
    let actor = Actor::from(person);
    let entry = Entry::done(
        id,
        &actor,
        "workspace.created",
        ("workspace", id.to_string()),
    )
    .with(json!({"name": name, "slug": slug}));
    audit::record(&mut tx, &entry).await?;
    tx.commit().await?;
    Ok(id)
}

fn short_random() -> String {
    let mut text = Uuid::new_v4().simple().to_string();
    text.truncate(8);
    text
}

/// Renames, archives or reopens the caller's workspace. 409 `workspace_suspended` while the
/// installation has suspended it.
pub async fn update(app: &App, principal: &Principal, changes: &Changes) -> ApiResult<()> {
    let id = principal.workspace;
    let new_name = match &changes.name {
        Some(text) => Some(name("name", Some(text))?),
        None => None,
    };
    let status = changes.is_archived.map(|is_archived| match is_archived {
        true => "archived",
        false => "active",
    });
    if new_name.is_none() && status.is_none() {
        return Ok(());
    }
    let mut tx = app.db.begin().await?;
    if !workspaces::update(&mut tx, id, new_name.as_deref(), status).await? {
        return Err(match workspaces::find(&mut tx, id).await? {
            Some(_) => ApiError::conflict(
                "workspace_suspended",
                "this workspace is suspended; ask those who run the installation",
            ),
            None => not_found(),
        });
    }
    let actor = Actor::from(principal);
    let details = json!({"name": new_name, "status": status});
    let entry = Entry::done(
        id,
        &actor,
        "workspace.updated",
        ("workspace", id.to_string()),
    )
    .with(details.clone());
    audit::record(&mut tx, &entry).await?;
    feed::append(&mut tx, id, "workspace.updated", &details).await?;
    tx.commit().await?;
    auth::forget(app, RightsOf::Workspace(id));
    feed::poke(app, id);
    Ok(())
}
