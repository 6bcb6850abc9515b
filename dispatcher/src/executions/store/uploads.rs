//! Archives on their way: granted, accepted by `complete`, or given up.

use std::time::Duration;

use clawlink_shared::id::{ExecutionId, SessionId};
use sqlx::PgConnection;

use super::lease::interval;

/// A grant.
#[derive(Debug, Clone)]
pub(crate) struct Upload {
    /// Of an upload in parts.
    pub(crate) upload_id: Option<String>,
}

/// Renews the grant of a key and answers it; `None` if there is none, or it is being given up.
pub(crate) async fn find(
    db: &mut PgConnection,
    key: &str,
    execution: ExecutionId,
) -> anyhow::Result<Option<Upload>> {
    let upload = sqlx::query_as!(
        Upload,
        "update uploads set granted_at = now()
         where key = $1 and execution_id = $2 and not is_abandoned
         returning upload_id",
        key,
        execution.0,
    )
    .fetch_optional(db)
    .await?;
    Ok(upload)
}

/// Notes that an upload in parts is about to begin; its id follows with [`grant`].
pub(crate) async fn announce(
    db: &mut PgConnection,
    key: &str,
    execution: ExecutionId,
    session: SessionId,
) -> anyhow::Result<()> {
    sqlx::query!(
        "insert into uploads (key, execution_id, session_id) values ($1, $2, $3)
         on conflict (key) do nothing",
        key,
        execution.0,
        session.0,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Notes a grant and answers what holds now. An upload in parts that an overlapping call noted
/// first is kept, so that the URLs of both answers stay good; the caller aborts its own. A single
/// upload replaces one in parts. `None`: the key is being given up, try again later.
pub(crate) async fn grant(
    db: &mut PgConnection,
    key: &str,
    execution: ExecutionId,
    session: SessionId,
    upload_id: Option<&str>,
) -> anyhow::Result<Option<Upload>> {
    let granted = sqlx::query_as!(
        Upload,
        "insert into uploads (key, execution_id, session_id, upload_id)
         values ($1, $2, $3, $4)
         on conflict (key) do update
            set granted_at = now(), upload_id = case when excluded.upload_id is not null
                then coalesce(uploads.upload_id, excluded.upload_id) end
            where not uploads.is_abandoned
         returning upload_id",
        key,
        execution.0,
        session.0,
        upload_id,
    )
    .fetch_optional(db)
    .await?;
    Ok(granted)
}

/// The parts were joined: nothing is left to abort.
pub(crate) async fn joined(
    db: &mut PgConnection,
    key: &str,
    upload_id: &str,
) -> anyhow::Result<()> {
    sqlx::query!(
        "update uploads set upload_id = null where key = $1 and upload_id = $2",
        key,
        upload_id,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A grant that was given up.
#[derive(Debug)]
pub(crate) struct Abandoned {
    /// The object.
    pub(crate) key: String,
    /// Of an upload in parts.
    pub(crate) upload_id: Option<String>,
    /// The key was granted again while its archive was being accepted: the object must stay.
    pub(crate) is_archive: bool,
}

/// Gives up grants that nobody used for `age` and whose lease is not current any more; from
/// then on `complete` refuses them. Also answers those that were given up before, whose
/// objects may not be gone yet.
pub(crate) async fn abandon(
    db: &mut PgConnection,
    age: Duration,
    limit: i64,
) -> anyhow::Result<Vec<Abandoned>> {
    let uploads = sqlx::query_as!(
        Abandoned,
        "update uploads set is_abandoned = true where key in (
            select u.key from uploads u
            where u.granted_at < now() - $1::interval
                and not exists (select from executions e
                    where e.id = u.execution_id and e.lease_hash is not null
                        and e.state in ('planning', 'running', 'waiting')
                        and position(e.claim_id::text in u.key) > 0)
            order by u.granted_at limit $2 for update skip locked)
         returning key, upload_id,
            exists (select from archives where archives.key = uploads.key) as \"is_archive!\"",
        interval(age),
        limit,
    )
    .fetch_all(db)
    .await?;
    Ok(uploads)
}

/// Forgets a grant whose objects are gone.
pub(crate) async fn forget(db: &mut PgConnection, key: &str) -> anyhow::Result<()> {
    sqlx::query!("delete from uploads where key = $1 and is_abandoned", key)
        .execute(db)
        .await?;
    Ok(())
}
