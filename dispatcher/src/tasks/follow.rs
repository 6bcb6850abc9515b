//! Tasks follow their executions, unless their project says otherwise.

use clawlink_shared::id::{ProjectId, TaskId, WorkspaceId};
use sqlx::PgConnection;

use super::change;
use super::kinds::Status;
use super::store::{self, Fields};
use crate::audit::Actor;
use crate::error::ApiResult;
use crate::projects;

/// What happened to a task's execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// It runs: the task is in progress.
    Started,
    /// It pushed: the task waits for a review, with the pull request if there is one.
    Pushed {
        /// Address of the pull request.
        pr_url: Option<&'a str>,
        /// Its number.
        pr_number: Option<i32>,
    },
    /// It failed: the task is blocked, unless it was done already.
    Failed {
        /// Why, for people.
        reason: &'a str,
    },
    /// Its pull request was merged: the task is done.
    Merged,
}

/// Longest reason that is kept, in characters.
const MAX_REASON: usize = 1000;

/// Moves a task after its execution, in the caller's transaction and as its last deed: the feed
/// is locked until the commit. False if the task is gone or archived, its project does not want
/// it, or nothing changes. Afterwards the caller pokes the feed.
pub async fn follow(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    actor: &Actor,
    task: TaskId,
    step: Step<'_>,
) -> ApiResult<bool> {
    if !store::lock(db, workspace, task).await? {
        return Ok(false);
    }
    let Some(before) = store::find(db, workspace, task).await? else {
        return Ok(false);
    };
    let project = projects::find(db, workspace, ProjectId(before.project_id)).await?;
    if before.archived || project.is_none_or(|project| !project.tasks_follow_executions) {
        return Ok(false);
    }
    let mut fields = Fields::try_from(&before)?;
    if !moved(&mut fields, step) {
        return Ok(false);
    }
    store::update(db, workspace, task, &fields).await?;
    let after = change::told(db, actor, workspace, "task.updated", task).await?;
    change::tell_if_progress(db, workspace, &before, &after).await?;
    Ok(true)
}

/// Most tasks that one pull request finishes.
const MAX_MERGED: i64 = 100;

/// The tasks of all workspaces with this pull request are done: for what GitHub itself says, in
/// the transaction that remembers it. Answers the workspaces whose feed is to be poked.
pub async fn pull_request_merged(db: &mut PgConnection, url: &str) -> ApiResult<Vec<WorkspaceId>> {
    let actor = Actor {
        name: "github".to_owned(),
        address: None,
    };
    let mut told = Vec::new();
    for (workspace, task) in store::lock_with_pull_request(db, url, MAX_MERGED).await? {
        if follow(db, workspace, &actor, task, Step::Merged).await? {
            told.push(workspace);
        }
    }
    Ok(told)
}

/// Writes what a step means; false if that changes nothing.
fn moved(fields: &mut Fields, step: Step<'_>) -> bool {
    let before = (
        fields.status,
        fields.github_pr_url.clone(),
        fields.blocked_reason.clone(),
    );
    match step {
        Step::Started => fields.status = Status::InProgress,
        Step::Pushed { pr_url, pr_number } => {
            if fields.status != Status::Done {
                fields.status = Status::InReview;
            }
            if let Some(url) = pr_url {
                fields.github_pr_url = Some(url.to_owned());
                fields.github_pr_number = pr_number;
            }
        }
        Step::Failed { .. } if fields.status == Status::Done => {}
        Step::Failed { reason } => {
            fields.status = Status::Blocked;
            let reason = reason.chars().filter(|c| *c != '\0').take(MAX_REASON);
            fields.blocked_reason = Some(reason.collect());
        }
        Step::Merged => fields.status = Status::Done,
    }
    if fields.status != Status::Blocked {
        fields.blocked_reason = None;
    }
    before
        != (
            fields.status,
            fields.github_pr_url.clone(),
            fields.blocked_reason.clone(),
        )
}
