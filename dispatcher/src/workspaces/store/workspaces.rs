//! Rows of workspaces.

use clawlink_shared::id::{UserId, WorkspaceId};
use sqlx::PgConnection;
use time::OffsetDateTime;

/// A workspace as it is stored.
#[derive(Debug)]
pub(in crate::workspaces) struct Row {
    pub(in crate::workspaces) id: i64,
    pub(in crate::workspaces) name: String,
    pub(in crate::workspaces) slug: String,
    pub(in crate::workspaces) status: String,
    pub(in crate::workspaces) created_at: OffsetDateTime,
    pub(in crate::workspaces) updated_at: OffsetDateTime,
}

/// Makes the workspace with this slug unless it exists; returns its id either way.
pub async fn ensure(
    db: &mut PgConnection,
    slug: &str,
    running_cap: i32,
    pending_cap: i32,
) -> anyhow::Result<WorkspaceId> {
    let id = sqlx::query_scalar!(
        "insert into workspaces (slug, name, running_cap, pending_cap)
         values ($1, $1, $2, $3)
         on conflict (slug) do update set slug = excluded.slug
         returning id",
        slug,
        running_cap,
        pending_cap,
    )
    .fetch_one(db)
    .await?;
    Ok(WorkspaceId(id))
}

/// Makes a workspace; `None` if the slug is taken.
pub(in crate::workspaces) async fn insert(
    db: &mut PgConnection,
    slug: &str,
    name: &str,
    (running_cap, pending_cap): (i32, i32),
) -> anyhow::Result<Option<WorkspaceId>> {
    let id = sqlx::query_scalar!(
        "insert into workspaces (slug, name, running_cap, pending_cap) values ($1, $2, $3, $4)
         on conflict (slug) do nothing returning id",
        slug,
        name,
        running_cap,
        pending_cap,
    )
    .fetch_optional(db)
    .await?;
    Ok(id.map(WorkspaceId))
}

/// Locks a person's row and counts the workspaces that the person owns.
pub(in crate::workspaces) async fn owned(
    db: &mut PgConnection,
    user: UserId,
) -> anyhow::Result<i64> {
    sqlx::query!(
        "select id from users where id = $1 for no key update",
        user.0
    )
    .fetch_optional(&mut *db)
    .await?;
    let count = sqlx::query_scalar!(
        "select count(*) as \"count!\" from members
         where user_id = $1 and role = 'owner' and removed_at is null",
        user.0,
    )
    .fetch_one(db)
    .await?;
    Ok(count)
}

/// The workspace.
pub(in crate::workspaces) async fn find(
    db: &mut PgConnection,
    id: WorkspaceId,
) -> anyhow::Result<Option<Row>> {
    let row = sqlx::query_as!(
        Row,
        "select id, name, slug, status, created_at, updated_at from workspaces where id = $1",
        id.0,
    )
    .fetch_optional(db)
    .await?;
    Ok(row)
}

/// Workspaces after the id `after` in which the person is a member, in order of id, each with
/// the person's role.
pub(in crate::workspaces) async fn of_user(
    db: &mut PgConnection,
    user: UserId,
    after: i64,
    limit: i64,
) -> anyhow::Result<Vec<(Row, String)>> {
    let rows = sqlx::query!(
        "select id, name, slug, status, created_at, updated_at, role
         from workspaces join members on workspace_id = id
         where user_id = $1 and removed_at is null and id > $2
         order by id limit $3",
        user.0,
        after,
        limit,
    )
    .fetch_all(db)
    .await?;
    let rows = rows.into_iter().map(|row| {
        let role = row.role;
        let row = Row {
            id: row.id,
            name: row.name,
            slug: row.slug,
            status: row.status,
            created_at: row.created_at,
            updated_at: row.updated_at,
        };
        (row, role)
    });
    Ok(rows.collect())
}

/// Locks the workspace against other changes of its members, keys and limits, but not against
/// work in it; false if there is none.
pub(in crate::workspaces) async fn lock(
    db: &mut PgConnection,
    id: WorkspaceId,
) -> anyhow::Result<bool> {
    let row = sqlx::query!(
        "select id from workspaces where id = $1 for no key update",
        id.0
    )
    .fetch_optional(db)
    .await?;
    Ok(row.is_some())
}

/// The same; whether it is active, too.
pub(in crate::workspaces) async fn lock_status(
    db: &mut PgConnection,
    id: WorkspaceId,
) -> anyhow::Result<Option<bool>> {
    let is_active = sqlx::query_scalar!(
        "select status = 'active' as \"is_active!\" from workspaces where id = $1
         for no key update",
        id.0,
    )
    .fetch_optional(db)
    .await?;
    Ok(is_active)
}

/// Locks the workspace against everything, also new rows that refer to it. Its slug.
pub(in crate::workspaces) async fn lock_for_deletion(
    db: &mut PgConnection,
    id: WorkspaceId,
) -> anyhow::Result<Option<String>> {
    let slug = sqlx::query_scalar!("select slug from workspaces where id = $1 for update", id.0)
        .fetch_optional(db)
        .await?;
    Ok(slug)
}

/// Changes what is given. False if there is no such workspace, or if it is suspended: only the
/// installation ends that.
pub(in crate::workspaces) async fn update(
    db: &mut PgConnection,
    id: WorkspaceId,
    name: Option<&str>,
    status: Option<&str>,
) -> anyhow::Result<bool> {
    let done = sqlx::query!(
        "update workspaces
         set name = coalesce($2, name), status = coalesce($3, status), updated_at = now()
         where id = $1 and status <> 'suspended'",
        id.0,
        name,
        status,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// A workspace as those who run the installation see it.
#[derive(Debug)]
pub(in crate::workspaces) struct Overview {
    pub(in crate::workspaces) id: i64,
    pub(in crate::workspaces) name: String,
    pub(in crate::workspaces) slug: String,
    pub(in crate::workspaces) status: String,
    /// Active members.
    pub(in crate::workspaces) members: i64,
    pub(in crate::workspaces) created_at: OffsetDateTime,
    pub(in crate::workspaces) updated_at: OffsetDateTime,
}

/// Workspaces of the installation after the id `after`, in order of id: those with a status,
/// those with a slug, or just one, if these are given.
pub(in crate::workspaces) async fn overview(
    db: &mut PgConnection,
    only: Option<WorkspaceId>,
    (status, slug): (Option<&str>, Option<&str>),
    after: i64,
    limit: i64,
) -> anyhow::Result<Vec<Overview>> {
    let rows = sqlx::query_as!(
        Overview,
        "select id, name, slug, status, created_at, updated_at,
            (select count(*) from members where workspace_id = id and removed_at is null) as \"members!\"
         from workspaces
         where ($1::bigint is null or id = $1) and ($2::text is null or status = $2)
            and ($3::text is null or slug = $3) and id > $4
         order by id limit $5",
        only.map(|id| id.0),
        status,
        slug,
        after,
        limit,
    )
    .fetch_all(db)
    .await?;
    Ok(rows)
}

/// Suspends a workspace that is not, and remembers what it was; false if it is suspended.
pub(in crate::workspaces) async fn suspend(
    db: &mut PgConnection,
    id: WorkspaceId,
) -> anyhow::Result<bool> {
    let done = sqlx::query!(
        "update workspaces
         set status_before_suspension = status, status = 'suspended', updated_at = now()
         where id = $1 and status <> 'suspended'",
        id.0,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Makes a suspended workspace what it was; false if it is not suspended.
pub(in crate::workspaces) async fn resume(
    db: &mut PgConnection,
    id: WorkspaceId,
) -> anyhow::Result<bool> {
    let done = sqlx::query!(
        "update workspaces
         set status = coalesce(status_before_suspension, 'active'),
            status_before_suspension = null, updated_at = now()
         where id = $1 and status = 'suspended'",
        id.0,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Deletes the workspace and all rows that refer to it. The caller has locked it.
pub(in crate::workspaces) async fn delete(
    db: &mut PgConnection,
    id: WorkspaceId,
) -> anyhow::Result<()> {
    sqlx::query!("delete from workspaces where id = $1", id.0)
        .execute(db)
        .await?;
    Ok(())
}
