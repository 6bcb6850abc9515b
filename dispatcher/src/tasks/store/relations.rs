//! How tasks hang together. Changes hold the workspace's hierarchy lock.

use clawlink_shared::id::{TaskId, WorkspaceId};
use sqlx::PgConnection;

/// The other end of a relation.
#[derive(Debug)]
pub(in crate::tasks) struct Related {
    /// `parent`, `child`, `blocks`, `blocked_by`, `relates`.
    pub(in crate::tasks) kind: String,
    pub(in crate::tasks) id: i64,
    pub(in crate::tasks) project_id: i64,
    pub(in crate::tasks) key: String,
    pub(in crate::tasks) title: String,
    pub(in crate::tasks) status: String,
    pub(in crate::tasks) archived: bool,
}

/// Makes those who change how tasks hang together wait for each other until the end of the
/// transaction: cycles that two of them close together are seen by the second.
pub(in crate::tasks) async fn lock(
    db: &mut PgConnection,
    workspace: WorkspaceId,
) -> anyhow::Result<()> {
    sqlx::query!(
        "select pg_advisory_xact_lock(hashtextextended('relations ' || $1::bigint, 0))",
        workspace.0,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// All relations of a task, at most so many.
pub(in crate::tasks) async fn list(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    task: TaskId,
    limit: i64,
) -> anyhow::Result<Vec<Related>> {
    let rows = sqlx::query_as!(
        Related,
        "select related.kind as \"kind!\", t.id, t.project_id, t.key, t.title, t.status, t.archived
         from (
            select 1 as rank, 'parent' as kind, parent_id as other from tasks
                where workspace_id = $1 and id = $2 and parent_id is not null
            union all
            select 2, 'child', id from tasks where workspace_id = $1 and parent_id = $2
            union all
            select 3, 'blocks', to_id from task_links
                where workspace_id = $1 and from_id = $2 and kind = 'blocks'
            union all
            select 4, 'blocked_by', from_id from task_links
                where workspace_id = $1 and to_id = $2 and kind = 'blocks'
            union all
            select 5, 'relates', case when from_id = $2 then to_id else from_id end
                from task_links
                where workspace_id = $1 and kind = 'relates' and (from_id = $2 or to_id = $2)
         ) related
         join tasks t on t.workspace_id = $1 and t.id = related.other
         order by related.rank, t.id
         limit $3",
        workspace.0,
        task.0,
        limit,
    )
    .fetch_all(db)
    .await?;
    Ok(rows)
}

/// The tasks above these, with themselves, each once; the nearest first.
pub(in crate::tasks) async fn with_ancestors(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    tasks: &[i64],
) -> anyhow::Result<Vec<TaskId>> {
    let ids = sqlx::query_scalar!(
        "with recursive up as (
            select id, parent_id, 0 as far from tasks where workspace_id = $1 and id = any($2)
            union
            select t.id, t.parent_id, up.far + 1 from tasks t join up on t.id = up.parent_id
            where t.workspace_id = $1 and up.far < 100
         )
         select id as \"id!\" from up group by id order by min(far), id",
        workspace.0,
        tasks,
    )
    .fetch_all(db)
    .await?;
    Ok(ids.into_iter().map(TaskId).collect())
}

/// How many levels stand below a task, looking at most so deep.
pub(in crate::tasks) async fn height(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    task: TaskId,
    deep: i32,
) -> anyhow::Result<i32> {
    let height = sqlx::query_scalar!(
        "with recursive under as (
            select id, 0 as deep from tasks where workspace_id = $1 and id = $2
            union
            select t.id, under.deep + 1 from tasks t join under on t.parent_id = under.id
            where t.workspace_id = $1 and under.deep < $3
         )
         select max(deep) from under",
        workspace.0,
        task.0,
        deep,
    )
    .fetch_one(db)
    .await?;
    Ok(height.unwrap_or(0))
}

/// How many tasks stand right below one.
pub(in crate::tasks) async fn children(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    task: TaskId,
) -> anyhow::Result<i64> {
    let count = sqlx::query_scalar!(
        "select count(*) as \"count!\" from tasks where workspace_id = $1 and parent_id = $2",
        workspace.0,
        task.0,
    )
    .fetch_one(db)
    .await?;
    Ok(count)
}

/// Whether one task waits, over any number of others, for another.
pub(in crate::tasks) async fn waits_for(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    task: TaskId,
    other: TaskId,
) -> anyhow::Result<bool> {
    let waits = sqlx::query_scalar!(
        "with recursive waiting as (
            select to_id from task_links
            where workspace_id = $1 and from_id = $3 and kind = 'blocks'
            union
            select l.to_id from task_links l join waiting w on l.from_id = w.to_id
            where l.workspace_id = $1 and l.kind = 'blocks'
         )
         select exists (select from waiting where to_id = $2) as \"waits!\"",
        workspace.0,
        task.0,
        other.0,
    )
    .fetch_one(db)
    .await?;
    Ok(waits)
}

/// How many links a task has.
pub(in crate::tasks) async fn links(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    task: TaskId,
) -> anyhow::Result<i64> {
    let count = sqlx::query_scalar!(
        "select count(*) as \"count!\" from task_links
         where workspace_id = $1 and (from_id = $2 or to_id = $2)",
        workspace.0,
        task.0,
    )
    .fetch_one(db)
    .await?;
    Ok(count)
}

/// Adds a link; false if it is there already.
pub(in crate::tasks) async fn link(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    (from, to): (TaskId, TaskId),
    kind: &str,
) -> anyhow::Result<bool> {
    let done = sqlx::query!(
        "insert into task_links (workspace_id, from_id, to_id, kind) values ($1, $2, $3, $4)
         on conflict do nothing",
        workspace.0,
        from.0,
        to.0,
        kind,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Removes a link; false if there is none.
pub(in crate::tasks) async fn unlink(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    (from, to): (TaskId, TaskId),
    kind: &str,
) -> anyhow::Result<bool> {
    let done = sqlx::query!(
        "delete from task_links
         where workspace_id = $1 and from_id = $2 and to_id = $3 and kind = $4",
        workspace.0,
        from.0,
        to.0,
        kind,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}
