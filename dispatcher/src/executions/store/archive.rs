//! What is archived when a turn ends, and what is deleted in time.

use std::time::Duration;

use clawlink_shared::id::{ExecutionId, SessionId};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::lease::interval;

/// A session as its metadata object tells it.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its id.
    pub(crate) session: SessionId,
    /// For people.
    pub(crate) name: String,
    /// Its agent.
    pub(crate) agent: String,
    /// What it works on.
    pub(crate) repo_url: Option<String>,
    /// From which branch.
    pub(crate) repo_branch: Option<String>,
    /// To which branch.
    pub(crate) working_branch: Option<String>,
    /// The agent's name for the conversation.
    pub(crate) provider_session_id: Option<String>,
    /// Turns begun.
    pub(crate) turns: i32,
    /// When it was made.
    pub(crate) created_at: OffsetDateTime,
    /// When a turn ended last.
    pub(crate) updated_at: OffsetDateTime,
    /// The turn that ended.
    pub(crate) turn: i32,
    /// The end of its log.
    pub(crate) last_seq: i64,
}

/// The session of an ended turn; `None` if it was deleted meanwhile.
pub(crate) async fn ended_turn(
    db: &mut PgConnection,
    execution: ExecutionId,
) -> anyhow::Result<Option<Ended>> {
    let row = sqlx::query!(
        "select s.id, s.name, s.agent, s.repo_url, s.repo_branch, s.working_branch,
            s.provider_session_id, s.turns, s.created_at, s.updated_at,
            e.turn, e.last_seq
         from executions e join sessions s on s.id = e.session_id
         where e.id = $1 and e.ended_at is not null",
        execution.0,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| Ended {
        session: SessionId(row.id),
        name: row.name,
        agent: row.agent,
        repo_url: row.repo_url,
        repo_branch: row.repo_branch,
        working_branch: row.working_branch,
        provider_session_id: row.provider_session_id,
        turns: row.turns,
        created_at: row.created_at,
        updated_at: row.updated_at,
        turn: row.turn,
        last_seq: row.last_seq,
    }))
}

/// Archives of a session beyond the newest `keep`, the oldest last, and never the current one;
/// `None` if the session was deleted.
pub(crate) async fn outdated(
    db: &mut PgConnection,
    session: SessionId,
    keep: i64,
) -> anyhow::Result<Option<Vec<String>>> {
    let keys = sqlx::query_scalar!(
        "select array(
            select key from (
                select key, turn from archives where session_id = s.id
                order by turn desc offset $2) old
            where key is distinct from s.archive_key order by turn desc) as \"keys!\"
         from sessions s where s.id = $1",
        session.0,
        keep,
    )
    .fetch_optional(db)
    .await?;
    Ok(keys)
}

/// Forgets archives whose objects are gone.
pub(crate) async fn forget(db: &mut PgConnection, keys: &[String]) -> anyhow::Result<()> {
    sqlx::query!("delete from archives where key = any($1)", keys)
        .execute(db)
        .await?;
    Ok(())
}

/// Deletes idempotency keys older than `age`; answers how many, at most `limit`.
pub(crate) async fn forget_idempotency_keys(
    db: &mut PgConnection,
    age: Duration,
    limit: i64,
) -> anyhow::Result<u64> {
    let deleted = sqlx::query!(
        "delete from idempotency_keys where (principal, key) in (
            select principal, key from idempotency_keys
            where created_at < now() - $1::interval order by created_at limit $2)",
        interval(age),
        limit,
    )
    .execute(db)
    .await?;
    Ok(deleted.rows_affected())
}

/// Deletes credentials whose execution has ended; the end itself does so, this is the net.
pub(crate) async fn forget_credentials(db: &mut PgConnection) -> anyhow::Result<u64> {
    let deleted = sqlx::query!(
        "delete from credentials c using executions e
         where e.id = c.execution_id and e.ended_at is not null",
    )
    .execute(db)
    .await?;
    Ok(deleted.rows_affected())
}
