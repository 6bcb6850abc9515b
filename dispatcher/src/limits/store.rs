//! Limits in Postgres.

use clawlink_shared::id::WorkspaceId;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::Limits;
use crate::usage::money::Micros;

/// A workspace's limits; `None` if nobody set any.
pub(super) async fn find(
    db: &mut PgConnection,
    workspace: WorkspaceId,
) -> anyhow::Result<Option<Limits>> {
    Ok(read(db, workspace).await?.map(|set| set.limits))
}

/// Limits with who set them.
#[derive(Debug)]
pub(super) struct Set {
    pub(super) limits: Limits,
    pub(super) by: String,
    pub(super) at: OffsetDateTime,
}

/// The same with who set them, and when.
pub(super) async fn read(
    db: &mut PgConnection,
    workspace: WorkspaceId,
) -> anyhow::Result<Option<Set>> {
    let row = sqlx::query!(
        "select day_micros, session_micros, execution_micros, updated_by, updated_at
         from limits where workspace_id = $1",
        workspace.0,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| Set {
        limits: Limits {
            day: row.day_micros.map(Micros),
            session: row.session_micros.map(Micros),
            execution: row.execution_micros.map(Micros),
        },
        by: row.updated_by,
        at: row.updated_at,
    }))
}

/// The same, locked until the transaction ends: what others spend meanwhile is seen after it.
pub(super) async fn lock(
    db: &mut PgConnection,
    workspace: WorkspaceId,
) -> anyhow::Result<Option<Limits>> {
    let row = sqlx::query!(
        "select day_micros, session_micros, execution_micros
         from limits where workspace_id = $1 for no key update",
        workspace.0,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| Limits {
        day: row.day_micros.map(Micros),
        session: row.session_micros.map(Micros),
        execution: row.execution_micros.map(Micros),
    }))
}

/// Sets them.
pub(super) async fn put(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    limits: &Limits,
    by: &str,
) -> anyhow::Result<()> {
    sqlx::query!(
        "insert into limits (workspace_id, day_micros, session_micros, execution_micros, updated_by)
         values ($1, $2, $3, $4, $5)
         on conflict (workspace_id) do update set day_micros = excluded.day_micros,
            session_micros = excluded.session_micros,
            execution_micros = excluded.execution_micros,
            updated_by = excluded.updated_by, updated_at = now()",
        workspace.0,
        limits.day.map(|limit| limit.0),
        limits.session.map(|limit| limit.0),
        limits.execution.map(|limit| limit.0),
        by,
    )
    .execute(db)
    .await?;
    Ok(())
}
