//! Projects in Postgres. Every function is bound to a workspace: what is not in it is not there.

use clawlink_shared::id::{ProjectId, WorkspaceId};
use sqlx::PgConnection;
use time::OffsetDateTime;

/// A project.
#[derive(Debug, Clone)]
pub struct Project {
    /// Its number.
    pub id: i64,
    /// The beginning of its tasks' keys.
    pub key: String,
    /// As people call it.
    pub name: String,
    /// What it is about.
    pub description: Option<String>,
    /// `active`, `completed`, `archived`, `on_hold`.
    pub status: String,
    /// Its repository, as it was given.
    pub repo_url: Option<String>,
    /// The repository's owner.
    pub repo_owner: Option<String>,
    /// The repository's name.
    pub repo_name: Option<String>,
    /// Where work begins; `None` means the repository's own default.
    pub default_branch: Option<String>,
    /// What runs tasks that name no agent.
    pub default_agent: Option<String>,
    /// Whether tasks move with their executions.
    pub tasks_follow_executions: bool,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it was last changed.
    pub updated_at: OffsetDateTime,
}

/// What is written of a project, whether it is new or changed.
#[derive(Debug, Clone)]
pub(super) struct Fields {
    pub(super) key: String,
    pub(super) name: String,
    pub(super) description: Option<String>,
    pub(super) status: String,
    pub(super) repo_url: Option<String>,
    pub(super) repo_owner: Option<String>,
    pub(super) repo_name: Option<String>,
    pub(super) default_branch: Option<String>,
    pub(super) default_agent: Option<String>,
    pub(super) tasks_follow_executions: bool,
}

impl From<Project> for Fields {
    fn from(project: Project) -> Self {
        Self {
            key: project.key,
            name: project.name,
            description: project.description,
            status: project.status,
            repo_url: project.repo_url,
            repo_owner: project.repo_owner,
            repo_name: project.repo_name,
            default_branch: project.default_branch,
            default_agent: project.default_agent,
            tasks_follow_executions: project.tasks_follow_executions,
        }
    }
}

/// Which projects a list shows.
#[derive(Debug, Default)]
pub(super) struct Filter {
    pub(super) status: Option<String>,
    /// `None` shows archived ones too.
    pub(super) archived: Option<bool>,
    /// Only those after this key.
    pub(super) after: Option<String>,
}

/// Projects by key, which no two share; in the order of bytes, so that pages are stable.
pub(super) async fn list(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    filter: &Filter,
    limit: i64,
) -> anyhow::Result<Vec<Project>> {
    let projects = sqlx::query_as!(
        Project,
        "select id, key, name, description, status, repo_url, repo_owner, repo_name,
            default_branch, default_agent, tasks_follow_executions, created_at, updated_at
         from projects
         where workspace_id = $1
            and ($2::text is null or status = $2)
            and ($3::boolean is null or (status = 'archived') = $3)
            and ($4::text is null or key collate \"C\" > $4)
         order by key collate \"C\"
         limit $5",
        workspace.0,
        filter.status,
        filter.archived,
        filter.after,
        limit,
    )
    .fetch_all(db)
    .await?;
    Ok(projects)
}

/// One project.
pub(super) async fn find(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    id: ProjectId,
) -> anyhow::Result<Option<Project>> {
    let project = sqlx::query_as!(
        Project,
        "select id, key, name, description, status, repo_url, repo_owner, repo_name,
            default_branch, default_agent, tasks_follow_executions, created_at, updated_at
         from projects where workspace_id = $1 and id = $2",
        workspace.0,
        id.0,
    )
    .fetch_optional(db)
    .await?;
    Ok(project)
}

/// The project with this key, else the oldest with this name.
pub(super) async fn find_named(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    key: Option<&str>,
    name: &str,
) -> anyhow::Result<Option<ProjectId>> {
    let id = sqlx::query_scalar!(
        "select id from projects
         where workspace_id = $1
            and (($2::text is not null and key = $2) or ($2::text is null and name = $3))
         order by id limit 1",
        workspace.0,
        key,
        name,
    )
    .fetch_optional(db)
    .await?;
    Ok(id.map(ProjectId))
}

/// Locks the project's row; its key.
pub(super) async fn lock(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    id: ProjectId,
) -> anyhow::Result<Option<String>> {
    let key = sqlx::query_scalar!(
        "select key from projects where workspace_id = $1 and id = $2 for no key update",
        workspace.0,
        id.0,
    )
    .fetch_optional(db)
    .await?;
    Ok(key)
}

/// Makes those who upsert the same name wait for each other until the end of the transaction.
pub(super) async fn lock_name(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    name: &str,
) -> anyhow::Result<()> {
    sqlx::query!(
        "select pg_advisory_xact_lock(hashtextextended('project ' || $1::bigint || ' ' || $2, 0))",
        workspace.0,
        name,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Adds a project; `None` if its key is taken.
pub(super) async fn insert(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    fields: &Fields,
) -> anyhow::Result<Option<Project>> {
    let project = sqlx::query_as!(
        Project,
        "insert into projects (workspace_id, key, name, description, status, repo_url,
            repo_owner, repo_name, default_branch, default_agent, tasks_follow_executions)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
         on conflict on constraint projects_key do nothing
         returning id, key, name, description, status, repo_url, repo_owner, repo_name,
            default_branch, default_agent, tasks_follow_executions, created_at, updated_at",
        workspace.0,
        fields.key,
        fields.name,
        fields.description,
        fields.status,
        fields.repo_url,
        fields.repo_owner,
        fields.repo_name,
        fields.default_branch,
        fields.default_agent,
        fields.tasks_follow_executions,
    )
    .fetch_optional(db)
    .await?;
    Ok(project)
}

/// Writes a locked project; breaks `projects_key` if its new key is taken.
pub(super) async fn update(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    id: ProjectId,
    fields: &Fields,
) -> Result<Project, sqlx::Error> {
    sqlx::query_as!(
        Project,
        "update projects set key = $3, name = $4, description = $5, status = $6, repo_url = $7,
            repo_owner = $8, repo_name = $9, default_branch = $10, default_agent = $11,
            tasks_follow_executions = $12, updated_at = now()
         where workspace_id = $1 and id = $2
         returning id, key, name, description, status, repo_url, repo_owner, repo_name,
            default_branch, default_agent, tasks_follow_executions, created_at, updated_at",
        workspace.0,
        id.0,
        fields.key,
        fields.name,
        fields.description,
        fields.status,
        fields.repo_url,
        fields.repo_owner,
        fields.repo_name,
        fields.default_branch,
        fields.default_agent,
        fields.tasks_follow_executions,
    )
    .fetch_one(db)
    .await
}

/// Deletes a project with its tasks.
pub(super) async fn delete(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    id: ProjectId,
) -> anyhow::Result<()> {
    sqlx::query!(
        "delete from projects where workspace_id = $1 and id = $2",
        workspace.0,
        id.0,
    )
    .execute(db)
    .await?;
    Ok(())
}
