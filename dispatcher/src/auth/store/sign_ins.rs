//! Sign-ins and the refresh tokens that prolong them, in Postgres.

use std::net::IpAddr;
use std::time::Duration;

use clawlink_shared::id::UserId;
use sqlx::PgConnection;
use uuid::Uuid;

/// Begins a sign-in.
pub(in crate::auth) async fn insert(
    db: &mut PgConnection,
    user: UserId,
    method: &str,
    address: Option<IpAddr>,
) -> anyhow::Result<Uuid> {
    let id = Uuid::now_v7();
    sqlx::query!(
        "insert into sign_ins (id, user_id, method, address) values ($1, $2, $3, $4)",
        id,
        user.0,
        method,
        address.map(|address| address.to_string()),
    )
    .execute(db)
    .await?;
    Ok(id)
}

/// Gives a sign-in its next refresh token.
pub(in crate::auth) async fn insert_refresh(
    db: &mut PgConnection,
    sign_in: Uuid,
    hash: &[u8; 32],
    valid: Duration,
) -> anyhow::Result<()> {
    sqlx::query!(
        "insert into refresh_tokens (hash, sign_in_id, expires_at)
         values ($1, $2, now() + make_interval(secs => $3))",
        &hash[..],
        sign_in,
        valid.as_secs_f64(),
    )
    .execute(db)
    .await?;
    Ok(())
}

/// What became of an attempt to exchange a refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::auth) enum Exchange {
    /// It served; it will not again.
    Done { sign_in: Uuid, user: UserId },
    /// Somebody else exchanged it this moment.
    Raced,
    /// It was exchanged before: two hold it.
    Reused { sign_in: Uuid, user: UserId },
    /// Unknown, expired, or its sign-in ended.
    Refused,
}

/// Marks a refresh token as exchanged. One that was exchanged less than `grace` ago was raced
/// for by two requests of one client; later, somebody else holds it too.
pub(in crate::auth) async fn exchange(
    db: &mut PgConnection,
    hash: &[u8; 32],
    grace: Duration,
) -> anyhow::Result<Exchange> {
    let done = sqlx::query!(
        "update refresh_tokens t set replaced_at = now()
         from sign_ins s join users u on u.id = s.user_id
         where t.hash = $1 and t.replaced_at is null and t.expires_at > now()
            and s.id = t.sign_in_id and s.revoked_at is null
            and s.created_at >= u.tokens_valid_from and u.disabled_at is null
         returning s.id, s.user_id",
        &hash[..],
    )
    .fetch_optional(&mut *db)
    .await?;
    if let Some(row) = done {
        sqlx::query!(
            "update sign_ins set last_used_at = now() where id = $1",
            row.id
        )
        .execute(db)
        .await?;
        return Ok(Exchange::Done {
            sign_in: row.id,
            user: UserId(row.user_id),
        });
    }
    let found = sqlx::query!(
        "select s.id, s.user_id, t.replaced_at is not null as \"replaced!\",
            coalesce(t.replaced_at > now() - make_interval(secs => $2), false) as \"just!\"
         from refresh_tokens t join sign_ins s on s.id = t.sign_in_id
         where t.hash = $1 and s.revoked_at is null",
        &hash[..],
        grace.as_secs_f64(),
    )
    .fetch_optional(db)
    .await?;
    Ok(match found {
        Some(row) if row.just => Exchange::Raced,
        Some(row) if row.replaced => Exchange::Reused {
            sign_in: row.id,
            user: UserId(row.user_id),
        },
        _ => Exchange::Refused,
    })
}

/// Ends a sign-in; whether it was open.
pub(in crate::auth) async fn revoke(db: &mut PgConnection, sign_in: Uuid) -> anyhow::Result<bool> {
    let done = sqlx::query!(
        "update sign_ins set revoked_at = now() where id = $1 and revoked_at is null",
        sign_in,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Ends all sign-ins of a person that began before this transaction.
pub(in crate::auth) async fn revoke_all(db: &mut PgConnection, user: UserId) -> anyhow::Result<()> {
    sqlx::query!(
        "update users set tokens_valid_from = now(), updated_at = now() where id = $1",
        user.0,
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "update sign_ins set revoked_at = now() where user_id = $1 and revoked_at is null",
        user.0,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Deletes what gives nothing any more: expired refresh tokens, sign-ins that ended or cannot
/// be prolonged once their last web token is over, and old reset tokens.
pub(in crate::auth) async fn clean(db: &mut PgConnection, web: Duration) -> anyhow::Result<()> {
    sqlx::query!("delete from refresh_tokens where expires_at < now()")
        .execute(&mut *db)
        .await?;
    sqlx::query!(
        "delete from sign_ins s
         where greatest(s.created_at, s.last_used_at) < now() - make_interval(secs => $1)
            and (s.revoked_at is not null
                or not exists (select 1 from refresh_tokens t where t.sign_in_id = s.id))",
        web.as_secs_f64(),
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!("delete from password_resets where expires_at < now()")
        .execute(db)
        .await?;
    Ok(())
}
