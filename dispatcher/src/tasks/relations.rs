//! Parent and child, blocks, relates: what may hang on what.

use clawlink_shared::id::{TaskId, WorkspaceId};
use serde_json::json;
use sqlx::PgConnection;

use super::edit::Edit;
use super::kinds::Relation;
use super::store::{self, relations as rows};
use super::{change, no_such_task};
use crate::audit::{self, Actor, Entry};
use crate::auth::principal::Principal;
use crate::error::{ApiError, ApiResult};
use crate::feed;

/// Levels of tasks below one another.
const MAX_DEPTH: i32 = 8;
/// Tasks right below one.
const MAX_CHILDREN: i64 = 1000;
/// Links of one task beside parent and children.
const MAX_LINKS: i64 = 200;
/// Relations that an answer lists.
pub(super) const MAX_LISTED: i64 = MAX_CHILDREN + MAX_LINKS + 1;

/// Refuses a parent that is not there, that stands below the task, or that has too much below
/// it. The caller holds the hierarchy's lock.
pub(super) async fn check_parent(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    task: Option<TaskId>,
    parent: TaskId,
) -> ApiResult<()> {
    let above = rows::with_ancestors(db, workspace, &[parent.0]).await?;
    if above.is_empty() {
        return Err(no_such_task());
    }
    let height = match task {
        Some(task) if above.contains(&task) => return Err(cycle()),
        Some(task) => rows::height(db, workspace, task, MAX_DEPTH).await?,
        None => 0,
    };
    if above.len() as i32 + 1 + height > MAX_DEPTH {
        return Err(ApiError::conflict(
            "too_many_relations",
            format!("at most {MAX_DEPTH} levels of tasks can stand below one another"),
        ));
    }
    if rows::children(db, workspace, parent).await? >= MAX_CHILDREN {
        return Err(ApiError::conflict(
            "too_many_relations",
            format!("at most {MAX_CHILDREN} tasks can stand right below one"),
        ));
    }
    Ok(())
}

/// Relates a task to another; doing so twice is no error.
pub(super) async fn relate(
    db: &mut PgConnection,
    principal: &Principal,
    task: TaskId,
    kind: Relation,
    other: TaskId,
) -> ApiResult<()> {
    if task == other {
        return Err(cycle());
    }
    let workspace = principal.workspace;
    let Some((link, name)) = link(task, kind, other) else {
        let (child, parent) = family(task, kind, other);
        known(db, workspace, child).await?;
        change::change(db, principal, child, Edit::under(Some(parent))).await?;
        return Ok(());
    };
    rows::lock(db, workspace).await?;
    for id in [task, other] {
        known(db, workspace, id).await?;
        if rows::links(db, workspace, id).await? >= MAX_LINKS {
            return Err(ApiError::conflict(
                "too_many_relations",
                format!("a task can have at most {MAX_LINKS} links"),
            ));
        }
    }
    if name == "blocks" && rows::waits_for(db, workspace, link.0, link.1).await? {
        return Err(cycle());
    }
    if rows::link(db, workspace, link, name).await? {
        record(db, principal, "task.related", link, name).await?;
    }
    Ok(())
}

/// Takes a relation away; 404 if there is none.
pub(super) async fn unrelate(
    db: &mut PgConnection,
    principal: &Principal,
    task: TaskId,
    kind: Relation,
    other: TaskId,
) -> ApiResult<()> {
    let workspace = principal.workspace;
    let missing = || ApiError::not_found("relation_not_found", "the tasks are not related so");
    let Some((link, name)) = link(task, kind, other) else {
        let (child, parent) = family(task, kind, other);
        rows::lock(db, workspace).await?;
        let found = store::find(db, workspace, child).await?;
        if found.is_none_or(|found| found.parent_id != Some(parent.0)) {
            return Err(missing());
        }
        change::change(db, principal, child, Edit::under(None)).await?;
        return Ok(());
    };
    if !rows::unlink(db, workspace, link, name).await? {
        return Err(missing());
    }
    record(db, principal, "task.unrelated", link, name).await?;
    Ok(())
}

/// The link that a relation is stored as; `None` for parent and child.
fn link(task: TaskId, kind: Relation, other: TaskId) -> Option<((TaskId, TaskId), &'static str)> {
    match kind {
        Relation::Blocks => Some(((task, other), "blocks")),
        Relation::BlockedBy => Some(((other, task), "blocks")),
        Relation::Relates => Some(((task.min(other), task.max(other)), "relates")),
        Relation::Parent | Relation::Child => None,
    }
}

/// Child and parent.
fn family(task: TaskId, kind: Relation, other: TaskId) -> (TaskId, TaskId) {
    match kind {
        Relation::Child => (other, task),
        _ => (task, other),
    }
}

async fn known(db: &mut PgConnection, workspace: WorkspaceId, task: TaskId) -> ApiResult<()> {
    let found = store::find(db, workspace, task).await?;
    found.map(drop).ok_or_else(no_such_task)
}

fn cycle() -> ApiError {
    ApiError::conflict(
        "relation_cycle",
        "a task cannot stand below itself or wait for itself, also not over others",
    )
}

async fn record(
    db: &mut PgConnection,
    principal: &Principal,
    action: &'static str,
    (from, to): (TaskId, TaskId),
    kind: &str,
) -> anyhow::Result<()> {
    let workspace = principal.workspace;
    let data = json!({"kind": kind, "fromId": from, "toId": to});
    let actor = Actor::from(principal);
    let entry = Entry::done(workspace, &actor, action, ("task", from.to_string()));
    audit::record(db, &entry.with(data.clone())).await?;
    feed::append(db, workspace, action, &data).await
}
