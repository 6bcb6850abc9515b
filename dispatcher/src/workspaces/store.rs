//! Workspaces in Postgres.

use clawlink_shared::id::WorkspaceId;
use sqlx::PgConnection;

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
