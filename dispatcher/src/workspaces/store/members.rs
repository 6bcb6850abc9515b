//! Rows of members. Whoever changes one has locked the workspace.

use anyhow::Context;
use clawlink_shared::id::{UserId, WorkspaceId};
use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::workspaces::role::MemberRole;

/// A member, or somebody who was one.
#[derive(Debug)]
pub(in crate::workspaces) struct Row {
    pub(in crate::workspaces) workspace: WorkspaceId,
    pub(in crate::workspaces) user: UserId,
    pub(in crate::workspaces) role: MemberRole,
    pub(in crate::workspaces) is_active: bool,
    pub(in crate::workspaces) joined_at: OffsetDateTime,
    pub(in crate::workspaces) email: String,
    pub(in crate::workspaces) username: String,
    pub(in crate::workspaces) display_name: Option<String>,
}

/// Members of these workspaces: those who are before those who were, the oldest first, at most
/// `limit` each.
pub(in crate::workspaces) async fn list(
    db: &mut PgConnection,
    workspaces: &[i64],
    limit: i64,
) -> anyhow::Result<Vec<Row>> {
    let rows = sqlx::query!(
        "select member.workspace_id, member.user_id, member.role, member.joined_at,
            (member.removed_at is null) as \"is_active!\",
            users.email, users.username, users.display_name
         from unnest($1::bigint[]) as wanted (id)
         cross join lateral (
            select * from members where workspace_id = wanted.id
            order by removed_at is not null, joined_at, user_id limit $2) as member
         join users on users.id = member.user_id
         order by member.workspace_id, member.removed_at is not null, member.joined_at,
            member.user_id",
        workspaces,
        limit,
    )
    .fetch_all(db)
    .await?;
    let rows = rows.into_iter().map(|row| {
        Ok(Row {
            workspace: WorkspaceId(row.workspace_id),
            user: UserId(row.user_id),
            role: role(&row.role)?,
            is_active: row.is_active,
            joined_at: row.joined_at,
            email: row.email,
            username: row.username,
            display_name: row.display_name,
        })
    });
    rows.collect()
}

/// The role of an active member.
pub(in crate::workspaces) async fn role_of(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    user: UserId,
) -> anyhow::Result<Option<MemberRole>> {
    let name = sqlx::query_scalar!(
        "select role from members
         where workspace_id = $1 and user_id = $2 and removed_at is null",
        workspace.0,
        user.0,
    )
    .fetch_optional(db)
    .await?;
    name.as_deref().map(role).transpose()
}

/// Active members, and the owners among them.
pub(in crate::workspaces) async fn count(
    db: &mut PgConnection,
    workspace: WorkspaceId,
) -> anyhow::Result<(i64, i64)> {
    let row = sqlx::query!(
        "select count(*) as \"all!\", count(*) filter (where role = 'owner') as \"owners!\"
         from members where workspace_id = $1 and removed_at is null",
        workspace.0,
    )
    .fetch_one(db)
    .await?;
    Ok((row.all, row.owners))
}

/// Makes somebody a member, again if it was one before. False if nobody has this id or the
/// account is disabled.
pub(in crate::workspaces) async fn add(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    user: UserId,
    role: MemberRole,
) -> anyhow::Result<bool> {
    let done = sqlx::query!(
        "insert into members (workspace_id, user_id, role)
         select $1, id, $3 from users where id = $2 and disabled_at is null
         on conflict (workspace_id, user_id) do update
            set role = excluded.role, removed_at = null, joined_at = now()
            where members.removed_at is not null",
        workspace.0,
        user.0,
        role.as_str(),
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Gives an active member another role, if it has the one that was seen.
pub(in crate::workspaces) async fn set_role(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    user: UserId,
    (from, to): (MemberRole, MemberRole),
) -> anyhow::Result<bool> {
    let done = sqlx::query!(
        "update members set role = $4
         where workspace_id = $1 and user_id = $2 and removed_at is null and role = $3",
        workspace.0,
        user.0,
        from.as_str(),
        to.as_str(),
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Ends a membership; the row stays, to show who was there.
pub(in crate::workspaces) async fn remove(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    user: UserId,
) -> anyhow::Result<bool> {
    let done = sqlx::query!(
        "update members set removed_at = now()
         where workspace_id = $1 and user_id = $2 and removed_at is null",
        workspace.0,
        user.0,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Whose account has this address, if it was proved to be theirs: who only claims an address
/// must not get what is meant for its owner.
pub(in crate::workspaces) async fn by_email(
    db: &mut PgConnection,
    email: &str,
) -> anyhow::Result<Option<UserId>> {
    let id = sqlx::query_scalar!(
        "select id from users
         where email = $1 and disabled_at is null and email_verified_at is not null",
        email
    )
    .fetch_optional(db)
    .await?;
    Ok(id.map(UserId))
}

/// Reads a role that Postgres holds.
pub(super) fn role(name: &str) -> anyhow::Result<MemberRole> {
    MemberRole::from_name(name).with_context(|| format!("members.role is {name:?}"))
}
