//! Secrets in Postgres: always sealed.

pub(super) mod reseal;
pub(super) mod uses;

use clawlink_shared::id::WorkspaceId;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// A secret without its value.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) agent: Option<String>,
    pub(super) size: i32,
    pub(super) version: i64,
    pub(super) allowed_roles: Option<Vec<String>>,
    pub(super) allowed_agents: Option<Vec<String>>,
    pub(super) created_at: OffsetDateTime,
    pub(super) created_by: String,
    pub(super) updated_at: OffsetDateTime,
    pub(super) updated_by: String,
    pub(super) last_used_at: Option<OffsetDateTime>,
}

/// All secrets of a workspace, by name; their number is bounded.
pub(super) async fn list(
    db: &mut PgConnection,
    workspace: WorkspaceId,
) -> anyhow::Result<Vec<Row>> {
    let rows = sqlx::query_as!(
        Row,
        "select name, agent, size, version, allowed_roles, allowed_agents, created_at, created_by,
            updated_at, updated_by, last_used_at
         from secrets where workspace_id = $1 order by name, agent nulls first",
        workspace.0,
    )
    .fetch_all(db)
    .await?;
    Ok(rows)
}

/// Which secret.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key<'a> {
    pub(super) workspace: WorkspaceId,
    pub(super) name: &'a str,
    pub(super) agent: Option<&'a str>,
}

/// A new value.
#[derive(Debug)]
pub(super) struct Value<'a> {
    pub(super) sealed: &'a [u8],
    pub(super) size: i32,
}

/// Who may use it.
#[derive(Debug, Default)]
pub(super) struct Lists {
    pub(super) roles: Option<Vec<String>>,
    pub(super) agents: Option<Vec<String>>,
}

/// Writes a new secret while the workspace has fewer than `most`; `None` if it is full or the
/// secret exists. The workspace is locked, so that its secrets can be counted.
pub(super) async fn insert(
    db: &mut PgConnection,
    key: Key<'_>,
    value: &Value<'_>,
    lists: &Lists,
    by: &str,
    most: i64,
) -> anyhow::Result<Option<Row>> {
    sqlx::query!(
        "select id from workspaces where id = $1 for no key update",
        key.workspace.0
    )
    .fetch_optional(&mut *db)
    .await?;
    let row = sqlx::query_as!(
        Row,
        "insert into secrets (workspace_id, name, agent, sealed, size, allowed_roles,
            allowed_agents, created_by, updated_by)
         select $1, $2, $3, $4, $5, $6, $7, $8, $8
         where (select count(*) from secrets where workspace_id = $1) < $9
         on conflict (workspace_id, name, coalesce(agent, '')) do nothing
         returning name, agent, size, version, allowed_roles, allowed_agents, created_at,
            created_by, updated_at, updated_by, last_used_at",
        key.workspace.0,
        key.name,
        key.agent,
        value.sealed,
        value.size,
        lists.roles.as_deref(),
        lists.agents.as_deref(),
        by,
        most,
    )
    .fetch_optional(db)
    .await?;
    Ok(row)
}

/// Changes a secret: its value if there is a new one, and each list that is given. `None` if
/// there is no such secret.
pub(super) async fn update(
    db: &mut PgConnection,
    key: Key<'_>,
    value: Option<&Value<'_>>,
    roles: Option<&Option<Vec<String>>>,
    agents: Option<&Option<Vec<String>>>,
    by: &str,
) -> anyhow::Result<Option<Row>> {
    let row = sqlx::query_as!(
        Row,
        "update secrets set sealed = coalesce($4, sealed), size = coalesce($5, size),
            version = version + case when $4::bytea is null then 0 else 1 end,
            allowed_roles = case when $6 then $7 else allowed_roles end,
            allowed_agents = case when $8 then $9 else allowed_agents end,
            updated_at = now(), updated_by = $10
         where workspace_id = $1 and name = $2 and coalesce(agent, '') = coalesce($3, '')
         returning name, agent, size, version, allowed_roles, allowed_agents, created_at,
            created_by, updated_at, updated_by, last_used_at",
        key.workspace.0,
        key.name,
        key.agent,
        value.map(|value| value.sealed),
        value.map(|value| value.size),
        roles.is_some(),
        roles.and_then(Option::as_deref),
        agents.is_some(),
        agents.and_then(Option::as_deref),
        by,
    )
    .fetch_optional(db)
    .await?;
    Ok(row)
}

/// Deletes one; false if there is none.
pub(super) async fn delete(db: &mut PgConnection, key: Key<'_>) -> anyhow::Result<bool> {
    let deleted = sqlx::query!(
        "delete from secrets
         where workspace_id = $1 and name = $2 and coalesce(agent, '') = coalesce($3, '')",
        key.workspace.0,
        key.name,
        key.agent,
    )
    .execute(db)
    .await?;
    Ok(deleted.rows_affected() == 1)
}
