//! Usage in Postgres.

use clawlink_shared::execution::Usage;
use clawlink_shared::id::{ExecutionId, SessionId, WorkspaceId};
use sqlx::PgConnection;
use time::Date;
use uuid::Uuid;

use super::money::Micros;
use super::{Consumer, MOST, Spent};

/// A report with its price.
#[derive(Debug)]
pub(super) struct Report<'a> {
    pub(super) model: Option<String>,
    pub(super) cost: Option<Micros>,
    pub(super) is_estimate: bool,
    pub(super) usage: &'a Usage,
}

/// Makes the rows of an attempt add up to its report: today's gets what those of other days do not
/// have. A report that says less than is known says nothing new, and one without a cost takes no
/// known one back: limits count it.
pub(super) async fn record(
    db: &mut PgConnection,
    of: &Consumer,
    report: &Report<'_>,
) -> anyhow::Result<()> {
    let count = |tokens: u64| tokens.min(MOST).cast_signed();
    let usage = report.usage;
    sqlx::query!(
        "insert into usage (workspace_id, execution_id, attempt, day, session_id, task_id,
            project_id, agent, model, submitted_by, input_tokens, output_tokens,
            cache_read_tokens, cache_write_tokens, cost_micros, is_estimate)
         select $1, $2, $3, (now() at time zone 'utc')::date, $4, $5, $6, $7, $8, $9,
            $10 - coalesce(sum(input_tokens), 0)::bigint,
            $11 - coalesce(sum(output_tokens), 0)::bigint,
            $12 - coalesce(sum(cache_read_tokens), 0)::bigint,
            $13 - coalesce(sum(cache_write_tokens), 0)::bigint,
            $14::bigint - coalesce(sum(cost_micros), 0)::bigint, $15
         from usage
         where execution_id = $2 and attempt = $3 and day <> (now() at time zone 'utc')::date
         having coalesce(sum(input_tokens + output_tokens), 0) <= $10::bigint + $11::bigint
         on conflict (execution_id, attempt, day) do update set
            model = coalesce(excluded.model, usage.model),
            input_tokens = excluded.input_tokens, output_tokens = excluded.output_tokens,
            cache_read_tokens = excluded.cache_read_tokens,
            cache_write_tokens = excluded.cache_write_tokens,
            cost_micros = coalesce(excluded.cost_micros, usage.cost_micros),
            is_estimate = excluded.is_estimate or excluded.cost_micros is null,
            updated_at = now()
         where usage.input_tokens + usage.output_tokens
            <= excluded.input_tokens + excluded.output_tokens",
        of.workspace.0,
        of.execution.0,
        of.attempt,
        of.session.0,
        of.task,
        of.project,
        of.agent,
        report.model,
        of.submitted_by,
        count(usage.input_tokens),
        count(usage.output_tokens),
        count(usage.cache_read_tokens.unwrap_or(0)),
        count(usage.cache_write_tokens.unwrap_or(0)),
        report.cost.map(|cost| cost.0),
        report.is_estimate,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The sums of executions' reports. A cost is known if each part's is.
pub(super) async fn of_executions(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    executions: &[i64],
) -> anyhow::Result<Vec<(ExecutionId, Usage)>> {
    let rows = sqlx::query!(
        "select execution_id, max(model) as model,
            sum(input_tokens)::bigint as input, sum(output_tokens)::bigint as output,
            sum(cache_read_tokens)::bigint as cache_read,
            sum(cache_write_tokens)::bigint as cache_write,
            case when bool_and(cost_micros is not null) then sum(cost_micros)::bigint end as cost
         from usage where workspace_id = $1 and execution_id = any($2)
         group by execution_id",
        workspace.0,
        executions,
    )
    .fetch_all(db)
    .await?;
    let count = |tokens: Option<i64>| tokens.unwrap_or(0).max(0).unsigned_abs();
    let usages = rows.into_iter().map(|row| {
        let usage = Usage {
            input_tokens: count(row.input),
            output_tokens: count(row.output),
            cache_read_tokens: Some(count(row.cache_read)),
            cache_write_tokens: Some(count(row.cache_write)),
            cost_usd: row.cost.map(|cost| Micros(cost).dollars()),
            model: row.model,
        };
        (ExecutionId(row.execution_id), usage)
    });
    Ok(usages.collect())
}

/// What is known to be spent.
pub(super) async fn spent(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    session: Option<SessionId>,
    execution: Option<ExecutionId>,
) -> anyhow::Result<Spent> {
    let row = sqlx::query!(
        "select
            (select coalesce(sum(cost_micros), 0)::bigint from usage
             where workspace_id = $1 and day = (now() at time zone 'utc')::date) as \"day!\",
            (select coalesce(sum(cost_micros), 0)::bigint from usage
             where workspace_id = $1 and session_id = $2) as \"session!\",
            (select coalesce(sum(cost_micros), 0)::bigint from usage
             where workspace_id = $1 and execution_id = $3) as \"execution!\"",
        workspace.0,
        session.map(|session| session.0),
        execution.map(|execution| execution.0),
    )
    .fetch_one(db)
    .await?;
    Ok(Spent {
        day: Micros(row.day),
        session: Micros(row.session),
        execution: Micros(row.execution),
    })
}

/// What is to be added up.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    /// First and last day.
    pub(super) from: Date,
    pub(super) to: Date,
    /// A name that clients use; any other: all together.
    pub(super) group_by: &'a str,
    /// Only groups behind this key.
    pub(super) after: Option<&'a str>,
    pub(super) limit: i64,
}

/// What a group consumed.
#[derive(Debug)]
pub(super) struct Group {
    /// In the order of lists: numbers with leading zeros; empty for what has none.
    pub(super) key: String,
    /// A session of the group: the only one where it has one.
    pub(super) session: Option<Uuid>,
    pub(super) executions: i64,
    pub(super) input: i64,
    pub(super) output: i64,
    pub(super) cache_read: i64,
    pub(super) cache_write: i64,
    pub(super) cost: Option<i64>,
    /// Executions of which a part has no known cost.
    pub(super) unpriced: i64,
}

/// Groups in the order of their keys.
pub(super) async fn groups(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    wanted: &Wanted<'_>,
) -> anyhow::Result<Vec<Group>> {
    let groups = sqlx::query_as!(
        Group,
        "select key as \"key!\", (min(session_id::text))::uuid as session,
            count(distinct execution_id) as \"executions!\",
            coalesce(sum(input_tokens), 0)::bigint as \"input!\",
            coalesce(sum(output_tokens), 0)::bigint as \"output!\",
            coalesce(sum(cache_read_tokens), 0)::bigint as \"cache_read!\",
            coalesce(sum(cache_write_tokens), 0)::bigint as \"cache_write!\",
            sum(cost_micros)::bigint as cost,
            count(distinct execution_id) filter (where cost_micros is null) as \"unpriced!\"
         from (
            select *, (case $4
                when 'day' then to_char(day, 'YYYY-MM-DD')
                when 'execution' then lpad(execution_id::text, 19, '0')
                when 'session' then session_id::text
                when 'task' then coalesce(lpad(task_id::text, 19, '0'), '')
                when 'project' then coalesce(lpad(project_id::text, 19, '0'), '')
                when 'agent' then agent
                when 'model' then coalesce(model, '')
                when 'user' then submitted_by
                else '' end) collate \"C\" as key
            from usage where workspace_id = $1 and day between $2 and $3
         ) as keyed
         where $5::text is null or key > $5
         group by key order by key limit $6",
        workspace.0,
        wanted.from,
        wanted.to,
        wanted.group_by,
        wanted.after,
        wanted.limit,
    )
    .fetch_all(db)
    .await?;
    Ok(groups)
}
