//! Handing secrets out, and taking renewed ones back.

use clawlink_shared::id::{ClaimId, ExecutionId, WorkspaceId};
use sqlx::PgConnection;

/// A secret that may be wanted.
#[derive(Debug)]
pub(in crate::secrets) struct Candidate {
    pub(in crate::secrets) id: i64,
    pub(in crate::secrets) name: String,
    pub(in crate::secrets) agent: Option<String>,
    pub(in crate::secrets) sealed: Vec<u8>,
    pub(in crate::secrets) version: i64,
    pub(in crate::secrets) allowed_roles: Option<Vec<String>>,
    pub(in crate::secrets) allowed_agents: Option<Vec<String>>,
}

/// The secrets of these names that an agent sees; its own hide the workspace's. `agents` are
/// its names, the most particular first.
pub(in crate::secrets) async fn candidates(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    names: &[String],
    agents: &[String],
) -> anyhow::Result<Vec<Candidate>> {
    let rows = sqlx::query_as!(
        Candidate,
        "select distinct on (name) id, name, agent, sealed, version, allowed_roles, allowed_agents
         from secrets
         where workspace_id = $1 and name = any($2) and (agent is null or agent = any($3))
         order by name, array_position($3, agent) nulls last",
        workspace.0,
        names,
        agents,
    )
    .fetch_all(db)
    .await?;
    Ok(rows)
}

/// What is handed out.
#[derive(Debug)]
pub(in crate::secrets) struct Use<'a> {
    pub(in crate::secrets) place: &'a str,
    pub(in crate::secrets) secret: i64,
    pub(in crate::secrets) version: i64,
}

/// Remembers what a worker is given; false if it was given just that before.
pub(in crate::secrets) async fn remember(
    db: &mut PgConnection,
    execution: ExecutionId,
    claim: ClaimId,
    used: &Use<'_>,
) -> anyhow::Result<bool> {
    let changed = sqlx::query!(
        "insert into secret_uses as u (execution_id, place, secret_id, version, claim_id)
         values ($1, $2, $3, $4, $5)
         on conflict (execution_id, place) do update
            set secret_id = excluded.secret_id, version = excluded.version,
                claim_id = excluded.claim_id
            where (u.secret_id, u.version, u.claim_id)
                is distinct from (excluded.secret_id, excluded.version, excluded.claim_id)",
        execution.0,
        used.place,
        used.secret,
        used.version,
        claim.0,
    )
    .execute(db)
    .await?;
    Ok(changed.rows_affected() == 1)
}

/// Marks secrets as used now, at most once a minute each. One that somebody else is marking is
/// left to them.
pub(in crate::secrets) async fn touch(
    db: &mut PgConnection,
    secrets: &[i64],
) -> anyhow::Result<()> {
    sqlx::query!(
        "update secrets set last_used_at = now() where id in (
            select id from secrets where id = any($1)
                and (last_used_at is null or last_used_at < now() - interval '1 minute')
            for no key update skip locked)",
        secrets,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A secret that an execution's worker was given.
#[derive(Debug)]
pub(in crate::secrets) struct Given {
    pub(in crate::secrets) secret: i64,
    pub(in crate::secrets) version: i64,
    pub(in crate::secrets) workspace: WorkspaceId,
    pub(in crate::secrets) name: String,
    pub(in crate::secrets) agent: Option<String>,
}

/// What the worker of this claim was given in a place, with the secret's value by now.
pub(in crate::secrets) async fn given(
    db: &mut PgConnection,
    execution: ExecutionId,
    claim: ClaimId,
    place: &str,
) -> anyhow::Result<Option<(Given, Vec<u8>)>> {
    let row = sqlx::query!(
        "select s.id, u.version, s.workspace_id, s.name, s.agent, s.sealed
         from secret_uses u join secrets s on s.id = u.secret_id
         where u.execution_id = $1 and u.claim_id = $2 and u.place = $3",
        execution.0,
        claim.0,
        place,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| {
        let given = Given {
            secret: row.id,
            version: row.version,
            workspace: WorkspaceId(row.workspace_id),
            name: row.name,
            agent: row.agent,
        };
        (given, row.sealed)
    }))
}

/// Replaces the value that was given by a renewed one; false if the secret has another value by
/// now, which then stays.
pub(in crate::secrets) async fn replace(
    db: &mut PgConnection,
    execution: ExecutionId,
    place: &str,
    given: &Given,
    sealed: &[u8],
    size: i32,
) -> anyhow::Result<bool> {
    let replaced = sqlx::query!(
        "with replaced as (
            update secrets set sealed = $4, size = $5, version = version + 1,
                updated_at = now(), updated_by = 'execution:' || $1::bigint
            where id = $2 and version = $3
            returning id, version
         )
         update secret_uses u set version = replaced.version from replaced
         where u.execution_id = $1 and u.place = $6 and u.secret_id = replaced.id",
        execution.0,
        given.secret,
        given.version,
        sealed,
        size,
        place,
    )
    .execute(db)
    .await?;
    Ok(replaced.rows_affected() == 1)
}

/// Forgets what ended executions were given; answers how many rows, at most `limit`.
pub(in crate::secrets) async fn forget(db: &mut PgConnection, limit: i64) -> anyhow::Result<u64> {
    let gone = sqlx::query!(
        "delete from secret_uses where (execution_id, place) in (
            select u.execution_id, u.place from secret_uses u
            join executions e on e.id = u.execution_id
            where e.ended_at is not null limit $1)",
        limit,
    )
    .execute(db)
    .await?;
    Ok(gone.rows_affected())
}
