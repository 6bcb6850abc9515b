//! Tokens that set a new password, in Postgres.

use std::time::Duration;

use clawlink_shared::id::UserId;
use sqlx::PgConnection;

/// Stores a token's hash.
pub(in crate::auth) async fn insert(
    db: &mut PgConnection,
    user: UserId,
    hash: &[u8; 32],
    valid: Duration,
) -> anyhow::Result<()> {
    sqlx::query!(
        "insert into password_resets (hash, user_id, expires_at)
         values ($1, $2, now() + make_interval(secs => $3))",
        &hash[..],
        user.0,
        valid.as_secs_f64(),
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Uses a token up, with all others of the same person; whose it was.
pub(in crate::auth) async fn take(
    db: &mut PgConnection,
    hash: &[u8; 32],
) -> anyhow::Result<Option<UserId>> {
    let user = sqlx::query_scalar!(
        "update password_resets set used_at = now()
         where hash = $1 and used_at is null and expires_at > now()
         returning user_id",
        &hash[..],
    )
    .fetch_optional(&mut *db)
    .await?;
    if let Some(user) = user {
        void(db, UserId(user)).await?;
    }
    Ok(user.map(UserId))
}

/// Makes all tokens of a person useless.
pub(in crate::auth) async fn void(db: &mut PgConnection, user: UserId) -> anyhow::Result<()> {
    sqlx::query!(
        "update password_resets set used_at = now() where user_id = $1 and used_at is null",
        user.0,
    )
    .execute(db)
    .await?;
    Ok(())
}
