//! Rows of invitations.

use clawlink_shared::id::{UserId, WorkspaceId};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::members::role;
use crate::workspaces::role::MemberRole;

/// An open invitation.
#[derive(Debug)]
pub(in crate::workspaces) struct Row {
    pub(in crate::workspaces) id: i64,
    pub(in crate::workspaces) email: String,
    pub(in crate::workspaces) role: String,
    pub(in crate::workspaces) invited_by: String,
    pub(in crate::workspaces) created_at: OffsetDateTime,
    pub(in crate::workspaces) expires_at: OffsetDateTime,
}

/// What accepting gives.
#[derive(Debug, Clone, Copy)]
pub(in crate::workspaces) struct Offer {
    pub(in crate::workspaces) id: i64,
    pub(in crate::workspaces) workspace: WorkspaceId,
    pub(in crate::workspaces) role: MemberRole,
}

/// Invites an address; an open invitation of it is renewed, and its old token is void.
pub(in crate::workspaces) async fn upsert(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    email: &str,
    role: MemberRole,
    token_hash: &[u8; 32],
    invited_by: &str,
    expires_at: OffsetDateTime,
) -> anyhow::Result<Row> {
    let row = sqlx::query_as!(
        Row,
        "insert into invitations
            (workspace_id, email, role, token_hash, invited_by, expires_at)
         values ($1, $2, $3, $4, $5, $6)
         on conflict (workspace_id, email) where accepted_at is null and revoked_at is null
         do update set role = excluded.role, token_hash = excluded.token_hash,
            invited_by = excluded.invited_by, created_at = now(),
            expires_at = excluded.expires_at
         returning id, email, role, invited_by, created_at, expires_at",
        workspace.0,
        email,
        role.as_str(),
        &token_hash[..],
        invited_by,
        expires_at,
    )
    .fetch_one(db)
    .await?;
    Ok(row)
}

/// Open invitations of the workspace, the newest first; those that expired stand among them.
pub(in crate::workspaces) async fn list(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    limit: i64,
) -> anyhow::Result<Vec<Row>> {
    let rows = sqlx::query_as!(
        Row,
        "select id, email, role, invited_by, created_at, expires_at from invitations
         where workspace_id = $1 and accepted_at is null and revoked_at is null
         order by id desc limit $2",
        workspace.0,
        limit,
    )
    .fetch_all(db)
    .await?;
    Ok(rows)
}

/// How many invitations are open.
pub(in crate::workspaces) async fn count(
    db: &mut PgConnection,
    workspace: WorkspaceId,
) -> anyhow::Result<i64> {
    let count = sqlx::query_scalar!(
        "select count(*) as \"count!\" from invitations
         where workspace_id = $1 and accepted_at is null and revoked_at is null",
        workspace.0,
    )
    .fetch_one(db)
    .await?;
    Ok(count)
}

/// Takes an open invitation back; false if there is none.
pub(in crate::workspaces) async fn revoke(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    id: i64,
) -> anyhow::Result<bool> {
    let done = sqlx::query!(
        "update invitations set revoked_at = now()
         where workspace_id = $1 and id = $2 and accepted_at is null and revoked_at is null",
        workspace.0,
        id,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Takes back all that these callers left open, in any workspace.
pub(in crate::workspaces) async fn revoke_by(
    db: &mut PgConnection,
    inviters: &[String],
) -> anyhow::Result<Vec<(WorkspaceId, i64)>> {
    let rows = sqlx::query!(
        "update invitations set revoked_at = now()
         where invited_by = any($1) and accepted_at is null and revoked_at is null
         returning workspace_id, id",
        inviters,
    )
    .fetch_all(db)
    .await?;
    let revoked = rows.into_iter();
    Ok(revoked
        .map(|row| (WorkspaceId(row.workspace_id), row.id))
        .collect())
}

/// What the token offers, if its invitation is open and its workspace active.
pub(in crate::workspaces) async fn by_token(
    db: &mut PgConnection,
    token_hash: &[u8; 32],
) -> anyhow::Result<Option<Offer>> {
    let row = sqlx::query!(
        "select invitations.id, workspace_id, role
         from invitations join workspaces on workspaces.id = workspace_id
         where token_hash = $1 and accepted_at is null and revoked_at is null
            and expires_at > now() and status = 'active'",
        &token_hash[..],
    )
    .fetch_optional(db)
    .await?;
    row.map(|row| offer(row.id, row.workspace_id, &row.role))
        .transpose()
}

/// What is offered to an address, at most `limit`.
pub(in crate::workspaces) async fn by_email(
    db: &mut PgConnection,
    email: &str,
    limit: i64,
) -> anyhow::Result<Vec<Offer>> {
    let rows = sqlx::query!(
        "select invitations.id, workspace_id, role
         from invitations join workspaces on workspaces.id = workspace_id
         where email = $1 and accepted_at is null and revoked_at is null
            and expires_at > now() and status = 'active'
         order by workspace_id limit $2",
        email,
        limit,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| offer(row.id, row.workspace_id, &row.role))
        .collect()
}

/// Closes an open invitation as accepted; false if somebody was faster.
pub(in crate::workspaces) async fn accept(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    id: i64,
    user: UserId,
) -> anyhow::Result<bool> {
    let done = sqlx::query!(
        "update invitations set accepted_at = now(), accepted_by = $3
         where workspace_id = $1 and id = $2 and accepted_at is null and revoked_at is null
            and expires_at > now()",
        workspace.0,
        id,
        user.0,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

fn offer(id: i64, workspace: i64, name: &str) -> anyhow::Result<Offer> {
    Ok(Offer {
        id,
        workspace: WorkspaceId(workspace),
        role: role(name)?,
    })
}
