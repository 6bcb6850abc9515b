//! Agents, skills and assignments in Postgres.

use clawlink_shared::control::Skill;
use clawlink_shared::id::{AgentId, WorkspaceId};
use serde_json::Value;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// A stored agent, without its credential.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) id: i64,
    pub(super) workspace_id: i64,
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) endpoint: Option<String>,
    pub(super) description: Option<String>,
    pub(super) has_api_key: bool,
    pub(super) config: Option<Value>,
    pub(super) is_active: bool,
    pub(super) created_at: OffsetDateTime,
    pub(super) updated_at: OffsetDateTime,
}

/// What is written of an agent; the credential is added once its id is known.
#[derive(Debug)]
pub(super) struct Values {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) endpoint: Option<String>,
    pub(super) description: Option<String>,
    pub(super) config: Option<Value>,
    pub(super) is_active: bool,
}

pub(super) async fn insert(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    values: &Values,
) -> anyhow::Result<AgentId> {
    let id = sqlx::query_scalar!(
        "insert into agents (workspace_id, name, type, endpoint, description, config, is_active)
         values ($1, $2, $3, $4, $5, $6, $7) returning id",
        workspace.0,
        values.name,
        values.kind,
        values.endpoint,
        values.description,
        values.config,
        values.is_active,
    )
    .fetch_one(db)
    .await?;
    Ok(AgentId(id))
}

/// Writes all values of an agent that the caller has locked.
pub(super) async fn update(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    id: AgentId,
    values: &Values,
) -> anyhow::Result<()> {
    sqlx::query!(
        "update agents set name = $3, type = $4, endpoint = $5, description = $6, config = $7,
            is_active = $8, updated_at = now()
         where id = $1 and workspace_id = $2",
        id.0,
        workspace.0,
        values.name,
        values.kind,
        values.endpoint,
        values.description,
        values.config,
        values.is_active,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Sets or clears an agent's sealed credential.
pub(super) async fn set_key(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    id: AgentId,
    sealed: Option<&[u8]>,
) -> anyhow::Result<()> {
    sqlx::query!(
        "update agents set sealed_api_key = $3, updated_at = now()
         where id = $1 and workspace_id = $2",
        id.0,
        workspace.0,
        sealed,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// An agent's sealed credential, if it has one.
pub(super) async fn key(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    id: AgentId,
) -> anyhow::Result<Option<Vec<u8>>> {
    let key = sqlx::query_scalar!(
        "select sealed_api_key from agents where id = $1 and workspace_id = $2",
        id.0,
        workspace.0,
    )
    .fetch_optional(db)
    .await?;
    Ok(key.flatten())
}

/// Credentials that do not begin with the current key's id, after this agent.
pub(super) async fn stale_keys(
    db: &mut PgConnection,
    current: &[u8],
    after: i64,
    limit: i64,
) -> anyhow::Result<Vec<(AgentId, Vec<u8>)>> {
    let rows = sqlx::query!(
        "select id, sealed_api_key as \"sealed!\" from agents
         where sealed_api_key is not null and substring(sealed_api_key from 1 for 8) <> $1
            and id > $2 order by id limit $3",
        current,
        after,
        limit,
    )
    .fetch_all(db)
    .await?;
    let keys = rows.into_iter().map(|row| (AgentId(row.id), row.sealed));
    Ok(keys.collect())
}

/// Puts the same credential in another seal, unless it was changed.
pub(super) async fn replace_key(
    db: &mut PgConnection,
    id: i64,
    old: &[u8],
    new: &[u8],
) -> anyhow::Result<()> {
    sqlx::query!(
        "update agents set sealed_api_key = $3 where id = $1 and sealed_api_key = $2",
        id,
        old,
        new,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Reads agents in order of their numbers, locked or not: the same columns in one place.
macro_rules! rows {
    ($lock:literal, $db:expr, $workspace:expr, $only:expr, $after:expr, $limit:expr) => {
        sqlx::query_as!(
            Row,
            "select id, workspace_id, name, type as kind, endpoint, description,
                sealed_api_key is not null as \"has_api_key!\", config, is_active, created_at,
                updated_at
             from agents
             where workspace_id = $1 and ($2::bigint is null or id = $2) and id > $3
             order by id limit $4 "
                + $lock,
            $workspace.0,
            $only.map(|id: AgentId| id.0),
            $after,
            $limit,
        )
        .fetch_all($db)
        .await?
    };
}

pub(super) async fn find(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    id: AgentId,
) -> anyhow::Result<Option<Row>> {
    Ok(rows!("", db, workspace, Some(id), 0, 1).pop())
}

/// The same, locked until the transaction ends.
pub(super) async fn lock(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    id: AgentId,
) -> anyhow::Result<Option<Row>> {
    Ok(rows!("for no key update", db, workspace, Some(id), 0, 1).pop())
}

/// Up to `limit` agents after `after`, in order of their numbers.
pub(super) async fn list(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    after: i64,
    limit: i64,
) -> anyhow::Result<Vec<Row>> {
    Ok(rows!("", db, workspace, None, after, limit))
}

/// A skill of an agent.
#[derive(Debug)]
pub(super) struct SkillRow {
    pub(super) id: i64,
    pub(super) agent_id: i64,
    pub(super) name: String,
    pub(super) description: Option<String>,
    pub(super) instructions: Option<String>,
    pub(super) input_schema: Option<Value>,
    pub(super) output_schema: Option<Value>,
    pub(super) created_at: OffsetDateTime,
}

/// What is written of a skill.
#[derive(Debug)]
pub(super) struct SkillValues {
    pub(super) name: String,
    pub(super) description: Option<String>,
    pub(super) instructions: Option<String>,
    pub(super) input_schema: Option<Value>,
    pub(super) output_schema: Option<Value>,
}

pub(super) async fn insert_skill(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    agent: AgentId,
    values: &SkillValues,
) -> Result<SkillRow, sqlx::Error> {
    sqlx::query_as!(
        SkillRow,
        "insert into skills
            (workspace_id, agent_id, name, description, input_schema, output_schema, instructions)
         values ($1, $2, $3, $4, $5, $6, $7)
         returning id, agent_id, name, description, instructions, input_schema, output_schema,
            created_at",
        workspace.0,
        agent.0,
        values.name,
        values.description,
        values.input_schema,
        values.output_schema,
        values.instructions,
    )
    .fetch_one(db)
    .await
}

/// Names of the skills of these agents, in order of their numbers.
pub(super) async fn skill_names(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    agents: &[i64],
    limit: i64,
) -> anyhow::Result<Vec<(i64, String)>> {
    let rows = sqlx::query!(
        "select agent_id, name from skills where workspace_id = $1 and agent_id = any($2)
         order by id limit $3",
        workspace.0,
        agents,
        limit,
    )
    .fetch_all(db)
    .await?;
    let names = rows.into_iter().map(|row| (row.agent_id, row.name));
    Ok(names.collect())
}

/// Up to `limit` skills after `after` of one agent or of all, in order of their numbers.
pub(super) async fn skills(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    agent: Option<AgentId>,
    after: i64,
    limit: i64,
) -> anyhow::Result<Vec<SkillRow>> {
    let rows = sqlx::query_as!(
        SkillRow,
        "select id, agent_id, name, description, instructions, input_schema, output_schema,
            created_at
         from skills
         where workspace_id = $1 and ($2::bigint is null or agent_id = $2) and id > $3
         order by id limit $4",
        workspace.0,
        agent.map(|agent| agent.0),
        after,
        limit,
    )
    .fetch_all(db)
    .await?;
    Ok(rows)
}

/// Skills with instructions that an execution may be given: those of the stored agent that
/// runs, and those that the workspace has taken, by their names or the slugs of these.
pub(super) async fn offered_skills(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    agent: Option<AgentId>,
    limit: i64,
) -> anyhow::Result<Vec<(i64, String)>> {
    let rows = sqlx::query!(
        "select s.id, s.name
         from skills s join agents a on a.id = s.agent_id
         where s.workspace_id = $1 and s.instructions is not null and a.is_active
            and (s.agent_id = $2 or exists (
                select from skill_assignments t
                where t.workspace_id = $1 and t.skill_slug in (
                    s.name, trim(both '-' from regexp_replace(lower(s.name), '[^a-z0-9]+', '-', 'g')))))
         order by s.id limit $3",
        workspace.0,
        agent.map(|agent| agent.0),
        limit,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.name)).collect())
}

/// What these skills say, as far as they still exist.
pub(super) async fn instructions(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    ids: &[i64],
) -> anyhow::Result<Vec<Skill>> {
    let rows = sqlx::query!(
        "select name, description, instructions as \"instructions!\" from skills
         where workspace_id = $1 and id = any($2) and instructions is not null order by id",
        workspace.0,
        ids,
    )
    .fetch_all(db)
    .await?;
    let skills = rows.into_iter().map(|row| Skill {
        description: row.description.unwrap_or_else(|| row.name.clone()),
        name: row.name,
        instructions: row.instructions,
    });
    Ok(skills.collect())
}

/// A skill that a workspace has taken.
#[derive(Debug)]
pub(super) struct AssignmentRow {
    pub(super) skill_slug: String,
    pub(super) assigned_by: String,
    pub(super) assigned_at: OffsetDateTime,
}

/// Takes a skill; nothing changes if it was taken before.
pub(super) async fn assign(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    slug: &str,
    by: &str,
) -> anyhow::Result<()> {
    sqlx::query!(
        "insert into skill_assignments (workspace_id, skill_slug, assigned_by)
         values ($1, $2, $3) on conflict do nothing",
        workspace.0,
        slug,
        by,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Gives a skill back; false if it was not taken.
pub(super) async fn unassign(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    slug: &str,
) -> anyhow::Result<bool> {
    let done = sqlx::query!(
        "delete from skill_assignments where workspace_id = $1 and skill_slug = $2",
        workspace.0,
        slug,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn assignments(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    limit: i64,
) -> anyhow::Result<Vec<AssignmentRow>> {
    let rows = sqlx::query_as!(
        AssignmentRow,
        "select skill_slug, assigned_by, assigned_at from skill_assignments
         where workspace_id = $1 order by skill_slug limit $2",
        workspace.0,
        limit,
    )
    .fetch_all(db)
    .await?;
    Ok(rows)
}
