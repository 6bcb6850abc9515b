//! The order of a project's board. Callers hold the project's lock.

use clawlink_shared::id::{ProjectId, TaskId, WorkspaceId};
use sqlx::PgConnection;

/// The last place of a project's board, without one task.
pub(in crate::tasks) async fn last(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    project: ProjectId,
    without: Option<TaskId>,
) -> anyhow::Result<Option<String>> {
    let position = sqlx::query_scalar!(
        "select position from tasks
         where workspace_id = $1 and project_id = $2 and ($3::bigint is null or id <> $3)
         order by position desc limit 1",
        workspace.0,
        project.0,
        without.map(|task| task.0),
    )
    .fetch_optional(db)
    .await?;
    Ok(position)
}

/// The place of a task of this project.
pub(in crate::tasks) async fn position(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    project: ProjectId,
    task: TaskId,
) -> anyhow::Result<Option<String>> {
    let position = sqlx::query_scalar!(
        "select position from tasks where workspace_id = $1 and project_id = $2 and id = $3",
        workspace.0,
        project.0,
        task.0,
    )
    .fetch_optional(db)
    .await?;
    Ok(position)
}

/// So many tasks with their places before this one, the nearest first, without one task.
pub(in crate::tasks) async fn before(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    project: ProjectId,
    position: &str,
    without: Option<TaskId>,
    limit: i64,
) -> anyhow::Result<Vec<(TaskId, String)>> {
    let rows = sqlx::query!(
        "select id, position from tasks
         where workspace_id = $1 and project_id = $2 and position < $3
            and ($4::bigint is null or id <> $4)
         order by position desc limit $5",
        workspace.0,
        project.0,
        position,
        without.map(|task| task.0),
        limit,
    )
    .fetch_all(db)
    .await?;
    let rows = rows.into_iter();
    Ok(rows.map(|row| (TaskId(row.id), row.position)).collect())
}

/// The same after this place.
pub(in crate::tasks) async fn after(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    project: ProjectId,
    position: &str,
    without: Option<TaskId>,
    limit: i64,
) -> anyhow::Result<Vec<(TaskId, String)>> {
    let rows = sqlx::query!(
        "select id, position from tasks
         where workspace_id = $1 and project_id = $2 and position > $3
            and ($4::bigint is null or id <> $4)
         order by position limit $5",
        workspace.0,
        project.0,
        position,
        without.map(|task| task.0),
        limit,
    )
    .fetch_all(db)
    .await?;
    let rows = rows.into_iter();
    Ok(rows.map(|row| (TaskId(row.id), row.position)).collect())
}

/// Gives tasks new places, all in one statement.
pub(in crate::tasks) async fn reposition(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    tasks: &[i64],
    positions: &[String],
) -> anyhow::Result<()> {
    sqlx::query!(
        "update tasks t set position = new.position
         from unnest($2::bigint[], $3::text[]) as new (id, position)
         where t.workspace_id = $1 and t.id = new.id",
        workspace.0,
        tasks,
        positions,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The task at this place.
pub(in crate::tasks) async fn at(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    project: ProjectId,
    position: &str,
) -> anyhow::Result<Option<TaskId>> {
    let id = sqlx::query_scalar!(
        "select id from tasks where workspace_id = $1 and project_id = $2 and position = $3",
        workspace.0,
        project.0,
        position,
    )
    .fetch_optional(db)
    .await?;
    Ok(id.map(TaskId))
}
