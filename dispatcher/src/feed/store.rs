//! Feeds in Postgres.

use bytes::Bytes;
use clawlink_shared::id::WorkspaceId;
use sqlx::PgConnection;

/// Locks the feed and takes its next number.
pub(super) async fn next_seq(db: &mut PgConnection, workspace: WorkspaceId) -> anyhow::Result<i64> {
    let seq = sqlx::query_scalar!(
        "insert into feeds (workspace_id, last_seq) values ($1, 1)
         on conflict (workspace_id) do update set last_seq = feeds.last_seq + 1
         returning last_seq",
        workspace.0,
    )
    .fetch_one(db)
    .await?;
    Ok(seq)
}

/// Adds the event with that number.
pub(super) async fn insert(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    seq: i64,
    payload: &[u8],
) -> anyhow::Result<()> {
    sqlx::query!(
        "insert into feed_events (workspace_id, seq, payload) values ($1, $2, $3)",
        workspace.0,
        seq,
        payload,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A piece of a feed.
#[derive(Debug)]
pub(super) struct Page {
    /// The feed's last number; 0 if nothing ever happened.
    pub(super) last_seq: i64,
    /// `(seq, envelope)` in order; gaps are what was forgotten.
    pub(super) events: Vec<(i64, Bytes)>,
}

/// Events after a number, and where the feed ends; both of one moment.
pub(super) async fn page(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    after: i64,
    limit: i64,
    bytes: i64,
) -> anyhow::Result<Page> {
    let rows = sqlx::query!(
        "select f.last_seq, e.seq as \"seq?\", e.payload as \"payload?\"
         from feeds f left join lateral (
            select seq, payload from (
                select seq, payload,
                    sum(octet_length(payload)) over (order by seq) - octet_length(payload) as ahead
                from (
                    select seq, payload from feed_events
                    where workspace_id = $1 and seq > $2
                    order by seq limit $3
                ) first
            ) measured
            where ahead < $4
         ) e on true
         where f.workspace_id = $1
         order by e.seq",
        workspace.0,
        after,
        limit,
        bytes,
    )
    .fetch_all(db)
    .await?;
    let last_seq = rows.first().map_or(0, |row| row.last_seq);
    let events = rows.into_iter();
    let events = events.filter_map(|row| Some((row.seq?, Bytes::from(row.payload?))));
    Ok(Page {
        last_seq,
        events: events.collect(),
    })
}

/// The ends of these workspaces' feeds.
pub(super) async fn last_seqs(
    db: &mut PgConnection,
    workspaces: &[i64],
) -> anyhow::Result<Vec<(i64, i64)>> {
    let rows = sqlx::query!(
        "select workspace_id, last_seq from feeds where workspace_id = any($1)",
        workspaces,
    )
    .fetch_all(db)
    .await?;
    let rows = rows.into_iter();
    Ok(rows.map(|row| (row.workspace_id, row.last_seq)).collect())
}

/// Forgets events that are too old, so many at most; how many.
pub(super) async fn forget_old(
    db: &mut PgConnection,
    seconds: f64,
    limit: i64,
) -> anyhow::Result<u64> {
    let done = sqlx::query!(
        "delete from feed_events where (workspace_id, seq) in (
            select workspace_id, seq from feed_events
            where created_at < now() - make_interval(secs => $1)
            order by created_at limit $2)",
        seconds,
        limit,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Forgets events that so many newer ones of the same workspace follow, so many at most; how
/// many.
pub(super) async fn forget_surplus(
    db: &mut PgConnection,
    keep: i64,
    limit: i64,
) -> anyhow::Result<u64> {
    let done = sqlx::query!(
        "delete from feed_events where (workspace_id, seq) in (
            select e.workspace_id, e.seq from feeds f, lateral (
                select workspace_id, seq from feed_events
                where workspace_id = f.workspace_id and seq <= f.last_seq - $1
                order by seq limit $2
            ) e
            limit $2)",
        keep,
        limit,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}
