//! Changing projects: each change with its audit entry and feed event in one transaction.

use clawlink_shared::id::ProjectId;
use serde_json::json;
use sqlx::PgConnection;

use super::http::Shown;
use super::store::{self, Fields, Project};
use super::{key, no_such_project};
use crate::app::App;
use crate::audit::{self, Actor, Entry};
use crate::auth::principal::Principal;
use crate::error::{ApiError, ApiResult};
use crate::feed;

/// Keys that are tried for a name before giving up.
const MAX_TRIES: u32 = 100;

/// How a new project gets its key.
pub(super) enum Key {
    /// It is the one in the fields.
    Given,
    /// That one, or the first with a number behind it that is free.
    Derived,
}

/// Makes a project; 409 `key_taken` if its given key is taken.
pub(super) async fn create(
    db: &mut PgConnection,
    principal: &Principal,
    mut fields: Fields,
    how: Key,
) -> ApiResult<Project> {
    let stem = fields.key.clone();
    let tries = match how {
        Key::Given => 1,
        Key::Derived => MAX_TRIES,
    };
    for n in 1..=tries {
        if n > 1 {
            fields.key = format!("{stem}{n}");
        }
        if let Some(project) = store::insert(db, principal.workspace, &fields).await? {
            record(db, principal, "project.created", &project).await?;
            return Ok(project);
        }
    }
    Err(key_taken())
}

/// Changes a project.
pub(super) async fn change(
    db: &mut PgConnection,
    principal: &Principal,
    id: ProjectId,
    edit: impl FnOnce(&mut Fields),
) -> ApiResult<Project> {
    let workspace = principal.workspace;
    if store::lock(db, workspace, id).await?.is_none() {
        return Err(no_such_project());
    }
    let before = store::find(db, workspace, id).await?;
    let mut fields = Fields::from(before.ok_or_else(no_such_project)?);
    edit(&mut fields);
    let project = store::update(db, workspace, id, &fields)
        .await
        .map_err(|error| ApiError::on_constraint(error, "projects_key", "key_taken", KEY_TAKEN))?;
    record(db, principal, "project.updated", &project).await?;
    Ok(project)
}

/// Archives a project; with `force` it is deleted with all its tasks.
pub(super) async fn delete(
    app: &App,
    principal: &Principal,
    id: ProjectId,
    force: bool,
) -> ApiResult<()> {
    let workspace = principal.workspace;
    let mut transaction = app.db.begin().await?;
    if force {
        let key = store::lock(&mut transaction, workspace, id).await?;
        let key = key.ok_or_else(no_such_project)?;
        store::delete(&mut transaction, workspace, id).await?;
        let actor = Actor::from(principal);
        let entry = Entry::done(
            workspace,
            &actor,
            "project.deleted",
            ("project", id.to_string()),
        );
        audit::record(&mut transaction, &entry.with(json!({"key": key}))).await?;
        let gone = json!({"id": id, "key": key});
        feed::append(&mut transaction, workspace, "project.deleted", &gone).await?;
    } else {
        let archive = |fields: &mut Fields| fields.status = "archived".to_owned();
        change(&mut transaction, principal, id, archive).await?;
    }
    transaction.commit().await?;
    feed::poke(app, workspace);
    Ok(())
}

/// The derived key's stem for a name.
pub(super) fn key_for(name: &str) -> String {
    key::derived(name)
}

const KEY_TAKEN: &str = "another project of this workspace has this key; choose another";

fn key_taken() -> ApiError {
    ApiError::conflict("key_taken", KEY_TAKEN)
}

/// Tells the audit log and the feed; the caller's last deed before the commit.
async fn record(
    db: &mut PgConnection,
    principal: &Principal,
    kind: &'static str,
    project: &Project,
) -> anyhow::Result<()> {
    let workspace = principal.workspace;
    let actor = Actor::from(principal);
    let entry = Entry::done(workspace, &actor, kind, ("project", project.id.to_string()));
    let details = json!({"key": project.key, "status": project.status});
    audit::record(db, &entry.with(details)).await?;
    feed::append(db, workspace, kind, &Shown::of(workspace, project.clone())).await
}
