//! What a lease holder is given.

use clawlink_shared::id::{ClaimId, ExecutionId, SessionId, WorkspaceId};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::usage::money::Micros;

/// A held execution with its session.
#[derive(Debug)]
pub(crate) struct Held {
    /// Which.
    pub(crate) execution: ExecutionId,
    /// Whose it is.
    pub(crate) workspace: WorkspaceId,
    /// Its other name, which its credentials are sealed for.
    pub(crate) uuid: Uuid,
    /// Whether its workspace or its session has limits that were not looked at.
    pub(crate) is_limited: bool,
    /// What its session may cost by itself.
    pub(crate) session_budget: Option<Micros>,
    /// From 1.
    pub(crate) attempt: i32,
    /// The stored lease.
    pub(crate) lease_hash: Vec<u8>,
    /// What to run: a `Spec`, unless it was written by a version that is too different.
    pub(crate) spec: serde_json::Value,
    /// The request's credentials, sealed.
    pub(crate) sealed: Option<Vec<u8>>,
    /// Its session.
    pub(crate) session: SessionId,
    /// Its place there.
    pub(crate) turn: i32,
    /// The current archive.
    pub(crate) archive: Option<Archive>,
    /// Where that was made.
    pub(crate) archive_root: Option<String>,
    /// The agent's name for the conversation.
    pub(crate) provider_session_id: Option<String>,
}

/// A session's current archive.
#[derive(Debug)]
pub(crate) struct Archive {
    /// The object.
    pub(crate) key: String,
    /// Its bytes.
    pub(crate) size: i64,
    /// Their hash.
    pub sha256: String,
}

/// The execution that a claim holds now.
pub(crate) async fn by_claim(
    db: &mut PgConnection,
    claim: ClaimId,
) -> anyhow::Result<Option<Held>> {
    let row = sqlx::query!(
        "select e.id, e.uuid, e.workspace_id, e.attempt, e.lease_hash, e.spec, e.session_id, e.turn,
            c.sealed as \"sealed?\", e.acked_at is null and (s.budget_micros is not null
                or exists (select from limits where workspace_id = e.workspace_id)) as \"is_limited!\",
            s.budget_micros,
            s.archive_key, s.archive_size, s.archive_sha256, s.archive_root,
            s.provider_session_id
         from executions e
         join sessions s on s.id = e.session_id
         left join credentials c on c.execution_id = e.id
         where e.claim_id = $1 and e.state in ('planning', 'running', 'waiting')",
        claim.0,
    )
    .fetch_optional(db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Held {
        execution: ExecutionId(row.id),
        workspace: WorkspaceId(row.workspace_id),
        uuid: row.uuid,
        is_limited: row.is_limited,
        session_budget: row.budget_micros.map(Micros),
        attempt: row.attempt,
        lease_hash: row.lease_hash.unwrap_or_default(),
        spec: row.spec,
        sealed: row.sealed,
        session: SessionId(row.session_id),
        turn: row.turn,
        archive: archive(row.archive_key, row.archive_size, row.archive_sha256),
        archive_root: row.archive_root,
        provider_session_id: row.provider_session_id,
    }))
}

/// The current archive of the session whose execution this lease holds.
pub(crate) async fn archive_of(
    db: &mut PgConnection,
    execution: ExecutionId,
    lease_hash: &[u8; 32],
) -> anyhow::Result<Option<Option<Archive>>> {
    let row = sqlx::query!(
        "select s.archive_key, s.archive_size, s.archive_sha256
         from executions e join sessions s on s.id = e.session_id
         where e.id = $1 and e.lease_hash = $2
            and e.state in ('planning', 'running', 'waiting')",
        execution.0,
        &lease_hash[..],
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| archive(row.archive_key, row.archive_size, row.archive_sha256)))
}

/// An archive from its columns, which are set together or not at all.
pub(super) fn archive(
    key: Option<String>,
    size: Option<i64>,
    sha256: Option<String>,
) -> Option<Archive> {
    match (key, size, sha256) {
        (Some(key), Some(size), Some(sha256)) => Some(Archive { key, size, sha256 }),
        _ => None,
    }
}
