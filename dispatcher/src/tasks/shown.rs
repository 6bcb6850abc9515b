//! A task as clients see it, in answers and in the feed.

use clawlink_shared::execution::Priority;
use clawlink_shared::id::{ProjectId, TaskId, UserId, WorkspaceId};
use serde::Serialize;
use utoipa::ToSchema;

use super::store::Task;
use crate::executions::timestamp;

/// A task.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Task)]
pub(super) struct Shown {
    id: TaskId,
    project_id: ProjectId,
    /// Its workspace.
    tenant_id: WorkspaceId,
    /// Such as `APP-001`; never given to another one.
    key: String,
    title: String,
    description: Option<String>,
    /// `todo`, `in_progress`, `in_review`, `done` or `blocked`.
    status: String,
    /// Why it is blocked.
    blocked_reason: Option<String>,
    #[schema(value_type = String)]
    priority: Option<Priority>,
    labels: Vec<String>,
    assigned_agent_type: Option<String>,
    assignee_id: Option<UserId>,
    persona: Option<String>,
    start_date: Option<String>,
    due_date: Option<String>,
    github_pr_url: Option<String>,
    github_pr_number: Option<i32>,
    parent_id: Option<TaskId>,
    /// Its place on the project's board, to be compared byte by byte.
    position: String,
    archived: bool,
    progress: Progress,
    /// `user:…` or `key:7`.
    created_by: String,
    created_at: String,
    updated_at: String,
}

/// How far the tasks below one are, at any depth.
#[derive(Debug, Serialize, ToSchema)]
struct Progress {
    done: i64,
    total: i64,
}

impl Shown {
    pub(super) fn of(workspace: WorkspaceId, task: Task) -> Self {
        Self {
            id: TaskId(task.id),
            project_id: ProjectId(task.project_id),
            tenant_id: workspace,
            key: task.key,
            title: task.title,
            description: task.description,
            status: task.status,
            blocked_reason: task.blocked_reason,
            priority: Priority::from_i16(task.priority),
            labels: task.labels,
            assigned_agent_type: task.assigned_agent_type,
            assignee_id: task.assignee_id.map(UserId),
            persona: task.persona,
            start_date: task.start_date.map(timestamp),
            due_date: task.due_date.map(timestamp),
            github_pr_url: task.github_pr_url,
            github_pr_number: task.github_pr_number,
            parent_id: task.parent_id.map(TaskId),
            position: task.position,
            archived: task.archived,
            progress: Progress {
                done: task.below_done,
                total: task.below,
            },
            created_by: task.created_by,
            created_at: timestamp(task.created_at),
            updated_at: timestamp(task.updated_at),
        }
    }
}
