//! What the usage of an execution is about, and the stop that a limit orders.

use clawlink_shared::execution::ErrorCode;
use clawlink_shared::id::ExecutionId;
use sqlx::PgConnection;

use crate::usage::money::Micros;

/// What is said of an execution that consumes.
#[derive(Debug)]
pub(crate) struct Facts {
    /// The project of its task.
    pub(crate) project: Option<i64>,
    /// Its agent.
    pub(crate) agent: String,
    /// The model that was asked for.
    pub(crate) model: Option<String>,
    /// Who asked: `key:7`.
    pub(crate) submitted_by: String,
    /// US dollars that the request allows.
    pub(crate) max_budget: Option<f64>,
    /// What its session may cost by itself.
    pub(crate) session_budget: Option<Micros>,
    /// A stop was ordered.
    pub(crate) is_stopped: bool,
}

/// Reads them; the caller has locked the execution.
pub(crate) async fn facts(db: &mut PgConnection, execution: ExecutionId) -> anyhow::Result<Facts> {
    let row = sqlx::query!(
        "select t.project_id as \"project_id?\", e.agent, e.spec->'options'->>'model' as model,
            e.submitted_by, (e.spec->'options'->>'maxBudgetUsd')::float8 as max_budget,
            e.stop_code is not null as \"is_stopped!\", s.budget_micros
         from executions e join sessions s on s.id = e.session_id
         left join tasks t on t.id = e.task_id
         where e.id = $1",
        execution.0,
    )
    .fetch_one(db)
    .await?;
    Ok(Facts {
        project: row.project_id,
        agent: row.agent,
        model: row.model,
        submitted_by: row.submitted_by,
        max_budget: row.max_budget,
        session_budget: row.budget_micros.map(Micros),
        is_stopped: row.is_stopped,
    })
}

/// Orders the lease holder to stop; the first order stays. The caller has locked the execution,
/// and tells who listens after the commit.
pub(crate) async fn order_stop(
    db: &mut PgConnection,
    execution: ExecutionId,
    code: ErrorCode,
    reason: &str,
) -> anyhow::Result<()> {
    sqlx::query!(
        "update executions set stop_code = $2, stop_reason = $3, orders = orders + 1,
            stop_order = orders + 1
         where id = $1 and stop_code is null and state in ('planning', 'running', 'waiting')",
        execution.0,
        code.as_str(),
        reason,
    )
    .execute(db)
    .await?;
    Ok(())
}
