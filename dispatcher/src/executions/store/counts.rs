//! Numbers for people and metrics.

use sqlx::PgConnection;

/// How many executions there are in one open state.
#[derive(Debug, Clone)]
pub(crate) struct StateCount {
    /// The state's name.
    pub(crate) state: String,
    /// How many.
    pub(crate) count: i64,
}

/// Executions by open state.
pub(crate) async fn open_states(db: &mut PgConnection) -> anyhow::Result<Vec<StateCount>> {
    let counts = sqlx::query_as!(
        StateCount,
        "select state as \"state!\", count(*) as \"count!\" from executions where state = 'pending'
         group by state
         union all
         select state, count(*) from executions
         where state in ('planning', 'running', 'waiting') group by state",
    )
    .fetch_all(db)
    .await?;
    Ok(counts)
}

/// What waits for nothing but a worker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Short {
    /// How many executions.
    pub(crate) count: i64,
    /// How long the oldest has waited, in seconds; 0 where there is none.
    pub(crate) longest_seconds: f64,
}

/// Executions whose recorded reason to wait is that all workers are busy.
pub(crate) async fn short_of_workers(db: &mut PgConnection) -> anyhow::Result<Short> {
    let short = sqlx::query_as!(
        Short,
        "select count(*) as \"count!\",
            coalesce(extract(epoch from max(now() - queued_at)), 0)::float8 as \"longest_seconds!\"
         from executions where state = 'pending' and wait_reason = 'no_idle_worker'",
    )
    .fetch_one(db)
    .await?;
    Ok(short)
}

/// The last seq of each of these executions.
pub(crate) async fn last_seqs(
    db: &mut PgConnection,
    executions: &[i64],
) -> anyhow::Result<Vec<(i64, i64)>> {
    let rows = sqlx::query!(
        "select id, last_seq from executions where id = any($1)",
        executions,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.last_seq)).collect())
}
