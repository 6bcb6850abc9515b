//! People and their rights in Postgres.

use clawlink_shared::id::{UserId, WorkspaceId};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::workspaces::role::MemberRole;

/// Serializes registrations: who comes first is decided once.
const REGISTRATION_LOCK: i64 = 0x636c_6177_0001;

/// A person as stored.
#[derive(Debug, Clone)]
pub(in crate::auth) struct User {
    pub(in crate::auth) id: UserId,
    pub(in crate::auth) email: String,
    pub(in crate::auth) username: String,
    pub(in crate::auth) display_name: Option<String>,
    pub(in crate::auth) avatar_url: Option<String>,
    pub(in crate::auth) bio: Option<String>,
    pub(in crate::auth) password_hash: Option<String>,
    pub(in crate::auth) is_platform_admin: bool,
    pub(in crate::auth) is_disabled: bool,
}

/// Somebody to be added.
#[derive(Debug, Clone, Copy)]
pub(in crate::auth) struct NewUser<'a> {
    pub(in crate::auth) email: &'a str,
    pub(in crate::auth) username: &'a str,
    pub(in crate::auth) display_name: Option<&'a str>,
    pub(in crate::auth) password_hash: Option<&'a str>,
    pub(in crate::auth) is_platform_admin: bool,
    /// Whether somebody vouches for the address.
    pub(in crate::auth) is_email_verified: bool,
}

/// Waits until no other registration is under way; held until the transaction ends. Returns
/// whether nobody is registered yet.
pub(in crate::auth) async fn lock_registration(db: &mut PgConnection) -> anyhow::Result<bool> {
    sqlx::query!("select pg_advisory_xact_lock($1)", REGISTRATION_LOCK)
        .execute(&mut *db)
        .await?;
    is_nobody_here(db).await
}

/// Whether nobody is registered yet.
pub(in crate::auth) async fn is_nobody_here(db: &mut PgConnection) -> anyhow::Result<bool> {
    let is_first = sqlx::query_scalar!("select not exists (select 1 from users) as \"first!\"")
        .fetch_one(db)
        .await?;
    Ok(is_first)
}

/// Adds a person. Violates `users_email_key` or `users_username_key` when taken.
pub(in crate::auth) async fn insert(
    db: &mut PgConnection,
    new: NewUser<'_>,
) -> Result<User, sqlx::Error> {
    let id = Uuid::now_v7();
    sqlx::query!(
        "insert into users (id, email, username, display_name, password_hash, is_platform_admin,
            email_verified_at)
         values ($1, $2, $3, $4, $5, $6, case when $7 then now() end)",
        id,
        new.email,
        new.username,
        new.display_name,
        new.password_hash,
        new.is_platform_admin,
        new.is_email_verified,
    )
    .execute(db)
    .await?;
    Ok(User {
        id: UserId(id),
        email: new.email.to_owned(),
        username: new.username.to_owned(),
        display_name: new.display_name.map(str::to_owned),
        avatar_url: None,
        bio: None,
        password_hash: new.password_hash.map(str::to_owned),
        is_platform_admin: new.is_platform_admin,
        is_disabled: false,
    })
}

/// The person with this id.
pub(in crate::auth) async fn by_id(
    db: &mut PgConnection,
    id: UserId,
) -> anyhow::Result<Option<User>> {
    let user = sqlx::query_as!(
        User,
        "select id, email, username, display_name, avatar_url, bio, password_hash,
            is_platform_admin, disabled_at is not null as \"is_disabled!\"
         from users where id = $1",
        id.0,
    )
    .fetch_optional(db)
    .await?;
    Ok(user)
}

/// The person with this address, in lower case.
pub(in crate::auth) async fn by_email(
    db: &mut PgConnection,
    email: &str,
) -> anyhow::Result<Option<User>> {
    let user = sqlx::query_as!(
        User,
        "select id, email, username, display_name, avatar_url, bio, password_hash,
            is_platform_admin, disabled_at is not null as \"is_disabled!\"
         from users where email = $1",
        email,
    )
    .fetch_optional(db)
    .await?;
    Ok(user)
}

/// Locks the person's row; false if the password's hash is not the one that was read, or the
/// account was disabled meanwhile.
pub(in crate::auth) async fn lock_unchanged(
    db: &mut PgConnection,
    id: UserId,
    hash: Option<&str>,
) -> anyhow::Result<bool> {
    let row = sqlx::query!(
        "select id from users
         where id = $1 and password_hash is not distinct from $2 and disabled_at is null
         for no key update",
        id.0,
        hash,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.is_some())
}

/// Replaces the password's hash unless it changed since `before` was read; whether it did so.
pub(in crate::auth) async fn set_password(
    db: &mut PgConnection,
    id: UserId,
    before: Option<&str>,
    hash: &str,
) -> anyhow::Result<bool> {
    let done = sqlx::query!(
        "update users set password_hash = $3, updated_at = now()
         where id = $1 and password_hash is not distinct from $2",
        id.0,
        before,
        hash,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Sets the password's hash, or takes the password away.
pub(in crate::auth) async fn replace_password(
    db: &mut PgConnection,
    id: UserId,
    hash: Option<&str>,
) -> anyhow::Result<()> {
    sqlx::query!(
        "update users set password_hash = $2, updated_at = now() where id = $1",
        id.0,
        hash,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Notes that the address is the person's; whether that was known before.
pub(in crate::auth) async fn verify_email(
    db: &mut PgConnection,
    id: UserId,
) -> anyhow::Result<bool> {
    let done = sqlx::query!(
        "update users set email_verified_at = now() where id = $1 and email_verified_at is null",
        id.0,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 0)
}

/// Holds off whoever changes the account, until the transaction ends.
pub(in crate::auth) async fn hold(db: &mut PgConnection, id: UserId) -> anyhow::Result<()> {
    sqlx::query!("select id from users where id = $1 for share", id.0)
        .fetch_optional(db)
        .await?;
    Ok(())
}

/// Keeps the person out, or not any more; false if it is so already.
pub(in crate::auth) async fn set_disabled(
    db: &mut PgConnection,
    id: UserId,
    to: bool,
) -> anyhow::Result<bool> {
    let done = sqlx::query!(
        "update users set disabled_at = case when $2 then now() end, updated_at = now()
         where id = $1 and (disabled_at is null) = $2",
        id.0,
        to,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Whether somebody has this name.
pub(in crate::auth) async fn has_username(
    db: &mut PgConnection,
    name: &str,
) -> anyhow::Result<bool> {
    let has = sqlx::query_scalar!(
        "select exists (select 1 from users where username = $1) as \"has!\"",
        name,
    )
    .fetch_one(db)
    .await?;
    Ok(has)
}

/// What a sign-in gives now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::auth) struct Rights {
    pub(in crate::auth) is_platform_admin: bool,
    /// The role in the workspace that was asked about, and that workspace's status.
    pub(in crate::auth) member: Option<(MemberRole, Status)>,
}

/// Whether a workspace may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::auth) enum Status {
    /// It may.
    Active,
    /// It may be read, brought back and deleted.
    Archived,
    /// It may be read, and what runs there goes on: the platform's admin wants no more of it.
    Suspended,
}

impl Status {
    /// Reads the column.
    pub(super) fn from_name(name: &str) -> anyhow::Result<Self> {
        match name {
            "active" => Ok(Self::Active),
            "archived" => Ok(Self::Archived),
            "suspended" => Ok(Self::Suspended),
            other => anyhow::bail!("workspaces.status is {other:?}"),
        }
    }
}

/// The rights of a sign-in, in a workspace if one is given; `None` once it was ended or the
/// person was disabled.
pub(in crate::auth) async fn rights(
    db: &mut PgConnection,
    user: UserId,
    sign_in: Uuid,
    workspace: Option<WorkspaceId>,
) -> anyhow::Result<Option<Rights>> {
    let row = sqlx::query!(
        "select u.is_platform_admin, m.role as \"role?\", w.status as \"status?\"
         from sign_ins s
         join users u on u.id = s.user_id
         left join workspaces w on w.id = $3
         left join members m
            on m.workspace_id = w.id and m.user_id = u.id and m.removed_at is null
         where s.id = $2 and s.user_id = $1 and s.revoked_at is null
            and s.created_at >= u.tokens_valid_from and u.disabled_at is null",
        user.0,
        sign_in,
        workspace.map(|workspace| workspace.0),
    )
    .fetch_optional(db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let member = match (row.role, row.status) {
        (Some(role), Some(status)) => {
            let role = MemberRole::from_name(&role)
                .ok_or_else(|| anyhow::anyhow!("members.role of {user} is {role:?}"))?;
            Some((role, Status::from_name(&status)?))
        }
        _ => None,
    };
    Ok(Some(Rights {
        is_platform_admin: row.is_platform_admin,
        member,
    }))
}
