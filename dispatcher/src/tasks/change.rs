//! Changing tasks: each change with its audit entry and feed events in one transaction.
//!
//! Locks are taken in one order: the workspace's hierarchy, the project, the task, the feed.

use clawlink_shared::id::{ProjectId, TaskId, UserId, WorkspaceId};
use serde_json::json;
use sqlx::PgConnection;

use super::edit::{Edit, New};
use super::kinds::Status;
use super::no_such_task;
use super::place::{self, Place};
use super::relations;
use super::shown::Shown;
use super::store::{self, Fields, Task};
use crate::app::App;
use crate::audit::{self, Actor, Entry};
use crate::auth::principal::Principal;
use crate::error::{ApiError, ApiResult};
use crate::{feed, projects, workspaces};

/// Makes a task.
pub(super) async fn create(
    db: &mut PgConnection,
    principal: &Principal,
    new: New,
) -> ApiResult<Task> {
    let workspace = principal.workspace;
    let New {
        project,
        mut fields,
        place,
    } = new;
    if let Some(parent) = fields.parent {
        store::relations::lock(db, workspace).await?;
        relations::check_parent(db, workspace, None, parent).await?;
    }
    check_assignee(db, workspace, fields.assignee).await?;
    let prefix = projects::lock(db, workspace, project).await?;
    let prefix = prefix.ok_or_else(projects::no_such_project)?;
    let (position, is_spread) = place::find(db, workspace, project, None, place).await?;
    fields.position = position;
    let number = store::next_number(db, workspace, &prefix).await?;
    let key = format!("{prefix}-{number:03}");
    let id = store::insert(db, workspace, project, &key, &fields, &principal.name())
        .await
        .map_err(no_such_assignee)?;
    let task = told(db, &Actor::from(principal), workspace, "task.created", id).await?;
    if is_spread {
        place::tell(db, workspace, project).await?;
    }
    tell_ancestors(db, workspace, &[task.parent_id]).await?;
    Ok(task)
}

/// Changes a task.
pub(super) async fn change(
    db: &mut PgConnection,
    principal: &Principal,
    id: TaskId,
    edit: Edit,
) -> ApiResult<Task> {
    let workspace = principal.workspace;
    if let Some(parent) = edit.parent {
        store::relations::lock(db, workspace).await?;
        if let Some(parent) = parent {
            relations::check_parent(db, workspace, Some(id), parent).await?;
        }
    }
    let seen = store::find(db, workspace, id).await?;
    let seen = seen.ok_or_else(no_such_task)?;
    let project = ProjectId(seen.project_id);
    if edit.project.is_some_and(|other| other != project) {
        return Err(ApiError::invalid("projectId: a task stays in its project"));
    }
    // Who sends back what was read changes nothing.
    let assignee = edit.assignee.flatten();
    let assignee = assignee.filter(|user| seen.assignee_id != Some(user.0));
    check_assignee(db, workspace, assignee).await?;
    let mut position = None;
    let mut is_spread = false;
    if edit.place.is_some_and(|place| !place.is_beside(id)) {
        projects::lock(db, workspace, project).await?;
        let place = edit.place.unwrap_or(Place::Last);
        let found = place::find(db, workspace, project, Some(id), place).await?;
        position = Some(found.0);
        is_spread = found.1;
    }
    let before = locked(db, workspace, id).await?;
    let mut fields = Fields::try_from(&before)?;
    edit.apply(&mut fields);
    if let Some(position) = position {
        fields.position = position;
    }
    store::update(db, workspace, id, &fields)
        .await
        .map_err(no_such_assignee)?;
    let task = told(db, &Actor::from(principal), workspace, "task.updated", id).await?;
    if is_spread {
        place::tell(db, workspace, project).await?;
    }
    tell_if_progress(db, workspace, &before, &task).await?;
    Ok(task)
}

/// Archives a task, or with `force` deletes it.
pub(super) async fn delete(
    app: &App,
    principal: &Principal,
    id: TaskId,
    force: bool,
) -> ApiResult<()> {
    let workspace = principal.workspace;
    let mut transaction = app.db.begin().await?;
    if force {
        store::relations::lock(&mut transaction, workspace).await?;
        let task = locked(&mut transaction, workspace, id).await?;
        store::delete(&mut transaction, workspace, id).await?;
        let actor = Actor::from(principal);
        let entry = Entry::done(workspace, &actor, "task.deleted", ("task", id.to_string()));
        let details = entry.with(json!({"key": task.key}));
        audit::record(&mut transaction, &details).await?;
        let gone = json!({"id": id, "projectId": task.project_id, "key": task.key});
        feed::append(&mut transaction, workspace, "task.deleted", &gone).await?;
        tell_ancestors(&mut transaction, workspace, &[task.parent_id]).await?;
    } else {
        change(&mut transaction, principal, id, Edit::archive()).await?;
    }
    transaction.commit().await?;
    feed::poke(app, workspace);
    Ok(())
}

/// Takes the next task that somebody should begin, and says that it has begun.
pub(super) async fn next(
    db: &mut PgConnection,
    principal: &Principal,
    project: Option<ProjectId>,
    agent: Option<&str>,
) -> ApiResult<Option<Task>> {
    let workspace = principal.workspace;
    let Some(id) = store::next_todo(db, workspace, project, agent).await? else {
        return Ok(None);
    };
    let task = locked(db, workspace, id).await?;
    let mut fields = Fields::try_from(&task)?;
    fields.status = Status::InProgress;
    store::update(db, workspace, id, &fields).await?;
    let actor = Actor::from(principal);
    Ok(Some(told(db, &actor, workspace, "task.updated", id).await?))
}

/// The task, locked until the end of the transaction.
pub(super) async fn locked(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    id: TaskId,
) -> ApiResult<Task> {
    if !store::lock(db, workspace, id).await? {
        return Err(no_such_task());
    }
    let task = store::find(db, workspace, id).await?;
    task.ok_or_else(no_such_task)
}

/// The task as it is now, told to the audit log and the feed. Nothing but feed events may
/// follow in the transaction.
pub(super) async fn told(
    db: &mut PgConnection,
    actor: &Actor,
    workspace: WorkspaceId,
    kind: &'static str,
    id: TaskId,
) -> ApiResult<Task> {
    let task = store::find(db, workspace, id).await?;
    let task = task.ok_or_else(no_such_task)?;
    let entry = Entry::done(workspace, actor, kind, ("task", id.to_string()));
    let details = json!({"key": task.key, "status": task.status, "archived": task.archived});
    audit::record(db, &entry.with(details)).await?;
    feed::append(db, workspace, kind, &Shown::of(workspace, task.clone())).await?;
    Ok(task)
}

/// Tells boards about the tasks above one whose change they count.
pub(super) async fn tell_if_progress(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    before: &Task,
    after: &Task,
) -> anyhow::Result<()> {
    let counted = |task: &Task| (task.status == "done", task.archived, task.parent_id);
    if counted(before) == counted(after) {
        return Ok(());
    }
    tell_ancestors(db, workspace, &[before.parent_id, after.parent_id]).await
}

/// Appends the tasks above to the feed. It is locked already, so their progress is counted with
/// everything that was committed before.
async fn tell_ancestors(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    parents: &[Option<i64>],
) -> anyhow::Result<()> {
    let parents: Vec<i64> = parents.iter().flatten().copied().collect();
    if parents.is_empty() {
        return Ok(());
    }
    for id in store::relations::with_ancestors(db, workspace, &parents).await? {
        if let Some(task) = store::find(db, workspace, id).await? {
            let shown = Shown::of(workspace, task);
            feed::append(db, workspace, "task.updated", &shown).await?;
        }
    }
    Ok(())
}

const NO_MEMBER: &str = "assigneeId: must be a member of this workspace";

/// Refuses who was a member once: the constraint knows only whether somebody ever was.
async fn check_assignee(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    assignee: Option<UserId>,
) -> ApiResult<()> {
    match assignee {
        Some(user) if !workspaces::is_member(db, workspace, user).await? => {
            Err(ApiError::conflict("no_such_member", NO_MEMBER))
        }
        _ => Ok(()),
    }
}

fn no_such_assignee(error: sqlx::Error) -> ApiError {
    ApiError::on_constraint(error, "tasks_assignee", "no_such_member", NO_MEMBER)
}
