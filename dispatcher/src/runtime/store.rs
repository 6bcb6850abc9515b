//! Client sessions in Postgres.

use std::time::Duration;

use clawlink_shared::id::WorkspaceId;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// A client session.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) id: Uuid,
    pub(super) user_id: Option<String>,
    pub(super) created_at: OffsetDateTime,
    pub(super) last_activity: OffsetDateTime,
}

/// Opens a session; `None` if the workspace is archived or suspended.
pub(super) async fn insert(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    id: Uuid,
    opened_by: &str,
    user_id: Option<&str>,
    device_id: Option<&str>,
) -> anyhow::Result<Option<Row>> {
    let row = sqlx::query_as!(
        Row,
        "insert into client_sessions (id, workspace_id, opened_by, user_id, device_id)
         select $1, id, $3, $4, $5 from workspaces where id = $2 and status = 'active'
         returning id, user_id, created_at, last_activity",
        id,
        workspace.0,
        opened_by,
        user_id,
        device_id,
    )
    .fetch_optional(db)
    .await?;
    Ok(row)
}

/// A session that this caller opened and that has not been idle for too long, in a workspace
/// that is active; notes that it was used.
pub(super) async fn touch(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    id: Uuid,
    opened_by: &str,
    idle: Duration,
) -> anyhow::Result<Option<Row>> {
    let row = sqlx::query!(
        "select id, user_id, created_at, last_activity,
            last_activity < now() - interval '1 minute' as \"is_stale!\"
         from client_sessions
         where id = $1 and workspace_id = $2 and opened_by = $3
            and last_activity > now() - make_interval(secs => $4)
            and exists (select from workspaces w where w.id = $2 and w.status = 'active')",
        id,
        workspace.0,
        opened_by,
        idle.as_secs_f64(),
    )
    .fetch_optional(&mut *db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    if row.is_stale {
        sqlx::query!(
            "update client_sessions set last_activity = now() where id = $1",
            id
        )
        .execute(db)
        .await?;
    }
    Ok(Some(Row {
        id: row.id,
        user_id: row.user_id,
        created_at: row.created_at,
        last_activity: row.last_activity,
    }))
}

/// Forgets sessions that have been idle for too long.
pub(super) async fn delete_idle(db: &mut PgConnection, idle: Duration) -> anyhow::Result<()> {
    sqlx::query!(
        "delete from client_sessions where last_activity <= now() - make_interval(secs => $1)",
        idle.as_secs_f64(),
    )
    .execute(db)
    .await?;
    Ok(())
}
