//! Accounts elsewhere, in Postgres.

use clawlink_shared::id::UserId;
use sqlx::PgConnection;

/// Whose account here goes with that one.
pub(in crate::auth) async fn user(
    db: &mut PgConnection,
    provider: &str,
    subject: &str,
) -> anyhow::Result<Option<UserId>> {
    let user = sqlx::query_scalar!(
        "select user_id from identities where provider = $1 and subject = $2",
        provider,
        subject,
    )
    .fetch_optional(db)
    .await?;
    Ok(user.map(UserId))
}

/// Joins an account elsewhere with one here.
pub(in crate::auth) async fn insert(
    db: &mut PgConnection,
    provider: &str,
    subject: &str,
    user: UserId,
) -> anyhow::Result<()> {
    sqlx::query!(
        "insert into identities (provider, subject, user_id) values ($1, $2, $3)",
        provider,
        subject,
        user.0,
    )
    .execute(db)
    .await?;
    Ok(())
}
