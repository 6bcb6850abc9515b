//! The outbox in Postgres.

use std::time::Duration;

use sqlx::PgConnection;
use sqlx::postgres::types::PgInterval;

use super::{Effect, Places, Rows};

/// An effect that this replica has taken.
#[derive(Debug)]
pub(super) struct Taken {
    /// Its row.
    pub(super) id: i64,
    /// What to do; `None` if another version wrote something this one does not know.
    pub(super) effect: Option<Effect>,
    /// How often it was taken, this time included.
    pub(super) attempts: i32,
}

pub(super) async fn insert(db: &mut PgConnection, effects: &[Effect]) -> anyhow::Result<()> {
    let rows = Rows::of(effects, &Places::default())?;
    sqlx::query!(
        "insert into outbox (effect, is_slow)
         select effect, is_slow from unnest($1::jsonb[], $2::boolean[]) as new (effect, is_slow)",
        &rows.effects,
        &rows.slow,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Which effects are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The quick lane's.
    Quick,
    /// The slow lane's that talk to S3.
    Slow,
    /// The slow lane's of tasks.
    Task,
}

/// Takes due effects of one kind, oldest first; nobody else does so for `lease`.
pub(super) async fn take(
    db: &mut PgConnection,
    kind: Kind,
    lease: Duration,
    limit: i64,
) -> anyhow::Result<Vec<Taken>> {
    let rows = sqlx::query!(
        "update outbox set due_at = now() + $2::interval, attempts = attempts + 1
         where id in (
            select id from outbox where is_slow = (select $1::boolean) and due_at <= now()
                and (effect ->> 'do' = 'follow_task') = $4
            order by due_at, id limit (select $3::bigint) for update skip locked)
         returning id, effect, attempts",
        kind != Kind::Quick,
        interval(lease),
        limit,
        kind == Kind::Task,
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Taken {
            id: row.id,
            effect: serde_json::from_value(row.effect).ok(),
            attempts: row.attempts,
        })
        .collect())
}

/// Forgets performed effects, without waiting for the disk: after a crash of Postgres one may be
/// performed again.
pub(super) async fn done(db: &mut PgConnection, ids: &[i64]) -> anyhow::Result<()> {
    sqlx::query!(
        "delete from outbox
         where id = any($1) and set_config('synchronous_commit', 'off', true) = 'off'",
        ids,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The same for one effect, in a form whose plan Postgres keeps.
pub(super) async fn done_one(db: &mut PgConnection, id: i64) -> anyhow::Result<()> {
    sqlx::query!(
        "delete from outbox
         where id = $1 and set_config('synchronous_commit', 'off', true) = 'off'",
        id,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Puts effects that failed off.
pub(super) async fn put_off(
    db: &mut PgConnection,
    ids: &[i64],
    pause: Duration,
) -> anyhow::Result<()> {
    sqlx::query!(
        "update outbox set due_at = now() + $2::interval where id = any($1)",
        ids,
        interval(pause),
    )
    .execute(db)
    .await?;
    Ok(())
}

fn interval(duration: Duration) -> PgInterval {
    PgInterval {
        months: 0,
        days: 0,
        microseconds: i64::try_from(duration.as_micros()).unwrap_or(i64::MAX),
    }
}
