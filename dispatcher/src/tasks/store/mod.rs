//! Tasks in Postgres. Every function is bound to a workspace: what is not in it is not there.

pub(super) mod list;
pub(super) mod order;
pub(super) mod relations;

use clawlink_shared::id::{ProjectId, TaskId, UserId, WorkspaceId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::kinds::Status;

/// A task.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Task {
    /// Its number.
    pub id: i64,
    /// Its project's number.
    pub project_id: i64,
    /// Its key, such as `APP-001`.
    pub key: String,
    /// What is wanted, in a line.
    pub title: String,
    /// What is wanted, at length.
    pub description: Option<String>,
    /// The name of its [`Status`].
    pub status: String,
    /// Why it is blocked.
    pub blocked_reason: Option<String>,
    /// 0 is the lowest.
    pub priority: i16,
    /// Free words.
    pub labels: Vec<String>,
    /// Which kind of agent is to work on it.
    pub assigned_agent_type: Option<String>,
    /// Which member is.
    pub assignee_id: Option<Uuid>,
    /// In whose manner the agent works.
    pub persona: Option<String>,
    /// When work begins.
    pub start_date: Option<OffsetDateTime>,
    /// When it is to be done.
    pub due_date: Option<OffsetDateTime>,
    /// Its pull request.
    pub github_pr_url: Option<String>,
    /// Its pull request's number.
    pub github_pr_number: Option<i32>,
    /// The task above it.
    pub parent_id: Option<i64>,
    /// Its place on the board.
    pub position: String,
    /// Whether it was put away.
    pub archived: bool,
    /// Who made it: `user:…`, `key:7`.
    pub created_by: String,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it was last changed.
    pub updated_at: OffsetDateTime,
    /// Tasks below it at any depth that are not archived.
    pub below: i64,
    /// How many of those are done.
    pub below_done: i64,
}

/// What is written of a task, whether it is new or changed.
#[derive(Debug, Clone)]
pub(super) struct Fields {
    pub(super) title: String,
    pub(super) description: Option<String>,
    pub(super) status: Status,
    pub(super) blocked_reason: Option<String>,
    pub(super) priority: i16,
    pub(super) labels: Vec<String>,
    pub(super) assigned_agent_type: Option<String>,
    pub(super) assignee: Option<UserId>,
    pub(super) persona: Option<String>,
    pub(super) start_date: Option<OffsetDateTime>,
    pub(super) due_date: Option<OffsetDateTime>,
    pub(super) github_pr_url: Option<String>,
    pub(super) github_pr_number: Option<i32>,
    pub(super) parent: Option<TaskId>,
    pub(super) position: String,
    pub(super) archived: bool,
}

impl TryFrom<&Task> for Fields {
    type Error = anyhow::Error;

    fn try_from(task: &Task) -> anyhow::Result<Self> {
        let status = Status::from_name(&task.status);
        Ok(Self {
            title: task.title.clone(),
            description: task.description.clone(),
            status: status.ok_or_else(|| {
                anyhow::anyhow!("tasks.status of {} is {:?}", task.id, task.status)
            })?,
            blocked_reason: task.blocked_reason.clone(),
            priority: task.priority,
            labels: task.labels.clone(),
            assigned_agent_type: task.assigned_agent_type.clone(),
            assignee: task.assignee_id.map(UserId),
            persona: task.persona.clone(),
            start_date: task.start_date,
            due_date: task.due_date,
            github_pr_url: task.github_pr_url.clone(),
            github_pr_number: task.github_pr_number,
            parent: task.parent_id.map(TaskId),
            position: task.position.clone(),
            archived: task.archived,
        })
    }
}

/// One task.
pub(super) async fn find(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    id: TaskId,
) -> anyhow::Result<Option<Task>> {
    let task = sqlx::query_as!(
        Task,
        "select id, project_id, key, title, description, status, blocked_reason, priority, labels,
            assigned_agent_type, assignee_id, persona, start_date, due_date, github_pr_url,
            github_pr_number, parent_id, position, archived, created_by, created_at, updated_at,
            below as \"below!\", below_done as \"below_done!\"
         from tasks t,
            lateral (
                with recursive under as (
                    select c.id, c.status from tasks c
                    where c.workspace_id = t.workspace_id and c.parent_id = t.id
                        and not c.archived
                    union
                    select c.id, c.status from tasks c join under on c.parent_id = under.id
                    where c.workspace_id = t.workspace_id and not c.archived
                )
                select count(*) as below, count(*) filter (where under.status = 'done') as below_done
                from under
            ) progress
         where workspace_id = $1 and id = $2",
        workspace.0,
        id.0,
    )
    .fetch_optional(db)
    .await?;
    Ok(task)
}

/// Locks a task's row; false if there is no such task.
pub(super) async fn lock(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    id: TaskId,
) -> anyhow::Result<bool> {
    let row = sqlx::query!(
        "select id from tasks where workspace_id = $1 and id = $2 for no key update",
        workspace.0,
        id.0,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.is_some())
}

/// The next number for a key with this prefix; never one that was given before.
pub(super) async fn next_number(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    prefix: &str,
) -> anyhow::Result<i64> {
    let number = sqlx::query_scalar!(
        "insert into task_numbers (workspace_id, prefix, last_number) values ($1, $2, 1)
         on conflict (workspace_id, prefix)
            do update set last_number = task_numbers.last_number + 1
         returning last_number",
        workspace.0,
        prefix,
    )
    .fetch_one(db)
    .await?;
    Ok(number)
}

/// Adds a task; breaks `tasks_assignee` if the assignee is no member.
pub(super) async fn insert(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    project: ProjectId,
    key: &str,
    fields: &Fields,
    by: &str,
) -> Result<TaskId, sqlx::Error> {
    let id = sqlx::query_scalar!(
        "insert into tasks (workspace_id, project_id, key, title, description, status,
            blocked_reason, priority, labels, assigned_agent_type, assignee_id, persona,
            start_date, due_date, github_pr_url, github_pr_number, parent_id, position, archived,
            created_by)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
            $19, $20)
         returning id",
        workspace.0,
        project.0,
        key,
        fields.title,
        fields.description,
        fields.status.as_str(),
        fields.blocked_reason,
        fields.priority,
        &fields.labels,
        fields.assigned_agent_type,
        fields.assignee.map(|user| user.0),
        fields.persona,
        fields.start_date,
        fields.due_date,
        fields.github_pr_url,
        fields.github_pr_number,
        fields.parent.map(|parent| parent.0),
        fields.position,
        fields.archived,
        by,
    )
    .fetch_one(db)
    .await?;
    Ok(TaskId(id))
}

/// Writes a locked task; breaks `tasks_assignee` if the assignee is no member.
pub(super) async fn update(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    id: TaskId,
    fields: &Fields,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update tasks set title = $3, description = $4, status = $5, blocked_reason = $6,
            priority = $7, labels = $8, assigned_agent_type = $9, assignee_id = $10, persona = $11,
            start_date = $12, due_date = $13, github_pr_url = $14, github_pr_number = $15,
            parent_id = $16, position = $17, archived = $18, updated_at = now()
         where workspace_id = $1 and id = $2",
        workspace.0,
        id.0,
        fields.title,
        fields.description,
        fields.status.as_str(),
        fields.blocked_reason,
        fields.priority,
        &fields.labels,
        fields.assigned_agent_type,
        fields.assignee.map(|user| user.0),
        fields.persona,
        fields.start_date,
        fields.due_date,
        fields.github_pr_url,
        fields.github_pr_number,
        fields.parent.map(|parent| parent.0),
        fields.position,
        fields.archived,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Deletes a task; those below it lose their parent.
pub(super) async fn delete(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    id: TaskId,
) -> anyhow::Result<()> {
    sqlx::query!(
        "delete from tasks where workspace_id = $1 and id = $2",
        workspace.0,
        id.0,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Takes the most urgent task that nobody has begun and nothing blocks, the oldest first:
/// locked, so that no two callers get the same.
pub(super) async fn next_todo(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    project: Option<ProjectId>,
    agent: Option<&str>,
) -> anyhow::Result<Option<TaskId>> {
    let id = sqlx::query_scalar!(
        "select t.id from tasks t join projects p on p.id = t.project_id
         where t.workspace_id = $1 and t.status = 'todo' and not t.archived
            and p.status = 'active'
            and ($2::bigint is null or t.project_id = $2)
            and ($3::text is null or t.assigned_agent_type is null or t.assigned_agent_type = $3)
            and not exists (
                select from task_links l join tasks b on b.id = l.from_id
                where l.to_id = t.id and l.kind = 'blocks' and b.status <> 'done'
                    and not b.archived)
         order by t.priority desc, t.id
         limit 1
         for no key update of t skip locked",
        workspace.0,
        project.map(|project| project.0),
        agent,
    )
    .fetch_optional(db)
    .await?;
    Ok(id.map(TaskId))
}

/// The tasks of all workspaces with this pull request, workspace by workspace; all locked, since
/// following one of them locks its feed, after which no task may be locked.
pub(super) async fn lock_with_pull_request(
    db: &mut PgConnection,
    url: &str,
    limit: i64,
) -> anyhow::Result<Vec<(WorkspaceId, TaskId)>> {
    let rows = sqlx::query!(
        "select id, workspace_id from tasks where github_pr_url = $1
         order by workspace_id, id limit $2
         for no key update",
        url,
        limit,
    )
    .fetch_all(db)
    .await?;
    let found = rows
        .into_iter()
        .map(|row| (WorkspaceId(row.workspace_id), TaskId(row.id)));
    Ok(found.collect())
}
